"""mllaunch note"""

from __future__ import annotations

import os
import sys

import click


@click.command()
@click.argument("run")
@click.argument("text")
def command(run: str, text: str) -> int:
    """Write a note about a run, in place of the one it has. An empty TEXT removes it."""
    from mllaunch.usecases import annotate
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd())
    found, _ = app.log.get(run)
    annotate.note(app.log, found, text, app.environ)
    sys.stderr.write(f"{found.name}: {'note written' if text else 'note removed'}\n")
    return 0
