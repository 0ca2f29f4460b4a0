"""Bring what nodes have produced into the run log, and do what follows from it.

Idempotent and safe beside itself: streams are appended by offset, views replaced only if nobody was faster.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from mllaunch.domain import view as views
from mllaunch.domain.job import LOCAL
from mllaunch.domain.run import FOLDER_LOST, Run, RunStatus, Silence
from mllaunch.domain.state import Reason, State
from mllaunch.domain.status import run_status, wants_retry
from mllaunch.domain.times import seconds_between
from mllaunch.errors import InternalError, MllaunchError, Unreachable
from mllaunch.ports import (
    AttemptRef,
    BlobStore,
    Clock,
    CodeStore,
    NodeFiles,
    RunLog,
    RunQuery,
    Scheduler,
    StreamRef,
)
from mllaunch_agent import PROTOCOL_VERSION, protocol

_CHUNK_BYTES = 4 << 20
_READ_BYTES = 1 << 20
_SLEPT_S = 300.0  # much longer than any pause between two looks of a process that waits for a run
_NOTED_EACH_S = 60.0
_TO_COME_S = 120.0  # by when every node of an attempt has begun; the agents themselves wait half as long


class NewerProtocol(InternalError):
    """A node's record is of a newer mllaunch. Its bytes are stored as they came; nothing was read into them."""

    def __init__(self, run: Run, node: str, theirs: int) -> None:
        super().__init__(
            "newer_protocol",
            f"the record of {run.name} on {node} has protocol {theirs}, and this mllaunch knows protocols up to "
            f"{PROTOCOL_VERSION}; it is kept as it is",
            hint="upgrade mllaunch (pip install --upgrade mllaunch)",
        )


