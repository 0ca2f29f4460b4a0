"""Totals over a changing set of processes that never go down. Pure.

Linux adds what a process used to its parent's account when the parent waits for it. A parent that ignores
SIGCHLD never does, and of a process whose parent has died the use goes to somebody outside. Then only what
we saw is left.
"""

from __future__ import annotations

from typing import Dict, Mapping, NamedTuple, Optional

__all__ = ["Share", "Total"]


class Share(NamedTuple):
    """What one process stands for: its own use and that of the children it has waited for.

    absorbed: the part of total in which the use of waited-for children shows up.
    """

    start_ticks: int
    ppid: int
    total: int
    absorbed: int


class Total:
    """A running total over processes that come and go. Law: it never decreases."""

    def __init__(self) -> None:
        self._before: Mapping[int, Share] = {}
        self._lost = 0

    def update(self, now: Mapping[int, Share]) -> int:
        """The total, given the shares by pid of all processes that live now."""
        self._lost += lost(self._before, now)
        self._before = now
        return self._lost + sum(share.total for share in now.values())

    def last(self, pid: int, start_ticks: int) -> Optional[Share]:
        """The share that a process had at the last update."""
        share = self._before.get(pid)
        return share if share is not None and share.start_ticks == start_ticks else None


def lost(before: Mapping[int, Share], now: Mapping[int, Share]) -> int:
    """How much of what the processes of ``before`` had used is in no account of ``now``.

    What a vanished process used must show as growth of its nearest living ancestor; whatever exceeds that
    growth went to nobody we watch.
    """
    gone: Dict[Optional[int], int] = {}
    for pid, share in before.items():
        if not _lives(pid, before, now):
            heir = _heir(share.ppid, before, now)
            gone[heir] = gone.get(heir, 0) + share.total
    result = 0
    for heir, amount in gone.items():
        growth = 0 if heir is None else now[heir].absorbed - before[heir].absorbed
        result += max(0, amount - growth)
    return result


def _lives(pid: int, before: Mapping[int, Share], now: Mapping[int, Share]) -> bool:
    return pid in now and now[pid].start_ticks == before[pid].start_ticks


def _heir(pid: int, before: Mapping[int, Share], now: Mapping[int, Share]) -> Optional[int]:
    """The nearest ancestor that still lives, from ``pid`` on upwards; None when nobody we know does."""
    for _ in before:  # bounded, since reused pids could form a ring
        if pid not in before:
            return None
        if _lives(pid, before, now):
            return pid
        pid = before[pid].ppid
    return None
