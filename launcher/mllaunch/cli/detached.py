"""What `submit` leaves running in the background."""

from __future__ import annotations

import os

from mllaunch.usecases import background


def collect() -> int:
    """Collect what runs produce until all of them are settled, unless somebody else does."""
    if background.begin(os.environ["MLLAUNCH_HOME"]):
        from mllaunch.wiring import App

        app = App(os.environ, "/")
        background.run(app.home, app.collector, app.ssh.disks)
    return 0
