from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

import pytest

from mllaunch.domain.run import RunStatus
from mllaunch.domain.snapshot import Snapshot
from mllaunch.domain.state import Reason, State
from mllaunch.ports import AttemptRef, Scheduler, StreamRef
from mllaunch.runlog.blobs import FileBlobStore
from mllaunch.runlog.sqlite import SqliteRunLog
from mllaunch.usecases.collect import Collector, NewerProtocol
from mllaunch_agent import PROTOCOL_VERSION
from mllaunch_agent.protocol import Seal
from tests.conformance.runs import make_run

AT = "2026-11-21T09:00:00.000Z"


class Files:
    """A node's files of an attempt that has been sealed."""

    def __init__(
        self, events: bytes, state: str, exit_code: int | None, protocol: int = PROTOCOL_VERSION
    ) -> None:
        self._events = events
        stream = {"size_bytes": len(events), "sha256": hashlib.sha256(events).hexdigest(), "gaps": []}
        self._seal = {
            "protocol": protocol,
            "state": state,
            "exit_code": exit_code,
            "at": AT,
            "streams": {"events": stream},
        }

    def lengths(self) -> dict[str, int]:
        return {"events": len(self._events)}

    def read(self, stream: str, offset: int, limit: int) -> bytes:
        return self._events[offset : offset + limit]

    def seal(self) -> Seal:
        return cast(Seal, self._seal)

    def is_alive(self) -> bool:
        return False


class Node:
    """The part of a scheduler that collecting asks."""

    def __init__(self, files: Files | Printing) -> None:
        self._files = files

    def files(self, attempt: object, node: object) -> dict[str, Files | Printing]:
        return {"here": self._files}


class Printing:
    """A node's files of an attempt that ends while its output is copied, which another collector notices first."""

    def __init__(self, blobs: FileBlobStore, place: StreamRef) -> None:
        self._blobs = blobs
        self._place = place
        self._printed = b"begun\n"

    def lengths(self) -> dict[str, int]:
        return {"stdout.0": len(self._printed)}

    def read(self, stream: str, offset: int, limit: int) -> bytes:
        data = self._printed[offset : offset + limit]
        self._printed = b"begun\nended\n"
        task = ("task_started", {"rank": 0, "pid": 10})
        end = ("attempt_ended", {"state": "succeeded", "exit_code": 0, "reason": None})
        self._blobs.append(self._place._replace(stream="events"), 0, events(task, end))
        return data

    def seal(self) -> None:
        return None

    def is_alive(self) -> bool:
        return True


class Code:
    def preserve(self, snapshot: Snapshot) -> None:
        pass


class Clock:
    def now(self) -> str:
        return AT


def events(*kinds: tuple[str, dict[str, Any]]) -> bytes:
    lines = [
        {"seq": n, "at": AT, "boot_s": 1.0, "kind": kind, **rest} for n, (kind, rest) in enumerate(kinds, 1)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@pytest.mark.parametrize(("state", "exit_code"), [("failed", 3), ("succeeded", 0), ("cancelled", 143)])
def test_a_run_whose_events_are_damaged_ends_as_its_seal_says(
    tmp_path: Path, state: str, exit_code: int
) -> None:
    task = ("task_started", {"rank": 0, "pid": 10})
    end = ("attempt_ended", {"state": state, "exit_code": exit_code, "reason": None})
    damaged = events(task, end).replace(b'"seq": 2', b'"seq": \xff')
    log = SqliteRunLog(str(tmp_path))
    run = make_run(1)
    log.add(run, RunStatus(State.QUEUED))
    scheduler = cast(Scheduler, Node(Files(damaged, state, exit_code)))
    collector = Collector(log, FileBlobStore(str(tmp_path)), Code(), lambda run: scheduler, Clock())
    ended = collector.collect(run, RunStatus(State.QUEUED))
    assert (ended.state.value, ended.exit_code, ended.ended_at) == (state, exit_code, AT)
    why = Reason("damaged_events", "part of its record is damaged", "infrastructure", "here")
    assert ended.reason == (None if state == "succeeded" else why)
    assert ended.seal is not None


def test_when_a_run_is_said_to_have_ended_all_of_its_output_is_here(tmp_path: Path) -> None:
    log, blobs = SqliteRunLog(str(tmp_path)), FileBlobStore(str(tmp_path))
    run = make_run(1)
    log.add(run, RunStatus(State.QUEUED))
    place = StreamRef(run.id, 1, "here", "stdout.0")
    scheduler = cast(Scheduler, Node(Printing(blobs, place)))
    collector = Collector(log, blobs, Code(), lambda run: scheduler, Clock())
    assert collector.collect(run, RunStatus(State.QUEUED)).state is State.SUCCEEDED
    assert blobs.read(place, 0, 100) == b"begun\nended\n"


@pytest.mark.parametrize(("told", "sealed"), [(2, 2), (2, 1), (None, 2)], ids=["both", "events", "seal"])
def test_22_a_record_of_a_newer_protocol_is_kept_unread_and_holds_up_no_other(
    tmp_path: Path, told: int | None, sealed: int
) -> None:
    started = ("attempt_started", {"node": "here", "protocol": told}) if told else ("from_the_future", {})
    end = ("attempt_ended", {"state": "succeeded", "exit_code": 0, "reason": None})
    record = events(started, end)
    log, blobs = SqliteRunLog(str(tmp_path)), FileBlobStore(str(tmp_path))
    newer, other = make_run(1), make_run(2)
    for run in (newer, other):
        log.add(run, RunStatus(State.QUEUED))
    ended = events(("task_started", {"rank": 0, "pid": 10}), end)
    schedulers = {
        newer.id: Node(Files(record, "succeeded", 0, protocol=sealed)),
        other.id: Node(Files(ended, "succeeded", 0)),
    }
    collector = Collector(log, blobs, Code(), lambda run: cast(Scheduler, schedulers[run.id]), Clock())
    assert collector.collect_unsettled(events_only=False) == 1  # the newer one is for others to wait for
    assert log.get(other.id)[1].state is State.SUCCEEDED
    with pytest.raises(
        NewerProtocol, match="has protocol 2, and this mllaunch knows protocols up to 1"
    ) as why:
        collector.collect(*log.get(newer.id))
    assert why.value.hint is not None and why.value.exit_code == 125
    _, status = log.get(newer.id)
    assert (status.state, status.seal) == (State.QUEUED, None)
    assert blobs.read(StreamRef(newer.id, 1, "here", "events"), 0, 1 << 20) == record
    assert (
        log.view(AttemptRef(newer.id, 1), "here")[1] == 0
    )  # whoever knows the protocol begins at the beginning
