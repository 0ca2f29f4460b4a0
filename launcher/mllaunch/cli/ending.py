"""How a run or an attempt ended, or stands, in words."""

from __future__ import annotations

from mllaunch.cli import times
from mllaunch.domain.state import Reason


def words(
    state: str,
    reason: Reason | None,
    tasks: int,
    started_at: str | None,
    ended_at: str | None,
    exit_code: int | None = None,
) -> str:
    """``failed: exited with 3 (rank 1 on gpu02), after 3m 05s``; ``succeeded after 3m 05s``. tasks: of the run.

    exit_code: None, where it is not worth a word.
    """
    if reason is not None:
        text = f"{state}: {reason.words(tasks)}"
    else:
        text = state if exit_code is None else f"{state}, exit code {exit_code}"
    took = times.between(started_at, ended_at)
    return f"{text},{took}" if took and text != state else text + took
