"""mllaunch tag"""

from __future__ import annotations

import os
import sys

import click


@click.command()
@click.argument("run")
@click.argument("tags", nargs=-1, required=True, metavar="TAG...")
def command(run: str, tags: tuple[str, ...]) -> int:
    """Add tags to a run. `mllaunch ps --tag TAG` lists the runs that have one."""
    from mllaunch.domain.render import escape
    from mllaunch.usecases import annotate
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd())
    found, _ = app.log.get(run)
    every = annotate.tag(app.log, found, tags)
    sys.stderr.write(f"{found.name}: {escape(', '.join(every))}\n")
    return 0
