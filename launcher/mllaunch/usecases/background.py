"""The detached collector: one process per home that collects while there is something to collect."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from mllaunch_agent import system

if TYPE_CHECKING:
    from mllaunch.usecases.collect import Collector
    from mllaunch.usecases.rounds import Disks

_PAUSE_S = 0.3
_SHORT_BYTES = 1 << 30  # less room than this (or than an eighth of a small disk) is left to the jobs
# Without the current folder on the path: it is the user's, whose json.py is not for us to import.
_MAIN = "import sys; sys.path[:] = filter(None, sys.path); from mllaunch.cli.main import main; main()"
_SETTLE_S = 0.3  # the task that was just started has the processor first


def ensure(home: str) -> None:
    """Start a collector if none lives. Returns at once."""
    if system.is_locked(_lock_path(home)):
        return
    null = os.open(os.devnull, os.O_RDWR)
    try:
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", _MAIN, "collect-detached"],
            {**os.environ, "MLLAUNCH_HOME": home, "MLLAUNCH_AGENT": "1"},
            file_actions=[(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1, 2)],
            setsid=True,
        )
    finally:
        os.close(null)


def begin(home: str) -> bool:
    """Become the collector of this home; False if there is one. Comes before all that is large to import."""
    os.chdir("/")
    os.nice(10)
    os.makedirs(home, mode=0o700, exist_ok=True)
    if system.try_lock(_lock_path(home)) is None:  # held until this process ends
        return False
    time.sleep(_SETTLE_S)
    return True


def run(home: str, collector: Collector, disks: Disks) -> None:
    """Collect until every run is settled. disks: the nodes'."""
    from mllaunch.usecases.rounds import Rounds

    rounds = Rounds(collector, disks)
    while rounds.go(events_only=_is_short(home) and _is_printing(collector)):
        time.sleep(_PAUSE_S)


def _is_short(home: str) -> bool:
    """Whether the disk has so little room that copies of what the jobs have printed would keep them from printing."""
    disk = os.statvfs(home)
    return disk.f_bavail * disk.f_frsize < min(_SHORT_BYTES, disk.f_blocks * disk.f_frsize // 8)


def _is_printing(collector: Collector) -> bool:
    from mllaunch.ports import RunQuery

    return any(not row.status.state.is_final for row in collector.log.rows(RunQuery(-1, unsettled=True)))


def _lock_path(home: str) -> str:
    return os.path.join(home, "collector.lock")
