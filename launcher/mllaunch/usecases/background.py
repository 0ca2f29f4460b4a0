"""The detached collector: one process per home that collects while there is something to collect."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from mllaunch_agent import system

if TYPE_CHECKING:
    from mllaunch.usecases.collect import Collector

_PAUSE_S = 0.5
_SETTLE_S = 0.3  # the task that was just started has the processor first


def ensure(home: str) -> None:
    """Start a collector if none lives. Returns at once."""
    if system.is_locked(_lock_path(home)):
        return
    null = os.open(os.devnull, os.O_RDWR)
    try:
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", "from mllaunch.cli.main import main; main()", "collect-detached"],
            {**os.environ, "MLLAUNCH_HOME": home, "MLLAUNCH_AGENT": "1"},
            file_actions=[(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)],
            setsid=True,
        )
    finally:
        os.close(null)


def run(home: str, collector: Collector) -> None:
    """Be the collector of this home, unless there is one: collect until every run is settled."""
    os.chdir("/")
    os.nice(10)
    os.makedirs(home, mode=0o700, exist_ok=True)
    lock = system.try_lock(_lock_path(home))
    if lock is None:
        return
    time.sleep(_SETTLE_S)
    while collector.collect_unsettled(events_only=False):
        time.sleep(_PAUSE_S)


def _lock_path(home: str) -> str:
    return os.path.join(home, "collector.lock")
