"""mllaunch ps"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from mllaunch.cli import listing

if TYPE_CHECKING:
    from mllaunch.ports import RunQuery

_WATCH_S = 1.0


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Every run, not only the newest 20.")
@click.option("-w", "--watch", is_flag=True, help="Show it again every second.")
@click.option("--unfinished", is_flag=True, help="Only runs that have not ended.")
@click.option("--project", metavar="NAME", help="Only runs of this project.")
@click.option("--tag", metavar="TAG", help="Only runs with this tag.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Only runs with this argument.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(everything: bool, watch: bool, as_json: bool, **conditions: Any) -> int:
    """List runs, newest first, with how each stands and why it waits."""
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd())
    query = _query(everything, conditions)
    if not watch:
        listing.show(app, query, as_json=as_json)
        return 0
    import time

    while True:
        if sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[J")
        listing.show(app, query, as_json=as_json)
        time.sleep(_WATCH_S)


def _query(everything: bool, conditions: dict[str, Any]) -> RunQuery:
    from mllaunch.errors import UsageError
    from mllaunch.ports import RunQuery

    params = []
    for text in conditions["params"]:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError("param", f"--param {text}: expected NAME=VALUE, such as lr=3e-4")
        params.append((name, value))
    return RunQuery(
        limit=-1 if everything else listing.NEWEST,
        unsettled=conditions["unfinished"],
        project=conditions["project"],
        tag=conditions["tag"],
        params=tuple(params),
    )
