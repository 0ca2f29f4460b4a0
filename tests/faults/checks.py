"""Holds what mllaunch recorded of a trial against what the job itself wrote down."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from mllaunch.domain.run import Run, RunStatus
from mllaunch.ports import StreamRef
from mllaunch.wiring import App
from mllaunch_agent import protocol
from tests.faults.plan import Trial
from tests.faults.tally import Report


class Check:
    """Everything about one trial. truths: by node, in the order of ranks, the folder that job.py wrote into there.

    killed: the victims that were really killed.
    """

    def __init__(
        self, app: App, trial: Trial, truths: Mapping[str, Path], killed: tuple[str, ...], submit_rc: int
    ) -> None:
        self._app = app
        self._trial = trial
        self._truths = truths
        self._ranks = {node: rank for rank, node in enumerate(truths)}
        self._killed = killed
        self._submit_rc = submit_rc
        self._faults: list[str] = []
        self._sums = dict.fromkeys(Report._fields[3:9], 0)

    def report(self, found: tuple[Run, RunStatus] | None) -> Report:
        outcome = self._outcome(found)
        for name in ("twice", "overlap"):
            if self._wrote(f"{name}.*"):
                self._faults.append(f"the job was started {name}")
        if outcome == "ran" and found:
            run, status = found
            if status.seal != "sealed-complete":
                self._sums["unsealed"] += 1
                self._faults.append(f"seal: {status}")
            views = self._app.log.views(run.id)
            for (number, node), view in views.items():
                self._attempt(StreamRef(run.id, number, node, ""), view)
            if set(views) != set(product(range(1, status.attempt + 1), self._truths)):
                self._faults.append(f"attempts: {sorted(views)}, status {status}")
            self._result(status)
        return Report(self._trial.number, self._killed, outcome, **self._sums, faults=tuple(self._faults))

    def _wrote(self, pattern: str) -> bool:
        return any(True for truth in self._truths.values() for _ in truth.glob(pattern))

    def _outcome(self, found: tuple[Run, RunStatus] | None) -> str:
        started = self._wrote("started.*")
        if found is None:
            if started or "submit" not in self._killed:
                self._faults.append(f"no run; started: {started}, submit exited with {self._submit_rc}")
            return "absent"
        reason = found[1].reason
        code = reason.code if reason else None
        if code in ("submit_interrupted", "agent_start"):
            who = "submit" if code == "submit_interrupted" else "supervisor"
            if started or who not in self._killed:
                self._faults.append(f"{code}, although started: {started}, killed: {self._killed}")
            return "interrupted" if code == "submit_interrupted" else "refused"
        if self._submit_rc != 0 and "submit" not in self._killed:
            self._faults.append(f"submit exited with {self._submit_rc}")
        return "ran"

    def _attempt(self, place: StreamRef, view: dict[str, Any]) -> None:
        number, rank = place.attempt, self._ranks[place.node]
        said = f"attempt {number}"
        for name in ("stdout", "stderr"):
            truth = self._truths[place.node] / f"{name}.{number}"
            self._stream(place._replace(stream=f"{name}.{rank}"), truth)
        if not view["seal"]:
            self._faults.append(f"{said}: no seal")
            return
        for stream, sealed in view["seal"]["streams"].items():
            stored = self._read(place._replace(stream=stream))
            if hashlib.sha256(stored).hexdigest() != sealed["sha256"] or len(stored) != sealed["size_bytes"]:
                self._faults.append(f"{said}: {stream} is not what was sealed")
        self._events(said, self._read(place._replace(stream=protocol.EVENTS)))
        self._exit(number, place.node, view)

    def _stream(self, ref: StreamRef, truth: Path) -> None:
        wrote = truth.read_bytes() if truth.exists() else b""
        stored = self._read(ref)
        self._sums["bytes_checked"] += len(wrote)
        if stored != wrote:
            self._sums["lost"] += max(0, len(wrote) - len(stored))
            self._sums["duplicated"] += max(0, len(stored) - len(wrote))
            self._faults.append(
                f"attempt {ref.attempt}: {ref.stream}: wrote {len(wrote)}, stored {len(stored)}"
            )

    def _exit(self, number: int, node: str, view: dict[str, Any]) -> None:
        ends = self._trial.job.ends
        truth = ends[min(number, len(ends)) - 1]
        expected = truth if truth >= 0 else 128 - truth
        if not (self._truths[node] / f"ended.{number}").exists():
            self._sums["wrong_exits"] += 1
            self._faults.append(f"attempt {number} did not run to its end: {view['state']}, {view['reason']}")
        elif view["exit_code"] is None:
            self._sums["unknown_exits"] += 1
            explained = view["reason"] and view["reason"]["code"] == "unknown_exit"
            if not explained or not {"shim", "supervisor"} <= set(self._killed):
                self._faults.append(f"attempt {number}: unknown exit: {view['reason']}")
        elif view["exit_code"] != expected:
            self._sums["wrong_exits"] += 1
            self._faults.append(
                f"attempt {number}: exit {view['exit_code']}, not {expected}; {view['reason']}"
            )

    def _events(self, said: str, data: bytes) -> None:
        events, sound = protocol.parse_events(data)
        kinds = [event["kind"] for event in events]
        if sound != len(data):
            self._faults.append(f"{said}: events are damaged at {sound} of {len(data)}")
        for kind in (
            protocol.ATTEMPT_STARTED,
            protocol.TASK_STARTED,
            protocol.TASK_EXITED,
            protocol.ATTEMPT_ENDED,
        ):
            if kinds.count(kind) != 1:
                self._faults.append(f"{said}: {kinds.count(kind)} events {kind}")

    def _result(self, status: RunStatus) -> None:
        ends = self._trial.job.ends
        if not status.state.is_final:
            self._faults.append(f"not at its end: {status}")
        elif (
            self._trial.max_retries
            and self._wrote(f"ended.{len(ends)}")
            and not (status.exit_code == 0 or (status.reason and status.reason.code == "unknown_exit"))
        ):
            self._faults.append(f"the retries ended with {status}")

    def _read(self, ref: StreamRef) -> bytes:
        return self._app.blobs.read(ref, 0, self._app.blobs.length(ref))
