"""Collecting over and over, so that a node which does not answer keeps nobody else waiting.

What the run log has as it was sealed is freed on the nodes in passing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from mllaunch.domain.job import LOCAL
from mllaunch.errors import MllaunchError, Unreachable
from mllaunch.ports import AttemptRef

if TYPE_CHECKING:
    from mllaunch.domain.run import Run, RunStatus
    from mllaunch.usecases.collect import Collector


_SILENT_PAUSE_S = 2.0
_MOMENT_S = 1.0  # more than a node takes that answers


class Busy(Protocol):
    def is_alive(self) -> bool: ...

    def join(self, timeout: float | None = None, /) -> None: ...


class Disks(Protocol):
    """Those of the nodes."""

    def to_free(self) -> dict[str, list[str]]:
        """The nodes that have not freed their copies of streams yet, by run."""

    def free(self, run_id: str, node: str) -> None:
        """Have a node free its copies of a run's streams, all of which are in the run log. MllaunchError, OSError."""


def _start(act: Callable[[], None]) -> Busy:
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    return thread


class _Askers:
    """For each node at most one at a time who asks it."""

    def __init__(self, start: Callable[[Callable[[], None]], Busy]) -> None:
        self._start = start
        self._busy: dict[str, Busy] = {}

    def ask(self, node: str, act: Callable[[], None]) -> None:
        """Have it done, unless the last one has not come back yet."""
        if node not in self._busy or not self._busy[node].is_alive():
            self._busy[node] = self._start(act)


def look_once(
    collector: Collector,
    run: Run,
    status: RunStatus,
    *,
    is_first: bool = False,
    start: Callable[[Callable[[], None]], Busy] = _start,
    now_s: Callable[[], float] = time.monotonic,
) -> RunStatus:
    """As Collector.collect, but nodes that are known not to answer are given no more than a moment; and all of them,
    where this look is_first of many. What comes later is in the run log for the next look.
    """
    silent = {silence.node for silence in status.unreachable}
    nodes = _nodes_of(collector, run) if status.seal is None and (silent or is_first) else []
    if not nodes:
        return collector.collect(run, status)
    failed: list[BaseException] = []

    def ask(node: str) -> None:
        try:
            collector.collect(*collector.log.get(run.id), events_only=False, node=node)
        except Unreachable:
            pass  # it is noted
        except BaseException as error:  # noqa: BLE001  raised where the look is waited for
            failed.append(error)

    end_s = now_s() + _MOMENT_S
    asked = {node: start(partial(ask, node)) for node in nodes}
    for node, thread in sorted(asked.items(), key=lambda item: item[0] in silent):
        hurries = is_first or node in silent
        thread.join(max(0.0, end_s - now_s()) if hurries else None)
    if failed:
        raise failed[0]
    _, status = collector.log.get(run.id)
    # Nobody looks again at what has ended.
    return look_once(collector, run, status, start=start) if is_first and status.state.is_final else status


def _nodes_of(collector: Collector, run: Run) -> list[str]:
    """The nodes of a run that is not on this machine; attempts of a run are all on the same."""
    if run.spec.backend == LOCAL:
        return []
    try:
        return collector.scheduler(run).nodes_of(AttemptRef(run.id, 1))
    except MllaunchError:
        return []  # its submission has not come that far; or it is said when the run itself is asked for


class Watch:
    """Looks at one run over and over, for somebody who watches it. events_only: without what it prints."""

    def __init__(
        self,
        collector: Collector,
        run: Run,
        *,
        events_only: bool = False,
        start: Callable[[Callable[[], None]], Busy] = _start,
    ) -> None:
        self._collector = collector
        self._run = run
        self._events_only = events_only
        several = run.spec.resources.nodes > 1
        self._nodes = collector.scheduler(run).nodes_of(AttemptRef(run.id, 1)) if several else []
        self._askers = _Askers(start)
        self._failed: BaseException | None = None

    def look(self, status: RunStatus) -> RunStatus:
        """The run's status, and what its nodes have said up to now is in the run log; once it has ended, all of it."""
        if self._failed is not None:
            raise self._failed
        if self._nodes:
            for node in self._nodes:
                self._askers.ask(node, partial(self._ask, node))
            _, status = self._collector.log.get(self._run.id)
            if not status.state.is_final:
                return status
            if status.is_lost:
                return look_once(self._collector, self._run, status)
        return self._collector.collect(self._run, status, events_only=self._events_only)

    def _ask(self, node: str) -> None:
        try:
            known = self._collector.log.get(self._run.id)
            self._collector.collect(*known, events_only=self._events_only, node=node)
        except Unreachable:
            pass  # it is noted
        except BaseException as error:  # noqa: BLE001  the next look raises it
            self._failed = error


