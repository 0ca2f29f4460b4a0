"""Collecting over and over, so that a node which does not answer keeps nobody else waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mllaunch.domain.job import LOCAL
from mllaunch.errors import NotFound
from mllaunch.ports import AttemptRef

if TYPE_CHECKING:
    from mllaunch.domain.run import Run
    from mllaunch.usecases.collect import Collector


class Busy(Protocol):
    def is_alive(self) -> bool: ...


def _start(act: Callable[[], None]) -> Busy:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


class Rounds:
    """Each node is asked by a thread of its own about all runs that are on it; runs on this machine need none.

    start: has something done while others go on; an object that tells whether that is_alive.
    """

    def __init__(self, collector: Collector, start: Callable[[Callable[[], None]], Busy] = _start) -> None:
        self._collector = collector
        self._start = start
        self._busy: dict[str, Busy] = {}

    def go(self, *, events_only: bool) -> int:
        """Collect what this machine has, and have every node asked that has answered since the last time it was; how
        many runs there are from which more may come.
        """
        runs = self._collector.unsettled()
        by_node: dict[str, list[Run]] = {}
        for run in runs:
            nodes = [] if run.spec.backend == LOCAL else self._nodes_of(run)
            for node in nodes:
                by_node.setdefault(node, []).append(run)
            if not nodes:
                self._collector.attempt_to_collect(run, events_only=events_only)
        for node, there in by_node.items():
            if node not in self._busy or not self._busy[node].is_alive():
                self._busy[node] = self._start(self._asking(node, there, events_only))
        return len(runs)

    def _nodes_of(self, run: Run) -> list[str]:
        """Attempts of a run are all on the same nodes."""
        try:
            return self._collector.scheduler(run).nodes_of(AttemptRef(run.id, 1))
        except NotFound:
            return []  # its submission has not come that far

    def _asking(self, node: str, runs: list[Run], events_only: bool) -> Callable[[], None]:
        def ask() -> None:
            for run in runs:
                self._collector.attempt_to_collect(run, events_only=events_only, node=node)

        return ask
