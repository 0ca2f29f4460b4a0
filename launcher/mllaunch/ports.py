"""What the use cases need from the world, as interfaces. Every implementation passes tests/conformance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from mllaunch.domain.artifact import Artifact
    from mllaunch.domain.codeuse import Edit
    from mllaunch.domain.image import Image
    from mllaunch.domain.job import Resources
    from mllaunch.domain.run import Run, RunRow, RunStatus, Silence
    from mllaunch.domain.snapshot import Snapshot
    from mllaunch_agent.protocol import Seal, StopRequest, TaskSpec
    from mllaunch_containers.spec import ImageSpec


class AttemptRef(NamedTuple):
    """Names one attempt of a run. number counts from 1."""

    run_id: str
    number: int


class StreamRef(NamedTuple):
    """Names one append-only byte stream of an attempt on a node."""

    run_id: str
    attempt: int
    node: str
    stream: str


class NodeFiles(Protocol):
    """What one node holds of one attempt. Bytes come masked: secrets never leave the node."""

    def lengths(self) -> dict[str, int]:
        """How many bytes of each stream can be shipped now. Never shrinks."""

    def read(self, stream: str, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``offset`` on; b"" at the end. The same offset always gives the same bytes."""

    def seal(self) -> Seal | None:
        """The final statement, or None while there is none."""

    def is_alive(self) -> bool:
        """Whether an agent looks after the attempt right now."""


class Way(NamedTuple):
    """How to get where a task runs. state: "running", "ended" (its work folder is still there), "waiting" or "gone".

    argv: what this process is to become.
    """

    state: str
    argv: list[str]


class Scheduler(Protocol):
    """Starts agents on nodes. Decides where, never what."""

    def check(self, resources: Resources, runtime: str = ...) -> None:
        """Choose where it could run. UsageError if no node could ever give these resources. runtime: as configured;
        nodes without a container engine are none for "docker"."""

    def start(self, spec: TaskSpec) -> None:
        """Hand the specification to an agent. Returns once the agent has it; the attempt then needs nobody."""

    def submitting(self, attempt: AttemptRef) -> AbstractContextManager[None]:
        """Show, while it lasts, that somebody is about to start this attempt."""

    def abandon(self, attempt: AttemptRef) -> bool:
        """Make sure that a submission which broke off never starts; False if it goes on or has started."""

    def withdraw(self, attempt: AttemptRef) -> bool:
        """After a start that failed: make sure that nothing starts; False if something has, or that cannot be known."""

    def retry(self, failed: AttemptRef) -> None:
        """Start the attempt after ``failed`` with the same specification. Harmless when repeated."""

    def stop(self, attempt: AttemptRef, request: StopRequest) -> None:
        """Leave a stop request with every node. Harmless when repeated or when the attempt is over."""

    def not_told(self, attempt: AttemptRef) -> list[str]:
        """The nodes that could not be reached with a stop request yet; asking for ``files`` tries again."""

    def files(self, attempt: AttemptRef, node: str | None = None) -> Mapping[str, NodeFiles | None]:
        """By node, what each holds of the attempt; None of one that holds nothing. node: ask this one alone."""

    def nodes_of(self, attempt: AttemptRef) -> list[str]:
        """The names of the attempt's nodes, in the order of ranks. NotFound if it was placed nowhere."""

    def lease_s(self, attempt: AttemptRef) -> float:
        """How long a node of the attempt may be silent before it counts as lost, in seconds."""

    def revive(self, attempt: AttemptRef, node: str) -> None:
        """Make sure that an agent looks after an unsealed attempt whose agent on a node has died."""


class RunQuery(NamedTuple):
    """Which runs to list, newest first. Several conditions must all hold.

    unsettled: only runs from which more may come (RunStatus.seal is None). limit: -1 is none.
    params: (name, value) pairs that must match exactly.
    """

    limit: int = 20
    unsettled: bool = False
    project: str | None = None
    tag: str | None = None
    params: tuple[tuple[str, str], ...] = ()


