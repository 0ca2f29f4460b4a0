from __future__ import annotations

from typing import Any

import pytest

from mllaunch.domain.run import RunStatus, Silence
from mllaunch.domain.state import Reason, State
from mllaunch.usecases.prune import Candidate, Item, Kept, Wish, decide, missing
from tests.conformance.runs import make_run

RUN = make_run(1)
WEEK_S = 7 * 86400.0
SEALED = RunStatus(State.SUCCEEDED, seal="sealed-complete")
USUAL = Wish(older_than_s=WEEK_S, named=False, outputs=False, forget=False)


def candidate(**changes: Any) -> Candidate:
    usual = Candidate(
        RUN, SEALED, held=((100, 1000),), missing=None, log_bytes=7, age_s=WEEK_S + 1, spared=False
    )
    return usual._replace(**changes)


def test_an_old_sealed_run_gives_back_its_streams_and_keeps_its_outputs() -> None:
    item = decide(candidate(), USUAL)
    assert isinstance(item, Item)
    assert (item.frees_bytes, item.keeps_bytes, item.outputs, item.forget) == (100, 1000, False, False)


def test_outputs_are_freed_only_when_asked_for() -> None:
    item = decide(candidate(), USUAL._replace(outputs=True))
    assert isinstance(item, Item)
    assert (item.frees_bytes, item.keeps_bytes, item.outputs) == (1100, 0, True)


@pytest.mark.parametrize("changes", [{"age_s": WEEK_S - 1}, {"spared": True}, {"held": ()}])
def test_young_spared_and_empty_runs_are_left_alone(changes: dict[str, Any]) -> None:
    assert decide(candidate(**changes), USUAL) is None


def test_a_run_that_was_named_is_freed_at_any_age() -> None:
    named = Wish(older_than_s=None, named=True, outputs=False, forget=False)
    assert isinstance(decide(candidate(age_s=1.0, spared=True), named), Item)


@pytest.mark.parametrize("state", [State.PACKAGING, State.QUEUED, State.RUNNING, State.SUCCEEDED])
@pytest.mark.parametrize("forget", [True, False])
def test_a_run_from_which_more_may_come_is_never_touched(state: State, forget: bool) -> None:
    wish = Wish(older_than_s=None, named=True, outputs=True, forget=forget)
    kept = decide(candidate(status=RunStatus(state)), wish)
    assert isinstance(kept, Kept)


def test_what_the_run_log_does_not_have_stays_unless_the_run_is_to_be_forgotten() -> None:
    incomplete = candidate(missing="stdout.0 differs")
    assert decide(incomplete, USUAL) == Kept(RUN, "stdout.0 differs")
    item = decide(incomplete, Wish(None, named=True, outputs=False, forget=True))
    assert isinstance(item, Item) and item.frees_bytes == 100 + 1000 + 7


def test_what_a_run_needs_that_has_not_ended_stays_and_says_who_needs_it() -> None:
    needed = candidate(needed_by="calm-fox-2")
    for wish in (USUAL._replace(outputs=True), Wish(None, named=True, outputs=False, forget=True)):
        assert decide(needed, wish) == Kept(RUN, "calm-fox-2, which has not ended, began from its checkpoint")
    assert isinstance(decide(needed, USUAL), Item)  # its streams are nobody's input


def test_a_run_whose_node_is_lost_can_be_forgotten_and_nothing_less() -> None:
    reason = Reason("node_lost", "a has not answered since then", "infrastructure", "a")
    lost = candidate(status=RunStatus(State.FAILED, reason, unreachable=(Silence("a", "then", "then"),)))
    assert decide(lost, USUAL) == Kept(RUN, "a has not answered since then (--forget removes it)")
    assert isinstance(decide(lost, Wish(None, named=True, outputs=False, forget=True)), Item)


def test_where_it_lies_is_said() -> None:
    item = decide(candidate(node="gpu01"), USUAL)
    assert isinstance(item, Item) and item.node == "gpu01"
    assert decide(candidate(node="gpu01", missing="x differs"), USUAL) == Kept(RUN, "gpu01: x differs")


class Blobs:
    """Stored lengths by stream name."""

    def __init__(self, **lengths: int) -> None:
        self.lengths = lengths

    def length(self, ref: Any) -> int:
        return self.lengths.get(ref.stream, 0)


def view(**streams: tuple[int, bool]) -> dict[str, Any]:
    sealed = {name: {"size_bytes": size, "verified": verified} for name, (size, verified) in streams.items()}
    return {"seal": {"status": "sealed-complete", "streams": sealed}}


def test_a_run_is_complete_when_every_stream_of_every_attempt_is_here_and_verified() -> None:
    blobs: Any = Blobs(events=5)
    whole = {(1, "here"): view(events=(5, True)), (2, "here"): view(events=(5, True))}
    status = SEALED._replace(attempt=2)
    assert missing(blobs, RUN, status, whole) is None
    assert missing(blobs, RUN, status, {(2, "here"): whole[2, "here"]}) is not None
    assert missing(blobs, RUN, status, {**whole, (1, "here"): {"seal": None}}) is not None
    assert missing(blobs, RUN, status, {**whole, (1, "here"): view(events=(5, False))}) is not None
    assert missing(blobs, RUN, status, {**whole, (1, "here"): view(events=(6, True))}) is not None
    assert missing(blobs, RUN, status._replace(seal="unsealed"), whole) is not None