class Collector(NamedTuple):
    """The parts that collecting needs. scheduler: the one that started a run."""

    log: RunLog
    blobs: BlobStore
    code: CodeStore
    scheduler: Callable[[Run], Scheduler]
    clock: Clock

    def collect(
        self, run: Run, status: RunStatus, *, events_only: bool = False, node: str | None = None
    ) -> RunStatus:
        """Everything that the nodes hold of a run beyond what is stored; the run's new status.

        events_only leaves the output streams for later, which is enough for a listing. node: ask this one alone.
        """
        if status.seal is not None:
            return status
        if status.state is State.PACKAGING and self.scheduler(run).abandon(AttemptRef(run.id, 1)):
            why = "the submitting command was killed before the start, or its node's folder was removed since"
            return self._give_up(run, status, "submit_interrupted", why)
        while True:
            newest = AttemptRef(run.id, status.attempt)
            had_ended = status.state.is_final
            found = self._collect_attempts(run, newest, events_only, node)
            if not found and status.state is not State.PACKAGING:
                return self._give_up(run, status, FOLDER_LOST, "what the node kept of this run is gone")
            status = self._whole_status(run)
            if status.state.is_final and not (had_ended or events_only or status.seal):
                continue  # another collector may have brought the end after we saw how much output there was
            if not self._retry_is_due(run, status, newest):
                return status
            try:
                self.scheduler(run).retry(newest)
            except MllaunchError as error:
                return self._note_that_it_cannot_follow(run, status, newest, error)
            status = status._replace(attempt=newest.number + 1)

    def _note_that_it_cannot_follow(
        self, run: Run, status: RunStatus, failed: AttemptRef, error: MllaunchError
    ) -> RunStatus:
        """The next attempt stays due, and is tried at the next look."""
        if isinstance(error, Unreachable):
            return status  # which nodes are silent is said anyway
        waits = status._replace(waiting=f"attempt {failed.number + 1} follows once it can: {error.message}")
        if waits != status:
            self.log.set_status(run.id, waits)
        return waits

    def _whole_status(self, run: Run) -> RunStatus:
        """The status after this look. Two collectors that fold two nodes at once each see the other's as it was."""
        _, status = self.log.get(run.id)
        seen = self.log.views(run.id)
        if status.seal is None and (seen or self._lost_nodes(run, status)):
            whole = self._status(run, seen)
            if whole.seal is not None or (whole.state, whole.reason) != (status.state, status.reason):
                self.log.set_status(run.id, whole)
                return whole._replace(unreachable=status.unreachable)
        return status

    def _status(self, run: Run, seen: dict[tuple[int, str], views.View]) -> RunStatus:
        _, status = self.log.get(run.id)
        return run_status(run.spec.max_retries, seen, run.spec.resources.nodes, self._lost_nodes(run, status))

    def _lost_nodes(self, run: Run, status: RunStatus) -> dict[str, str]:
        """The nodes that have been silent for longer than their lease, with since when."""
        # A submission that broke off is given up once its nodes can be asked, and not for their silence.
        if not status.unreachable or status.state is State.PACKAGING:
            return {}
        lease_s = self.scheduler(run).lease_s(AttemptRef(run.id, status.attempt))
        now = self.clock.now()
        return {s.node: s.since for s in status.unreachable if seconds_between(s.since, now) > lease_s}

    def _collect_attempts(
        self, run: Run, newest: AttemptRef, events_only: bool, only: str | None
    ) -> Mapping[str, NodeFiles | None]:
        """Collect every attempt that is not sealed in the run log; what the nodes hold of the newest.

        The earlier ones, too: a retry starts as soon as an attempt has failed, before all of its output is here.
        """
        _, before = self.log.get(run.id)
        known = self.log.views(run.id)
        has_begun = before.state is State.QUEUED and not known  # its nodes have said so
        sealed = {key for key, view in known.items() if view["seal"]}
        nodes: Mapping[str, NodeFiles | None] = {}
        answers: dict[str, bool] = {}
        newer: NewerProtocol | None = None
        for number in range(1, newest.number + 1):
            attempt = newest._replace(number=number)
            nodes = self.scheduler(run).files(attempt, only)
            for node, files in nodes.items():
                answers.setdefault(node, True)
                if (number, node) in sealed:
                    continue
                try:
                    if files is None:
                        self._note_gone(run, attempt, node, has_begun)
                    else:
                        self._collect_node(run, attempt, node, files, events_only)
                except Unreachable:
                    answers[node] = False
                except NewerProtocol as error:
                    newer = error
        self._note_unreachable(run, answers)
        if newer is not None:
            raise newer
        return nodes

    def _note_unreachable(self, run: Run, answers: dict[str, bool]) -> None:
        """Since when nodes do not answer: the first time that this was seen, or seen again after nobody had asked."""
        _, status = self.log.get(run.id)
        silent = {silence.node: silence for silence in status.unreachable}
        now = self.clock.now()
        for node, does in answers.items():
            known = silent.get(node)
            unasked_s = seconds_between(known.asked, now) if known else 0.0
            if known and (does or unasked_s > _SLEPT_S):
                self.log.set_unreachable(run.id, node, None)
                known = None
            if not does and (known is None or unasked_s > _NOTED_EACH_S):
                self.log.set_unreachable(run.id, node, Silence(node, now, now))

    def _note_gone(self, run: Run, attempt: AttemptRef, node: str, has_begun: bool) -> None:
        """A node says that it has nothing of an attempt: nothing more will come, if it is not just about to begin.

        has_begun: this is known to be so, although nothing of it was heard.
        """
        view, covered = self.log.view(attempt, node)  # after the look: what is here may be freed there
        was_here = bool(view) or has_begun
        if view.get("seal") or not (was_here or self._should_have_come(run)):
            return
        now = self.clock.now()
        view = view or views.empty()
        if was_here:
            words = f"what {node} kept of this run is gone"
            reason = Reason(FOLDER_LOST, words, "infrastructure", node)
        else:
            reason = Reason("incomplete", f"{node} never began", "infrastructure", node, retryable=True)
        if not State(view["state"]).is_final:
            view = {**view, "state": State.FAILED.value, "reason": reason._asdict(), "ended_at": now}
        view = {**view, "seal": {"status": "unsealed", "at": now, "streams": {}}}
        status = self._status(run, {**self.log.views(run.id), (attempt.number, node): view})
        self.log.set_view(attempt, node, view, was=covered, now=covered, status=status)

    def _should_have_come(self, run: Run) -> bool:
        """Whether all that was ever heard of a run ended so long ago that no node can be about to begin."""
        seen = self.log.views(run.id).values()
        ends = [view["ended_at"] for view in seen]
        if not ends or None in ends:
            return False
        return seconds_between(max(ends), self.clock.now()) > _TO_COME_S

    def _collect_node(
        self, run: Run, attempt: AttemptRef, node: str, files: NodeFiles, events_only: bool
    ) -> None:
        view, covered = self.log.view(attempt, node)
        if view.get("seal"):
            return
        seal = files.seal()  # before the lengths, which are then final
        alive = seal is not None or files.is_alive()
        for stream, length in files.lengths().items():
            if stream == protocol.EVENTS or not events_only:
                self._copy(StreamRef(attempt.run_id, attempt.number, node, stream), files, length)
        while (
            self._fold(run, attempt, node, view or views.empty(), covered, None if events_only else seal)
            is None
        ):
            view, covered = self.log.view(attempt, node)
        if not alive and files.seal() is None:
            self.scheduler(run).revive(attempt, node)

    def _copy(self, ref: StreamRef, files: NodeFiles, length: int) -> None:
        stored = self.blobs.length(ref)
        while stored < length:
            data = files.read(ref.stream, stored, min(_CHUNK_BYTES, length - stored))
            if not data:
                return
            stored = self.blobs.append(ref, stored, data)

    def _fold(
        self,
        run: Run,
        attempt: AttemptRef,
        node: str,
        view: views.View,
        covered: int,
        seal: protocol.Seal | None,
    ) -> views.View | None:
        """Fold the events that the view does not cover; None if somebody else did so meanwhile."""
        ref = StreamRef(attempt.run_id, attempt.number, node, protocol.EVENTS)
        data = self.blobs.read(ref, covered, max(0, self.blobs.length(ref) - covered))
        events, sound = protocol.parse_events(data)
        theirs = _protocol(events, seal)
        if theirs > PROTOCOL_VERSION:
            raise NewerProtocol(run, node, theirs)
        for event in events:
            view = views.fold(view, event)
        if sound < len(data) and seal:
            view = views.damaged(view, protocol.EVENTS, covered + sound, len(data) - sound)
        if seal:
            self.code.preserve(run.snapshot)  # a sealed run needs the user's repository no more
            self._keep_changes(run, {**self.log.views(run.id), (attempt.number, node): view})
            self._index_files(
                attempt, node, view
            )  # before the view says "sealed", after which nobody looks again
            view = {**_as_sealed(view, node, seal), "seal": self._verified(attempt, node, seal)}
        if not (events or seal):
            return view
        everything = {**self.log.views(run.id), (attempt.number, node): view}
        status = self._status(run, everything)
        if self.log.set_view(attempt, node, view, was=covered, now=covered + sound, status=status):
            return view
        return None

    def _verified(self, attempt: AttemptRef, node: str, seal: protocol.Seal) -> dict[str, object]:
        """The seal as the run log states it: a stream whose bytes are not those that were sealed is a gap."""
        streams = {}
        whole = True
        for name, sealed in seal["streams"].items():
            ref = StreamRef(attempt.run_id, attempt.number, node, name)
            stored = self.blobs.length(ref)
            verified = stored == sealed["size_bytes"] and self._sha256(ref) == sealed["sha256"]
            # A range that the node gave up may have been collected before; then the digest proves that it is here.
            gaps = [] if verified else [self._lost(ref, gap) for gap in sealed["gaps"]]
            if not verified and not gaps:
                gaps = [
                    {
                        "offset": 0,
                        "size_bytes": sealed["size_bytes"],
                        "reason": "differs from what was sealed",
                    }
                ]
            streams[name] = {**sealed, "gaps": gaps, "verified": verified}
            whole = whole and verified
        status = "sealed-complete" if whole else "sealed-with-gaps"
        return {"status": status, "at": seal["at"], "streams": streams}

    def _index_files(self, attempt: AttemptRef, node: str, view: views.View) -> None:
        """Make what the attempt wrote and read findable by content."""
        from mllaunch.domain.artifact import identified
        from mllaunch.usecases.provenance import json_lines

        written = json_lines(self.blobs, StreamRef(attempt.run_id, attempt.number, node, protocol.FILES))
        traced = json_lines(self.blobs, StreamRef(attempt.run_id, attempt.number, node, protocol.TRACE))
        self.log.add_artifacts(identified(*attempt, node, written, view["data"], traced))

    def _keep_changes(self, run: Run, all_views: dict[tuple[int, str], views.View]) -> None:
        """Keep what was changed in the code in mid-run beside the run's code."""
        from mllaunch.usecases import changes
        from mllaunch.usecases.provenance import traces

        changes.keep(self.code, self.blobs, run, all_views, traces(self.blobs, run.id, list(all_views)))

    def _lost(self, ref: StreamRef, gap: dict[str, Any]) -> dict[str, Any]:
        """The part of a gap that was given up before it could be collected: it reads as zeros, to the gap's end."""
        end = gap["offset"] + gap["size_bytes"]
        offset = end
        while offset > gap["offset"]:
            start = max(gap["offset"], offset - _READ_BYTES)
            kept = len(self.blobs.read(ref, start, offset - start).rstrip(b"\0"))
            offset = start + kept
            if kept:
                break
        return {**gap, "offset": offset, "size_bytes": end - offset}

    def _sha256(self, ref: StreamRef) -> str:
        from hashlib import sha256

        digest = sha256()
        offset = 0
        while data := self.blobs.read(ref, offset, _READ_BYTES):
            digest.update(data)
            offset += len(data)
        return digest.hexdigest()

    def _retry_is_due(self, run: Run, status: RunStatus, attempt: AttemptRef) -> bool:
        if status.state is not State.QUEUED or status.attempt != attempt.number or status.reason is None:
            return False
        return wants_retry(run.spec.max_retries, attempt.number, State.FAILED, status.reason)

    def _give_up(self, run: Run, status: RunStatus, code: str, message: str) -> RunStatus:
        """Nothing more will come: say what is known, and that the record was never sealed."""
        _, known = self.log.get(run.id)
        if known.seal is not None:
            return known  # somebody else had all of it, and let the node free it
        if status.state.is_final:
            ended = status._replace(seal="unsealed")
        else:
            reason = Reason(
                code, message, "launcher" if status.state is State.PACKAGING else "infrastructure"
            )
            ended = status._replace(
                state=State.FAILED, reason=reason, ended_at=self.clock.now(), seal="unsealed"
            )
        self.log.set_status(run.id, ended)
        return ended

    def collect_unsettled(self, *, events_only: bool, only_here: bool = False) -> int:
        """Collect every run from which more may come; how many there are. One run's trouble does not hold up others.

        only_here: not those on other machines, which may keep whoever asks waiting. They are counted all the same.
        """
        runs = self.unsettled()
        left = 0
        for run in runs:
            is_asked = run.spec.backend == LOCAL or not only_here
            left += not is_asked or self.attempt_to_collect(run, events_only=events_only)
        return left

    def unsettled(self) -> list[Run]:
        """Every run from which more may come."""
        found = []
        for row in self.log.rows(RunQuery(limit=10_000, unsettled=True)):
            try:
                found.append(self.log.get(row.id)[0])
            except MllaunchError:
                continue  # it was forgotten in this moment, or is damaged
        return found

    def attempt_to_collect(self, run: Run, *, events_only: bool, node: str | None = None) -> bool:
        """As ``collect``; what cannot be done is said when this run itself is asked for. Whether to try again."""
        try:
            _, status = self.log.get(run.id)
            self.collect(run, status, events_only=events_only, node=node)
        except NewerProtocol:
            return False  # no more can be done about it here
        except MllaunchError:
            pass
        return True


def _protocol(events: list[protocol.Event], seal: protocol.Seal | None) -> int:
    """The newest protocol that a record says it has."""
    said = [event.get("protocol") for event in events if event["kind"] == protocol.ATTEMPT_STARTED]
    if seal:
        said.append(seal["protocol"])
    return max((number for number in said if isinstance(number, int)), default=0)


def _as_sealed(view: views.View, node: str, seal: protocol.Seal) -> views.View:
    """The view with the end that the seal states, where damage to the events hides it."""
    if State(view["state"]).is_final:
        return view
    reason = Reason("damaged_events", "part of its record is damaged", "infrastructure", node)
    return {
        **view,
        "state": seal["state"],
        "exit_code": seal["exit_code"],
        "ended_at": seal["at"],
        "reason": None if seal["state"] == State.SUCCEEDED.value else reason._asdict(),
        "waiting": None,
    }