class RunLog(Protocol):
    """The central store of runs and of what is derived from their events. It invents no times, ids or names."""

    def add(self, run: Run, status: RunStatus) -> None:
        """Store a new run, durably (it survives a power cut once this returns). NameTaken if the name is not free."""

    def get(self, reference: str) -> tuple[Run, RunStatus]:
        """The run that a name, an id, a unique prefix of either, ``@last`` or ``@{N}`` means.

        NotFound when none does; UsageError, naming the candidates, when several do.
        """

    def rows(self, query: RunQuery) -> list[RunRow]:
        """Listing, newest first."""

    def view(self, attempt: AttemptRef, node: str) -> tuple[dict[str, Any], int]:
        """What was folded from a node's events, and how many bytes of the stream that covers; ({}, 0) at first."""

    def views(self, run_id: str) -> dict[tuple[int, str], dict[str, Any]]:
        """All views of a run by (attempt, node), in order."""

    def set_view(
        self, attempt: AttemptRef, node: str, view: dict[str, Any], *, was: int, now: int, status: RunStatus
    ) -> bool:
        """Replace a view and the run's status together. False if the view no longer covers ``was`` bytes: somebody
        else was first."""

    def set_status(self, run_id: str, status: RunStatus) -> None:
        """Replace the run's status, durably."""

    def note_started(self, run_id: str) -> None:
        """Of a run that is in ``packaging``: it is ``queued`` now, durably. Of any other this changes nothing."""

    def set_unreachable(self, run_id: str, node: str, silence: Silence | None) -> None:
        """Note in RunStatus.unreachable that a node does not answer: of what is known and this, the earlier ``since``
        and the later ``asked``; None: it answers. Nothing but this changes it, and this changes nothing else."""

    def annotate(self, run_id: str, *, note: str | None = None, add_tags: tuple[str, ...] = ()) -> None:
        """Replace the note ("" removes it), add tags."""

    def notes(self, run_id: str) -> tuple[str | None, tuple[str, ...]]:
        """The run's note and tags."""

    def add_artifacts(self, artifacts: Iterable[Artifact]) -> None:
        """Make files findable by their content. Idempotent."""

    def artifacts(self, sha256: str) -> list[Artifact]:
        """What runs wrote or read with these bytes; that of the oldest run first. sha256: 64 small hex digits."""

    def artifacts_of(self, run_id: str, kinds: tuple[str, ...]) -> list[Artifact]:
        """What is known by content of one run, of these kinds."""

    def readers(self, run_id: str, written: tuple[str, ...], read: tuple[str, ...]) -> list[Artifact]:
        """What other runs have (as one of the kinds ``read``) with the bytes of what a run has (as one of ``written``).

        Empty files are nobody's.
        """

    def children(self, run_id: str) -> list[tuple[str, str]]:
        """(id, kind) of the runs that were started from this one's checkpoints (Run.parent)."""

    def remove(self, run_id: str) -> None:
        """Forget a run and everything derived from it (its streams are the BlobStore's)."""


class BlobStore(Protocol):
    """The bytes of streams. Appending is idempotent: the same bytes at the same offset change nothing."""

    def length(self, ref: StreamRef) -> int:
        """How many bytes are stored; 0 for an unknown stream."""

    def append(self, ref: StreamRef, offset: int, data: bytes) -> int:
        """Store ``data`` at ``offset``; returns the new length.

        Bytes that overlap what is stored must equal it, else DifferentBytes (nothing is changed). An offset beyond the
        end is a MissingBytes error. Several processes may append to one stream at once.
        """

    def read(self, ref: StreamRef, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``offset`` on; b"" at or beyond the end."""

    def streams(self, run_id: str) -> Iterator[StreamRef]:
        """Every stored stream of a run."""

    def remove(self, run_id: str) -> None:
        """Free all streams of a run."""


class CodeStore(Protocol):
    """The code of all runs, kept by the run log itself: it outlives the users' repositories."""

    def preserve(self, snapshot: Snapshot) -> None:
        """Store the snapshot's commit and tree, if they are not there yet."""

    def record_changes(
        self, snapshot: Snapshot, run_id: str, edits: Sequence[Edit]
    ) -> list[tuple[bytes, str | None]]:
        """Store what was changed in mid-run, in this order. For each its patch for ``git apply``, and the tree that was
        executed from then on; None for one that was not in use. Idempotent."""


class EngineAnswer(Protocol):
    """What a container engine said when it was asked whether it is there."""

    @property
    def socket(self) -> str:
        """Where it listens, or would."""

    @property
    def version(self) -> dict[str, Any] | None:
        """What it says of itself; None if it does not answer."""

    @property
    def problem(self) -> str | None:
        """Why it does not answer, in words."""

    @property
    def is_denied(self) -> bool:
        """Whether it is there, but not for this user."""

    @property
    def remedy(self) -> str | None:
        """What to try, where that is not the usual."""

    @property
    def title(self) -> str:
        """Such as ``Docker 20.10.24``."""


class ImageBuilder(Protocol):
    """Makes container images that hold a run's code. Raises MllaunchError, and leaves nothing half-made."""

    def find(self, spec: ImageSpec) -> Image | None:
        """The finished image, if it is there already."""

    def build(self, spec: ImageSpec, tree: Callable[[], str], say: Callable[[str], None]) -> Image:
        """Make it. tree: gives the folder with exactly the code's files. say: takes lines of progress.

        Law: the same specification gives the same digest for as long as its environment's image is kept.
        """


class Clock(Protocol):
    def now(self) -> str:
        """Wall time, RFC 3339 in UTC with milliseconds, e.g. ``2026-11-21T09:30:00.123Z``."""


class Ids(Protocol):
    def run_id(self) -> str:
        """A fresh UUIDv7 in its 36-character form."""

    def run_name(self) -> str:
        """A readable candidate such as ``brave-otter-17``; may be taken already."""
