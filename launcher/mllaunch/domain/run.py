"""A run: one specification submitted once, and what is known of it so far."""

from __future__ import annotations

from typing import NamedTuple

from mllaunch.domain.image import Image, Lock
from mllaunch.domain.job import JobSpec
from mllaunch.domain.snapshot import Snapshot
from mllaunch.domain.state import Reason, State

NODE_LOST = "node_lost"  # reasons: a node has been silent for too long
FOLDER_LOST = "folder_lost"  # what a node kept is gone


class Parent(NamedTuple):
    """The run that this one was started from. kind: "resume" (goes on from a checkpoint) or "weights" (begins anew
    from its weights). path, attempt, step, sha256: of the checkpoint; of a folder the digest of its files.
    commit: the parent's. differences: of parameters, (name, the parent's value or None, the new one or None). files:
    of the code that are not the parent's. args: those arguments that name the checkpoint.
    """

    run_id: str
    run_name: str
    kind: str
    attempt: int
    step: int | None
    path: str
    sha256: str
    commit: str
    differences: tuple[tuple[str, str | None, str | None], ...] = ()
    files: tuple[str, ...] = ()
    args: tuple[str, ...] = ()


class Run(NamedTuple):
    """One specification submitted once. Nothing in it ever changes.

    id: UUIDv7, so ids sort by time. name: readable, unique in its run log. submitted_at: RFC 3339, UTC.
    params: what could be read from the arguments (``--lr 3e-4`` -> ("lr", "3e-4")), for filtering and comparing.
    redacted: names of environment variables whose values were masked. image: None where tasks are processes.
    parent: where it was started from another run's checkpoint. lock: what decided the packages of its environment,
    where that was made on nodes; an image has its own.
    """

    id: str
    name: str
    spec: JobSpec
    snapshot: Snapshot
    params: tuple[tuple[str, str], ...]
    submitted_at: str
    submitted_by_user: str
    submitted_by_host: str
    redacted: tuple[str, ...] = ()
    image: Image | None = None
    parent: Parent | None = None
    lock: Lock | None = None


class Silence(NamedTuple):
    """A node that does not answer. since: when that was first seen, without a break in which nobody asked. asked: when
    somebody last did, or somewhat earlier. Times are RFC 3339, UTC.
    """

    node: str
    since: str
    asked: str


class RunStatus(NamedTuple):
    """Where a run stands; derived from its attempts' events, replaced as they come in.

    attempt: number of the newest attempt, from 1. waiting: in words, why it waits and for whom, or None.
    Times are RFC 3339, UTC. exit_code: None while unknown. seal: None while more may come from the nodes; then
    "sealed-complete", "sealed-with-gaps" or, when the nodes can say nothing more, "unsealed". mixed: processes of it
    executed different versions of one file. unreachable: the nodes that do not answer; what runs
    there goes on, and even a run that counts as lost with its node is what that node says once it answers.
    """

    state: State
    reason: Reason | None = None
    exit_code: int | None = None
    attempt: int = 1
    started_at: str | None = None
    ended_at: str | None = None
    waiting: str | None = None
    seal: str | None = None
    mixed: bool = False
    unreachable: tuple[Silence, ...] = ()

    @property
    def shown_unreachable(self) -> list[dict[str, str]]:
        """The nodes that do not answer, with since when, as documents have them."""
        return [{"node": silence.node, "since": silence.since} for silence in self.unreachable]

    @property
    def shown_seal(self) -> str | None:
        """The seal as people are told of it: nobody knows whether more comes from a node that is lost."""
        return "unsealed" if self.seal is None and self.is_lost else self.seal

    @property
    def is_lost(self) -> bool:
        """Whether it counts as failed because a node is silent, which may still answer."""
        lost = self.reason is not None and self.reason.code == NODE_LOST
        return lost and self.state.is_final and bool(self.unreachable)


class RunRow(NamedTuple):
    """One line of a listing of runs. why: it is in its state, in words."""

    id: str
    name: str
    project: str
    command: str
    status: RunStatus
    submitted_at: str
    tags: tuple[str, ...]
    note: str | None
    why: str | None
