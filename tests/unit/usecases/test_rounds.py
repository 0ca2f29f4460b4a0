"""Each node is asked by a thread of its own, so one that hangs keeps nobody else waiting; and what it need not keep is
freed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mllaunch.domain.job import Resources
from mllaunch.domain.run import Run, RunStatus, Silence
from mllaunch.domain.state import State
from mllaunch.errors import Unreachable
from mllaunch.usecases.collect import NewerProtocol
from mllaunch.usecases.rounds import Rounds, Watch, look_once
from tests.conformance.runs import SPEC, make_run
from tests.fakes.nodes import AT, Nodes


class Thread:
    """One that goes on for as long as the test wants."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act
        self.alive = True
        self.joined: list[float | None] = []

    def is_alive(self) -> bool:
        return self.alive

    def finish(self) -> None:
        self.act()
        self.alive = False

    def join(self, timeout: float | None = None, /) -> None:
        self.joined.append(timeout)
        if timeout is None and self.alive:
            self.finish()


class Disks:
    def __init__(self, to_free: dict[str, list[str]]) -> None:
        self._to_free = to_free
        self.freed: list[tuple[str, str]] = []

    def to_free(self) -> dict[str, list[str]]:
        return self._to_free

    def free(self, run_id: str, node: str) -> None:
        self.freed.append((run_id, node))
        if node == "silent":
            raise Unreachable("unreachable", "silent")


class Collecting:
    """A collector that says what it was asked for: (run, node). Its run log has what it says that was sealed."""

    state = State.SUCCEEDED
    seal: str | None = "sealed-complete"
    unreachable: tuple[tuple[str, str], ...] = ()
    blobs = None

    def __init__(self, places: dict[str, list[str]]) -> None:
        self.runs = [
            make_run(number, name=name, spec=SPEC._replace(backend="ssh" if nodes else "local"))
            for number, (name, nodes) in enumerate(places.items(), 1)
        ]
        self._places = places
        self.asked: list[tuple[str, str | None]] = []
        self.slept: list[float] = []
        self.newer: set[str] = set()  # runs whose records cannot be read here

    def unsettled(self) -> list[Run]:
        return self.runs

    @property
    def log(self) -> Collecting:
        return self

    def get(self, run_id: str) -> tuple[Run, RunStatus]:
        run = next((run for run in self.runs if run.id == run_id), make_run(1))
        return run, RunStatus(self.state, seal=self.seal, unreachable=self.unreachable)

    def views(self, run_id: str) -> dict[tuple[int, str], Any]:
        return {(1, "a"): {"seal": {"streams": {}}}}

    def scheduler(self, run: Run) -> Nodes:
        return Nodes(*self._places[run.name])

    def collect(
        self, run: Run, status: RunStatus, *, events_only: bool = False, node: str | None = None
    ) -> RunStatus:
        self.asked.append((run.name, node))
        if run.name in self.newer:
            raise NewerProtocol(run, "a", 2)
        return status

    def attempt_to_collect(self, run: Run, *, events_only: bool, node: str | None = None) -> bool:
        self.asked.append((run.name, node))
        return run.name not in self.newer


def rounds(
    places: dict[str, list[str]], disks: Disks | None = None
) -> tuple[Rounds, Collecting, list[Thread]]:
    threads: list[Thread] = []

    def start(act: Callable[[], None]) -> Thread:
        threads.append(Thread(act))
        return threads[-1]

    collecting: Any = Collecting(places)
    made = Rounds(collecting, disks or Disks({}), start, collecting.slept.append)
    return made, collecting, threads


def test_a_node_that_hangs_is_not_asked_again_and_keeps_neither_others_nor_this_machine_waiting() -> None:
    made, collecting, threads = rounds({"here": [], "one": ["a"], "two": ["b"], "both": ["a", "b"]})
    assert made.go(events_only=False) == 4
    assert collecting.asked == [("here", None)]
    of_a, of_b = threads
    of_b.finish()  # that of a hangs
    assert collecting.asked[1:] == [("two", "b"), ("both", "b")]
    made.go(events_only=False)
    assert threads == [of_a, of_b, threads[2]]
    threads[2].finish()
    assert collecting.asked[3:] == [("here", None), ("two", "b"), ("both", "b")]
    of_a.finish()
    made.go(events_only=False)
    assert len(threads) == 5


def watch(collecting: Any, nodes: int) -> tuple[Watch, list[Thread]]:
    threads: list[Thread] = []

    def start(act: Callable[[], None]) -> Thread:
        threads.append(Thread(act))
        return threads[-1]

    [run] = collecting.runs
    spec = run.spec._replace(resources=Resources(nodes=nodes))
    return Watch(collecting, run._replace(spec=spec), start=start), threads


def test_whoever_watches_a_run_on_several_nodes_waits_for_none_that_hangs_until_it_has_ended() -> None:
    collecting: Any = Collecting({"both": ["a", "b"]})
    collecting.state, collecting.seal = State.RUNNING, None
    made, threads = watch(collecting, 2)
    running = made.look(RunStatus(State.QUEUED))
    assert running.state is State.RUNNING
    threads[1].finish()  # that of a hangs
    made.look(running)
    threads[2].finish()
    assert (collecting.asked, len(threads)) == ([("both", "b")] * 2, 3)
    collecting.state = State.SUCCEEDED
    assert made.look(running).state is State.SUCCEEDED
    assert collecting.asked[2:] == [("both", None)]  # of all nodes: none may hold anything back


