"""The run that a reading command is about, with all that can be known of it by now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mllaunch.domain.run import Run, RunStatus
    from mllaunch.wiring import App

_PATIENCE_S = 10.0  # between the end of a run and its seal the agent lists what was written; mostly 0.1 s
_POLL_S = 0.03


def settled(app: App, reference: str) -> tuple[Run, RunStatus]:
    """The run and its status; a run that has just ended gets some time to have its record sealed. NotFound."""
    from mllaunch.usecases.rounds import look_once

    run, status = app.log.get(reference)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        status = look_once(app.collector, run, status)
        is_sealing = status.state.is_final and status.seal is None and not status.unreachable
        if not is_sealing or time.monotonic() > deadline:
            return run, status
        time.sleep(_POLL_S)
