"""A node that does not answer, or has lost what it kept: what the run log says of the run meanwhile and afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from mllaunch.domain.job import Resources
from mllaunch.domain.run import RunStatus
from mllaunch.domain.state import State
from mllaunch.errors import MllaunchError
from mllaunch.ports import Scheduler
from mllaunch.runlog.blobs import FileBlobStore
from mllaunch.runlog.sqlite import SqliteRunLog
from mllaunch.usecases.collect import Collector
from tests.conformance.runs import SPEC, make_run
from tests.fakes.nodes import Clock, Code, Nodes

EXIT: dict[str, Any] = {
    "code": "exit",
    "message": "exited with 3",
    "origin": "user",
    "node": "b",
    "rank": 1,
    "retryable": True,
}


def since(status: RunStatus) -> dict[str, str]:
    """Since when nodes do not answer."""
    return {silence.node: silence.since for silence in status.unreachable}


class Looking:
    """A run on some nodes, and whoever collects it."""

    def __init__(self, folder: Path, *names: str, max_retries: int = 0, state: State = State.QUEUED) -> None:
        self.clock = Clock()
        self.nodes = Nodes(*names)
        self.log = SqliteRunLog(str(folder))
        spec = SPEC._replace(backend="ssh", max_retries=max_retries, resources=Resources(nodes=len(names)))
        self.run = make_run(1, spec=spec)
        self.log.add(self.run, RunStatus(state))
        self._blobs = FileBlobStore(str(folder))

    def look(self, minute: int | None = None, node: str | None = None) -> RunStatus:
        """The status after a look, at that time; with one each minute up to then."""
        while minute is not None and self.clock.minute < minute - 1:
            self.clock.minute += 1
            self._collect(node)
        self.clock.minute = self.clock.minute if minute is None else minute
        return self._collect(node)

    def wake_up(self, minute: int) -> RunStatus:
        """The status after a look at that time, without any meanwhile."""
        self.clock.minute = minute
        return self._collect(None)

    @property
    def collector(self) -> Collector:
        """Another one each time, as when commands follow each other: it knows nothing but what the run log says."""
        scheduler = cast(Scheduler, self.nodes)
        code: Any = Code()
        return Collector(self.log, self._blobs, code, lambda run: scheduler, self.clock)

    def _collect(self, node: str | None) -> RunStatus:
        self.collector.collect(self.run, self.log.get(self.run.id)[1], node=node)
        return self.log.get(self.run.id)[1]


def test_a_silent_node_is_lost_after_its_lease_and_not_before(tmp_path: Path) -> None:
    one = Looking(tmp_path, "a")
    one.nodes["a"].start()
    assert one.look(4).state is State.RUNNING
    one.nodes["a"].is_silent = True
    for minute in (5, 20, 35):
        status = one.look(minute)
        assert status.state is State.RUNNING
        assert since(status) == {"a": "2026-11-21T09:05:00.000Z"}
    status = one.look(36)
    assert status.state is State.FAILED
    assert status.reason is not None
    assert (status.reason.code, status.reason.origin, status.reason.node) == (
        "node_lost",
        "infrastructure",
        "a",
    )
    assert status.reason.message == "a has not answered since 2026-11-21T09:05:00.000Z"
    assert (status.seal, status.shown_seal, status.is_lost) == (None, "unsealed", True)


@pytest.mark.parametrize(("end", "state"), [(True, State.SUCCEEDED), (False, State.RUNNING)])
def test_what_a_node_says_that_comes_back_replaces_the_verdict(
    tmp_path: Path, end: bool, state: State
) -> None:
    one = Looking(tmp_path, "a")
    node = one.nodes["a"]
    node.start()
    node.is_silent = True
    one.look(0)
    assert one.look(31).is_lost
    node.is_silent = False
    if end:
        node.end("succeeded")
        node.seal_it("succeeded")
    status = one.look(90)
    assert (status.state, status.unreachable, status.is_lost) == (state, (), False)
    assert status.seal == ("sealed-complete" if end else None)


def test_a_lost_attempt_is_not_followed_by_another_that_would_write_beside_it(tmp_path: Path) -> None:
    one = Looking(tmp_path, "a", "b", max_retries=3)
    one.nodes["a"].start()
    one.nodes["b"].start()
    one.look(0)
    one.nodes["a"].is_silent = True
    one.nodes["b"].end("failed", reason=EXIT, code=3)
    one.nodes["b"].seal_it("failed", 3)
    assert one.look(1).state is State.RUNNING
    status = one.look(32)
    assert (status.state, one.nodes.retried) == (State.FAILED, [])
    assert status.reason is not None
    assert (status.reason.code, status.reason.retryable) == ("exit", False)
    one.nodes["a"].is_silent = False
    one.nodes["a"].end("failed", reason={**EXIT, "code": "peer_failed"}, code=143)
    status = one.look(40)
    assert (status.state, set(one.nodes.retried)) == (
        State.QUEUED,
        {1},
    )  # now the old one is known to be over


def test_while_another_node_goes_on_the_agents_know_better(tmp_path: Path) -> None:
    one = Looking(tmp_path, "a", "b")
    one.nodes["a"].start()
    one.nodes["b"].start()
    one.nodes["a"].is_silent = True
    one.look(0)
    assert one.look(200).state is State.RUNNING
    one.nodes["b"].end("failed", "2026-11-21T12:30:00.000Z", {**EXIT, "code": "node_lost", "node": "b"})
    status = one.look(210)
    assert status.state is State.FAILED
    assert status.reason is not None
    assert (status.reason.code, status.reason.node) == ("node_lost", "a")


def test_while_this_machine_slept_no_node_was_silent(tmp_path: Path) -> None:
    one = Looking(tmp_path, "a")
    one.nodes["a"].start()
    one.look(4)
    one.nodes["a"].is_silent = True  # the network goes down first
    one.look(5)
    status = one.wake_up(485)  # and is not up yet
    assert status.state is State.RUNNING
    assert since(status) == {"a": "2026-11-21T17:05:00.000Z"}
    assert one.look(514).state is State.RUNNING
    assert one.look(516).is_lost


def test_a_further_attempt_that_cannot_begin_yet_stays_due_and_says_why(tmp_path: Path) -> None:
    one = Looking(tmp_path, "a", max_retries=1)
    one.nodes["a"].start()
    one.nodes["a"].end("failed", reason=EXIT, code=3)
    one.nodes.retry_fails = MllaunchError("disk_full", "a: no space left on device")
    for minute in (1, 2):
        status = one.look(minute)
        assert status.state is State.QUEUED
        assert status.waiting == "attempt 2 follows once it can: a: no space left on device"


def test_a_node_that_was_silent_from_the_start_is_lost_too(tmp_path: Path) -> None:
    one = Looking(tmp_path, "a")
    one.nodes["a"].is_silent = True
    one.look(0)
    assert one.look(29).state is State.QUEUED
    assert one.look(31).is_lost


def test_an_end_that_is_known_stays_when_the_node_is_lost_before_the_record_is_whole(tmp_path: Path) -> None:
    one = Looking(tmp_path, "a")
    one.nodes["a"].start()
    one.nodes["a"].end("succeeded")
    one.look(0)
    one.nodes["a"].is_silent = True
    one.look(1)
    status = one.look(60)
    assert (status.state, status.reason, status.seal) == (State.SUCCEEDED, None, None)


def test_each_node_is_noted_by_itself(tmp_path: Path) -> None:
    one = Looking(tmp_path, "a", "b")
    one.nodes["a"].is_silent = one.nodes["b"].is_silent = True
    one.look(1, "a")
    one.look(2, "b")
    assert since(one.look(3, "a")) == {
        "a": "2026-11-21T09:01:00.000Z",
        "b": "2026-11-21T09:02:00.000Z",
    }
    one.nodes["a"].is_silent = False
    assert since(one.look(4, "a")) == {"b": "2026-11-21T09:02:00.000Z"}
    assert one.nodes.asked == ["a", "b", "a", "a"]


def test_only_the_node_whose_agent_has_died_gets_another(tmp_path: Path) -> None:
    one = Looking(tmp_path, "a", "b")
    one.nodes["b"].is_alive_now = False
    one.look()
    assert one.nodes.revived == ["b"]


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_a_node_that_lost_its_folder_ends_the_run(tmp_path: Path, names: tuple[str, ...]) -> None:
    one = Looking(tmp_path, *names)
    for name in names:
        one.nodes[name].start()
    one.look()
    one.nodes["a"].is_gone = True
    for name in names[1:]:
        one.nodes[name].end("succeeded")
        one.nodes[name].seal_it("succeeded")
    status = one.look()
    assert (status.state, status.seal) == (State.FAILED, "unsealed")
    assert status.reason is not None
    assert (status.reason.code, status.reason.node) == ("folder_lost", "a")
    assert status.reason.message == "what a kept of this run is gone"


def test_an_attempt_of_which_a_folder_was_lost_is_not_followed_for_it_may_go_on(tmp_path: Path) -> None:
    one = Looking(tmp_path, "a", "b", max_retries=3)
    one.nodes["a"].start()
    one.nodes["b"].start()
    one.look()
    one.nodes["b"].end("failed", reason=EXIT, code=3)
    one.nodes["a"].is_gone = True
    assert (one.look().state, one.nodes.retried) == (State.FAILED, [])


def test_a_node_that_never_began_is_waited_for_and_not_for_ever(tmp_path: Path) -> None:
    one = Looking(tmp_path, "a", "b", state=State.PACKAGING)
    one.nodes["a"].start()
    one.nodes["b"].is_gone = True  # as before it was told to begin
    assert one.look(0).seal is None
    one.nodes["a"].end("failed", reason={**EXIT, "code": "incomplete"}, code=1)
    one.nodes["a"].seal_it("failed", 1)
    assert one.look(2).seal is None
    status = one.look(3)
    assert (status.state, status.seal) == (State.FAILED, "unsealed")
    assert status.reason is not None and status.reason.code == "incomplete"


@pytest.mark.parametrize("names", [("a",), ("a", "b")])
def test_a_folder_that_was_lost_before_anything_was_heard_of_it_ends_the_run(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    one = Looking(tmp_path, *names)
    for name in names:
        one.nodes[name].is_gone = True
    status = one.look()
    assert (status.state, status.seal) == (State.FAILED, "unsealed")
    assert status.reason is not None and status.reason.code == "folder_lost"


def test_a_folder_that_was_freed_once_the_record_was_here_is_not_lost(tmp_path: Path) -> None:
    one = Looking(tmp_path, "a")
    one.nodes["a"].start()
    one.nodes["a"].end("succeeded")
    stale = one.look()
    one.nodes["a"].seal_it("succeeded")
    one.look()
    one.nodes["a"].is_gone = True
    one.collector.collect(one.run, stale)  # by who has looked before the seal
    assert one.log.get(one.run.id)[1].seal == "sealed-complete"
