"""Ending tasks: SIGTERM, a grace period, then SIGKILL for everything they started, until nothing is left."""

from __future__ import annotations

import os
import signal
from typing import Callable, Dict, Iterable, List, Optional, Set

from mllaunch_agent.outcome import Cause
from mllaunch_agent.probes import processes

_SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish")


class Stopping:
    """One stop in progress; driven by tick() with the time since boot. Signals are sent through the function given.

    mains: the living main processes. family: every living process that belongs to the tasks.
    """

    def __init__(self, cause: Cause, grace_s: float, started_s: float) -> None:
        self.cause = cause
        self.kill_at_s = started_s + grace_s
        self._asked: Set[int] = set()
        self._started_by_shells: Dict[int, int] = {}  # pid -> start_ticks

    def hurry(self, now_s: float) -> None:
        """From now on, SIGKILL."""
        self.kill_at_s = min(self.kill_at_s, now_s)

    def tick(
        self,
        now_s: float,
        mains: Iterable[int],
        family: Callable[[], List[int]],
        send: Callable[[int, int], None],
    ) -> None:
        """Send what is due. SIGKILL is repeated at every tick, since a process may fork while it is being killed."""
        if now_s >= self.kill_at_s:
            for pid in family():
                send(pid, signal.SIGKILL)
            return
        # Main processes first and alone: a data loader's workers killed by SIGTERM would make the main process
        # fail before it can write its checkpoint. A program that a shell started is one, also after the shell's end.
        mains = list(mains)
        for pid in with_shell_children(mains):
            if pid not in mains:
                self._started_by_shells.setdefault(pid, processes.start_ticks(pid) or 0)
        living = mains + [p for p, ticks in self._started_by_shells.items() if processes.is_same(p, ticks)]
        # What outlives them all is asked as well.
        for pid in living or family():
            if pid not in self._asked:
                self._asked.add(pid)
                send(pid, signal.SIGTERM)


def with_shell_children(pids: Iterable[int]) -> List[int]:
    """The processes, and the children of those that are shells: a shell does not pass SIGTERM on."""
    found: List[int] = []
    for pid in pids:
        found.append(pid)
        if _name(pid) in _SHELLS:
            found.extend(with_shell_children(processes.children(pid)))
    return found


def _name(pid: int) -> Optional[str]:
    stat = processes.stat(pid)
    return stat.name if stat else None


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # gone already, or it became another user's (sudo), whom we may not kill
