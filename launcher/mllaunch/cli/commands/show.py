"""mllaunch show"""

from __future__ import annotations

import os
import sys

import click


@click.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(run: str, as_json: bool) -> int:
    """Show one run: how it stands and why, what it runs, where, and whatever is doubtful about it."""
    from mllaunch.cli.settling import settled
    from mllaunch.ports import AttemptRef
    from mllaunch.usecases.show import document
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd())
    shown, status = settled(app, run)
    has_ended = status.state.is_final and not status.is_lost
    not_told = [] if has_ended else app.scheduler_of(shown).not_told(AttemptRef(shown.id, status.attempt))
    found = document(app.log, app.blobs, shown, status, not_told)
    if as_json:
        import json

        sys.stdout.write(json.dumps(found) + "\n")
    else:
        from mllaunch.cli.show_text import render

        sys.stdout.write(render(found, app.clock.now(), sys.stdout))
    return 0