def test_a_run_on_one_node_is_watched_without_threads_and_one_that_cannot_be_read_says_so() -> None:
    collecting: Any = Collecting({"one": ["a"]})
    made, threads = watch(collecting, 1)
    made.look(RunStatus(State.RUNNING))
    assert (collecting.asked, threads) == ([("one", None)], [])
    collecting = Collecting({"both": ["a", "b"]})
    collecting.state, collecting.newer = State.RUNNING, {"both"}
    made, threads = watch(collecting, 2)
    made.look(RunStatus(State.RUNNING))
    threads[0].finish()
    with pytest.raises(NewerProtocol):
        made.look(RunStatus(State.RUNNING))


def looked_once(collecting: Any, status: RunStatus, *, is_first: bool = False) -> list[Thread]:
    threads: list[Thread] = []

    def start(act: Callable[[], None]) -> Thread:
        threads.append(Thread(act))
        return threads[-1]

    [run] = collecting.runs
    look_once(collecting, run, status, is_first=is_first, start=start, now_s=lambda: 0.0)
    return threads


def test_a_look_waits_for_the_nodes_that_answer_and_gives_others_no_more_than_a_moment() -> None:
    collecting: Any = Collecting({"both": ["a", "b"]})
    silent = RunStatus(State.RUNNING, unreachable=(Silence("a", AT, AT),))
    of_a, of_b = looked_once(collecting, silent)
    assert (of_a.joined, of_b.joined) == ([1.0], [None])
    assert collecting.asked == [("both", "b")]


def test_while_all_nodes_answer_a_look_needs_no_threads() -> None:
    collecting: Any = Collecting({"both": ["a", "b"]})
    assert looked_once(collecting, RunStatus(State.RUNNING)) == []
    assert collecting.asked == [("both", None)]


def test_the_first_look_of_many_waits_for_no_node_unless_the_run_has_ended() -> None:
    collecting: Any = Collecting({"both": ["a", "b"]})
    collecting.state, collecting.seal = State.RUNNING, None
    first = looked_once(collecting, RunStatus(State.RUNNING), is_first=True)
    assert [thread.joined for thread in first] == [[1.0], [1.0]]
    assert collecting.asked == []
    collecting.state = State.SUCCEEDED
    looked_once(collecting, RunStatus(State.RUNNING), is_first=True)
    assert collecting.asked == [("both", None)]


def test_a_run_whose_record_only_a_newer_mllaunch_can_read_says_so_also_while_a_node_is_silent() -> None:
    collecting: Any = Collecting({"both": ["a", "b"]})
    collecting.newer = {"both"}
    with pytest.raises(NewerProtocol):
        looked_once(collecting, RunStatus(State.RUNNING, unreachable=(Silence("a", AT, AT),)))


def test_it_is_over_when_nothing_more_can_come() -> None:
    made, _, threads = rounds({})
    assert made.go(events_only=False) == 0 and threads == []


def test_a_run_that_has_settled_is_freed_on_each_of_its_nodes_before_it_is_over() -> None:
    disks = Disks({})
    made, collecting, threads = rounds({"one": ["a", "silent"]}, disks)
    made.go(events_only=False)
    for thread in threads:
        thread.finish()
    [run] = collecting.runs
    collecting.runs = []
    assert made.go(events_only=False) == 2
    assert made.go(events_only=False) == 2  # they are at it
    for thread in threads[2:]:
        thread.finish()
    assert made.go(events_only=False) == 0  # one that does not answer is for the next collector
    assert sorted(disks.freed) == [(run.id, "a"), (run.id, "silent")]


@pytest.mark.parametrize("seal", ["sealed-complete", "unsealed"])
def test_what_an_earlier_collector_could_not_free_is_freed_once_the_run_log_has_it(seal: str) -> None:
    disks = Disks({"old": ["a"]})
    made, collecting, threads = rounds({}, disks)
    collecting.seal = seal
    assert made.go(events_only=False) == 1
    threads[0].finish()
    assert disks.freed == ([("old", "a")] if seal == "sealed-complete" else [])
    assert made.go(events_only=False) == 0


def test_a_run_whose_record_only_a_newer_mllaunch_can_read_is_not_asked_for_again() -> None:
    made, collecting, threads = rounds({"here": [], "one": ["a"]})
    collecting.newer = {"one"}
    assert made.go(events_only=False) == 2
    threads[0].finish()
    assert made.go(events_only=False) == 1
    assert collecting.asked == [("here", None), ("one", "a"), ("here", None)]


def test_a_node_that_does_not_answer_costs_little_while_it_does_not() -> None:
    made, collecting, threads = rounds({"one": ["a"], "two": ["b"]})
    collecting.unreachable = (Silence("b", AT, AT),)
    made.go(events_only=False)
    of_a, of_b = threads
    of_a.finish()
    assert collecting.slept == []
    of_b.finish()
    assert collecting.slept == [2.0]