class Rounds:
    """Each node is asked by a thread of its own about all runs that are on it; runs on this machine need none.

    start: has something done while others go on; an object that tells whether that is_alive.
    """

    def __init__(
        self,
        collector: Collector,
        disks: Disks,
        start: Callable[[Callable[[], None]], Busy] = _start,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._sleep = sleep
        self._collector = collector
        self._disks = disks
        self._askers = _Askers(start)
        self._on_nodes: dict[str, list[str]] = {}  # by run, of those from which more may come
        self._in_vain: set[str] = set()  # runs whose records only a newer mllaunch can read
        self._turn = threading.Lock()
        self._to_free = {(run, node) for run, nodes in disks.to_free().items() for node in nodes}

    def go(self, *, events_only: bool) -> int:
        """Collect what this machine has, and have every node asked that has answered since the last time it was; how
        much there is still to be done.
        """
        runs = [run for run in self._collector.unsettled() if run.id not in self._in_vain]
        on_nodes: dict[str, list[str]] = {}
        work: dict[str, list[Callable[[], None]]] = {}
        for run in runs:
            collect = partial(self._collect, run, events_only)
            nodes = _nodes_of(self._collector, run)
            if nodes:
                on_nodes[run.id] = nodes
            else:
                collect()
            for node in nodes:
                work.setdefault(node, []).append(partial(collect, node=node))
        to_free = self._note_settled(on_nodes)
        for run_id, node in to_free:
            work.setdefault(node, []).append(partial(self._free, run_id, node))
        for node, acts in work.items():
            on_it = next((run_id for run_id, nodes in on_nodes.items() if node in nodes), None)
            self._askers.ask(node, partial(self._ask, node, acts, on_it))
        return len(runs) + len(to_free)

    def _ask(self, node: str, acts: list[Callable[[], None]], run_id: str | None) -> None:
        """run_id: one of the runs that are on the node; it tells whether that has answered."""
        for act in acts:
            act()
        if run_id is not None:
            try:
                _, status = self._collector.log.get(run_id)
            except MllaunchError:
                return
            if any(node == silence.node for silence in status.unreachable):
                self._sleep(_SILENT_PAUSE_S)  # its way is tried even more seldom

    def _collect(self, run: Run, events_only: bool, node: str | None = None) -> None:
        if not self._collector.attempt_to_collect(run, events_only=events_only, node=node):
            self._in_vain.add(run.id)

    def _note_settled(self, on_nodes: dict[str, list[str]]) -> list[tuple[str, str]]:
        """What is to be freed, (run, node), now that more may come from these runs only."""
        settled = self._on_nodes.keys() - on_nodes.keys() - self._in_vain
        with self._turn:
            self._to_free |= {(run_id, node) for run_id in settled for node in self._on_nodes[run_id]}
            self._to_free = {entry for entry in self._to_free if entry[0] not in on_nodes}
            self._on_nodes = on_nodes
            return sorted(self._to_free)

    def _free(self, run_id: str, node: str) -> None:
        from mllaunch.usecases.prune import missing

        try:
            run, status = self._collector.log.get(run_id)
            if missing(self._collector.blobs, run, status, self._collector.log.views(run_id)) is None:
                self._disks.free(run_id, node)
        except (MllaunchError, OSError):
            pass  # the next collector tries again, and `prune` says why it cannot be
        with self._turn:
            self._to_free.discard((run_id, node))
