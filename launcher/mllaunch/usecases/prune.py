"""Free what runs keep on their nodes, once the run log has all of it; and forget runs entirely, when asked to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from mllaunch.domain.run import Run, RunStatus
from mllaunch.domain.times import seconds_between
from mllaunch.ports import AttemptRef, BlobStore, RunLog, StreamRef


class Keeper(Protocol):
    """What a node keeps of attempts, and how to let go of it."""

    def held_bytes(self, attempt: AttemptRef) -> tuple[int, int] | None:
        """How much disk: (our copies of its streams, what its tasks wrote); None when nothing is left."""

    def release_streams(self, attempt: AttemptRef) -> None:
        """Free our copies of the streams, and the folder if nothing was written. Repeatable. OSError."""

    def discard(self, attempt: AttemptRef) -> None:
        """Free everything. Repeatable. OSError."""


class Wish(NamedTuple):
    """What to free. older_than_s: since a run's end; None is any age. named: the runs were named one by one.

    outputs: also what the tasks wrote. forget: everything that is known of the runs, from the run log too.
    """

    older_than_s: float | None
    named: bool
    outputs: bool
    forget: bool


class Candidate(NamedTuple):
    """A run, and what each of its attempts of which something is left holds: (streams, outputs) in bytes.

    missing: in words, what the run log does not have of it. age_s: since its end. spared: among the newest. node: on
    which it lies; None is this machine. needed_by: the name of a run that has not ended and began from its checkpoint.
    """

    run: Run
    status: RunStatus
    held: tuple[tuple[int, int], ...]
    missing: str | None
    log_bytes: int
    age_s: float
    spared: bool
    node: str | None = None
    needed_by: str | None = None


class Item(NamedTuple):
    """One run to be freed on one machine, and what of it. frees_bytes: of the disks. node: None is this machine."""

    run: Run
    attempts: int
    outputs: bool
    forget: bool
    frees_bytes: int
    keeps_bytes: int  # what its tasks wrote and will stay
    node: str | None = None


class Kept(NamedTuple):
    """A run that stays as it is, and why."""

    run: Run
    why: str


def decide(candidate: Candidate, wish: Wish) -> Item | Kept | None:
    """What to free of one run; None when there is nothing to say about it."""
    run, status = candidate.run, candidate.status
    if status.seal is None and not (status.is_lost and wish.forget):
        return Kept(run, _unfinished(run, status))
    if not wish.named and (
        candidate.spared or (wish.older_than_s is not None and candidate.age_s < wish.older_than_s)
    ):
        return None
    ours, theirs = (sum(held[part] for held in candidate.held) for part in (0, 1))
    if not wish.forget and (not candidate.held or (ours == 0 and not wish.outputs)):
        return None
    why = _why_it_stays(candidate, wish)
    if why is not None:
        return Kept(run, why)
    frees = ours + (theirs if wish.outputs or wish.forget else 0)
    if wish.forget:
        return Item(run, status.attempt, True, True, frees + candidate.log_bytes, 0, candidate.node)
    keeps = 0 if wish.outputs else theirs
    return Item(run, status.attempt, wish.outputs, False, frees, keeps, candidate.node)


def _unfinished(run: Run, status: RunStatus) -> str:
    if status.is_lost and status.reason is not None:
        return f"{status.reason.words(run.spec.resources.world_size)} (--forget removes it)"
    return "it is still being recorded" if status.state.is_final else f"it is {status.state.value}"


def _why_it_stays(candidate: Candidate, wish: Wish) -> str | None:
    """Why what lies there must not go; None if it may."""
    if candidate.needed_by and (wish.outputs or wish.forget):
        return f"{candidate.needed_by}, which has not ended, began from its checkpoint"
    if candidate.missing and not wish.forget:
        return candidate.missing if candidate.node is None else f"{candidate.node}: {candidate.missing}"
    return None


def look(
    log: RunLog, blobs: BlobStore, keeper: Keeper, run: Run, status: RunStatus, *, now: str, spared: bool
) -> Candidate:
    """The facts that ``decide`` goes by, but for the node and who needs it."""
    attempts = [AttemptRef(run.id, number) for number in range(1, status.attempt + 1)]
    log_bytes = sum(blobs.length(ref) for ref in blobs.streams(run.id))
    return Candidate(
        run,
        status,
        tuple(held for attempt in attempts if (held := keeper.held_bytes(attempt)) is not None),
        missing(blobs, run, status, log.views(run.id)),
        log_bytes,
        seconds_between(status.ended_at or run.submitted_at, now),
        spared,
    )


def missing(
    blobs: BlobStore, run: Run, status: RunStatus, views: dict[tuple[int, str], dict[str, Any]]
) -> str | None:
    """What the run log does not have of a settled run, in words; None when it has everything.

    A copy on a node may be the only one until every stream of every attempt is here, as it was sealed.
    """
    if status.seal == "unsealed" or {number for number, _ in views} != set(range(1, status.attempt + 1)):
        return "it was never sealed, so what lies here may be the only copy (--forget removes it)"
    for (number, node), view in views.items():
        if not view.get("seal"):
            return f"attempt {number} was never sealed, so what lies here may be the only copy"
        for name, stream in view["seal"]["streams"].items():
            here = blobs.length(StreamRef(run.id, number, node, name))
            if not stream["verified"] or here != stream["size_bytes"]:
                return (
                    f"{name} of attempt {number} in the run log is not what was sealed (--forget removes it)"
                )
    return None


def carry_out(items: Sequence[Item], keeper: Callable[[str | None], Keeper]) -> tuple[list[Item], list[Kept]]:
    """Free what runs hold on their nodes: (those that are freed, those that are not and why). Can be repeated.

    keeper: of a node; None is this machine.
    """
    done: list[Item] = []
    failed: list[Kept] = []
    for item in items:
        try:
            for number in range(1, item.attempts + 1):
                _free(AttemptRef(item.run.id, number), item, keeper(item.node))
            done.append(item)
        except OSError as error:
            failed.append(Kept(item.run, str(error)))
    return done, failed


def _free(attempt: AttemptRef, item: Item, keeper: Keeper) -> None:
    if item.outputs:
        keeper.discard(attempt)
    else:
        keeper.release_streams(attempt)
