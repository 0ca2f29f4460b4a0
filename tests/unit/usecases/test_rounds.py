"""Each node is asked by a thread of its own, so one that hangs keeps nobody else waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mllaunch.domain.run import Run
from mllaunch.usecases.rounds import Rounds
from tests.conformance.runs import SPEC, make_run
from tests.fakes.nodes import Nodes


class Thread:
    """One that goes on for as long as the test wants."""

    def __init__(self, act: Callable[[], None]) -> None:
        self.act = act
        self.alive = True

    def is_alive(self) -> bool:
        return self.alive

    def finish(self) -> None:
        self.act()
        self.alive = False


class Collecting:
    """A collector that says what it was asked for: (run, node)."""

    def __init__(self, places: dict[str, list[str]]) -> None:
        self.runs = [
            make_run(number, name=name, spec=SPEC._replace(backend="ssh" if nodes else "local"))
            for number, (name, nodes) in enumerate(places.items(), 1)
        ]
        self._places = places
        self.asked: list[tuple[str, str | None]] = []

    def unsettled(self) -> list[Run]:
        return self.runs

    def scheduler(self, run: Run) -> Nodes:
        return Nodes(*self._places[run.name])

    def attempt_to_collect(self, run: Run, *, events_only: bool, node: str | None = None) -> None:
        self.asked.append((run.name, node))


def rounds(places: dict[str, list[str]]) -> tuple[Rounds, Collecting, list[Thread]]:
    threads: list[Thread] = []

    def start(act: Callable[[], None]) -> Thread:
        threads.append(Thread(act))
        return threads[-1]

    collecting: Any = Collecting(places)
    return Rounds(collecting, start), collecting, threads


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


def test_it_is_over_when_nothing_more_can_come() -> None:
    made, _, threads = rounds({})
    assert made.go(events_only=False) == 0 and threads == []
