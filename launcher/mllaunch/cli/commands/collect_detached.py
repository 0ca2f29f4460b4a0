"""Hidden: what `submit` leaves running in the background."""

from __future__ import annotations

import os

import click


@click.command(hidden=True)
def command() -> None:
    """Collect what runs produce until all of them are settled."""
    from mllaunch.usecases import background
    from mllaunch.wiring import App

    app = App(os.environ, "/")
    background.run(app.home, app.collector, app.ssh.disks)
