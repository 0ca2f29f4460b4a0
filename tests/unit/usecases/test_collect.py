from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from mllaunch.domain.run import Run, RunStatus
from mllaunch.domain.state import Reason, State
from mllaunch.ports import AttemptRef, Scheduler, StreamRef
from mllaunch.runlog.blobs import FileBlobStore
from mllaunch.runlog.sqlite import SqliteRunLog
from mllaunch.usecases.collect import Collector, NewerProtocol
from tests.conformance.runs import make_run
from tests.fakes.nodes import AT, Clock, Code, Node, Nodes


class Printing(Node):
    """One on which an attempt ends while its output is copied, which another collector notices first."""

    def __init__(self, blobs: FileBlobStore, place: StreamRef) -> None:
        super().__init__()
        self._blobs = blobs
        self._place = place
        self._printed = b"begun\n"

    def lengths(self) -> dict[str, int]:
        return {"stdout.0": len(self._printed)}

    def read(self, stream: str, offset: int, limit: int) -> bytes:
        data = self._printed[offset : offset + limit]
        self._printed = b"begun\nended\n"
        ended = Node()
        ended.start()
        ended.end("succeeded")
        self._blobs.append(self._place._replace(stream="events"), 0, ended.events)
        return data


def collecting(folder: Path, **nodes: Node) -> tuple[Collector, list[Run]]:
    """Whoever collects the runs, each of which is on one node; and the runs."""
    log, code = SqliteRunLog(str(folder)), cast(Any, Code())
    schedulers = {}
    runs = []
    for number, (name, node) in enumerate(nodes.items(), 1):
        runs.append(make_run(number))
        log.add(runs[-1], RunStatus(State.QUEUED))
        on = Nodes(name)
        on.by_name[name] = node
        schedulers[runs[-1].id] = cast(Scheduler, on)
    return Collector(log, FileBlobStore(str(folder)), code, lambda run: schedulers[run.id], Clock()), runs


@pytest.mark.parametrize(("state", "exit_code"), [("failed", 3), ("succeeded", 0), ("cancelled", 143)])
def test_a_run_whose_events_are_damaged_ends_as_its_seal_says(
    tmp_path: Path, state: str, exit_code: int
) -> None:
    node = Node()
    node.start()
    node.end(state, code=exit_code)
    node.events = node.events.replace(b'"seq": 3', b'"seq": \xff')
    node.seal_it(state, exit_code)
    collector, [run] = collecting(tmp_path, here=node)
    ended = collector.collect(run, RunStatus(State.QUEUED))
    assert (ended.state.value, ended.exit_code, ended.ended_at) == (state, exit_code, AT)
    why = Reason("damaged_events", "part of its record is damaged", "infrastructure", "here")
    assert ended.reason == (None if state == "succeeded" else why)
    assert ended.seal is not None


def test_when_a_run_is_said_to_have_ended_all_of_its_output_is_here(tmp_path: Path) -> None:
    blobs = FileBlobStore(str(tmp_path))
    place = StreamRef(make_run(1).id, 1, "here", "stdout.0")
    collector, [run] = collecting(tmp_path, here=Printing(blobs, place))
    assert collector.collect(run, RunStatus(State.QUEUED)).state is State.SUCCEEDED
    assert blobs.read(place, 0, 100) == b"begun\nended\n"


@pytest.mark.parametrize(("told", "sealed"), [(2, 2), (2, 1), (None, 2)], ids=["both", "events", "seal"])
def test_22_a_record_of_a_newer_protocol_is_kept_unread_and_holds_up_no_other(
    tmp_path: Path, told: int | None, sealed: int
) -> None:
    future, present = Node(), Node()
    if told:
        future.tell("attempt_started", node="here", protocol=told)
    else:
        future.tell("from_the_future")
    present.start()
    for node in (future, present):
        node.end("succeeded")
    future.seal_it("succeeded", protocol=sealed)
    present.seal_it("succeeded")
    collector, [newer, other] = collecting(tmp_path, here=future, there=present)
    assert collector.collect_unsettled(events_only=False) == 1  # the newer one is for others to wait for
    assert collector.log.get(other.id)[1].state is State.SUCCEEDED
    with pytest.raises(
        NewerProtocol, match="has protocol 2, and this mllaunch knows protocols up to 1"
    ) as why:
        collector.collect(*collector.log.get(newer.id))
    assert why.value.hint is not None and why.value.exit_code == 125
    _, status = collector.log.get(newer.id)
    assert (status.state, status.seal) == (State.QUEUED, None)
    assert collector.blobs.read(StreamRef(newer.id, 1, "here", "events"), 0, 1 << 20) == future.events
    # Whoever knows the protocol begins at the beginning.
    assert collector.log.view(AttemptRef(newer.id, 1), "here")[1] == 0
