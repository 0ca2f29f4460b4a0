"""Which runs a run goes back to, and which go back to it: declared, or found by content."""

from __future__ import annotations

from typing import Any

from mllaunch.domain.artifact import OPENED, OPENED_WEIGHTS, READ, WRITTEN, Artifact
from mllaunch.domain.lineage import Ties, lineage, producer
from mllaunch.domain.run import Parent, Run

from .records import MADE, RUN

CHECKPOINT, OTHER = "a" * 64, "b" * 64
PARENT = Parent("parent", "old-elk-1", "resume", 2, 9, "outputs/last.pt", CHECKPOINT, "c" * 40)


def given(sha256: str, kind: str = "checkpoint", **made: Any) -> dict[str, Any]:
    """An input that another run has made."""
    return {"digest": f"sha256:{sha256}", "kind": kind, "produced_by": {**MADE, **made}}


def parents(inputs: list[dict[str, Any]], run: Run = RUN) -> list[tuple[str, str, str]]:
    return [(e["run"], e["kind"], e["evidence"]) for e in lineage(run, inputs, Ties())["parents"]]


def children(ties: Ties) -> list[tuple[str, str, str, str | None]]:
    return [(e["run"], e["kind"], e["evidence"], e["checkpoint"]) for e in lineage(RUN, [], ties)["children"]]


def read(sha256: str, kind: str = OPENED, path: str = "start.pt", run: str = "child", **fields: Any) -> Any:
    return Artifact(sha256, run, 1, "gpu02", path, kind, 700, **fields)


def test_an_input_that_another_run_made_has_that_run_as_parent() -> None:
    [edge] = lineage(RUN, [given(CHECKPOINT)], Ties())["parents"]
    assert edge == {
        "run": "parent",
        "name": "old-elk-1",
        "kind": "weights",
        "checkpoint": f"sha256:{CHECKPOINT}",
        "path": "outputs/last.pt",
        "attempt": 1,
        "step": 9,
        "evidence": "content",
    }


def test_what_is_no_checkpoint_is_data_and_what_nobody_made_is_no_edge() -> None:
    nobody = {"digest": f"sha256:{OTHER}", "kind": "data", "produced_by": None}
    assert parents([given(OTHER, "data"), nobody]) == [("parent", "data", "content")]
    assert parents([given(CHECKPOINT, evidence="weights")]) == [("parent", "weights", "weights")]


def test_a_run_is_not_its_own_parent() -> None:
    assert parents([given(CHECKPOINT, run=RUN.id)]) == []


def test_what_it_was_started_from_is_declared_and_named_once_although_it_is_also_an_input() -> None:
    run = RUN._replace(parent=PARENT)
    assert parents([given(CHECKPOINT)], run) == [("parent", "resume", "declared")]
    assert parents([], run) == [("parent", "resume", "declared")]
    assert parents([given(OTHER, "data")], run) == [
        ("parent", "resume", "declared"),
        ("parent", "data", "content"),
    ]


def test_the_same_file_read_under_two_names_is_one_edge() -> None:
    assert len(parents([given(CHECKPOINT), {**given(CHECKPOINT), "path": "copy.pt"}])) == 1


def test_a_child_that_read_a_file_is_known_by_content() -> None:
    ties = Ties(readers=(read(OTHER, READ, "a.csv", step=4),), names={"child": "calm-fox-2"})
    [edge] = lineage(RUN, [], ties)["children"]
    assert edge == {
        "run": "child",
        "name": "calm-fox-2",
        "kind": "data",
        "checkpoint": f"sha256:{OTHER}",
        "path": "a.csv",
        "attempt": 1,
        "step": 4,
        "evidence": "content",
    }


def test_a_file_with_weights_is_one_edge_by_its_bytes_where_these_are_known() -> None:
    both = (read(CHECKPOINT), read(OTHER, OPENED_WEIGHTS))
    for readers in (both, both[::-1]):
        assert children(Ties(readers=readers)) == [("child", "weights", "content", f"sha256:{CHECKPOINT}")]
    alone = Ties(readers=(read(OTHER, OPENED_WEIGHTS),))
    assert children(alone) == [("child", "weights", "weights", f"sha256:{OTHER}")]


def declared(kind: str, *readers: Artifact) -> Ties:
    return Ties(
        readers=readers,
        children=(("child", kind),),
        declared={"child": PARENT._replace(run_id=RUN.id, kind=kind)},
    )


def test_a_child_that_was_resumed_is_told_with_its_checkpoint_before_it_has_read_anything() -> None:
    [edge] = lineage(RUN, [], declared("resume"))["children"]
    assert (edge["kind"], edge["evidence"], edge["step"]) == ("resume", "declared", 9)
    assert (edge["checkpoint"], edge["path"]) == (f"sha256:{CHECKPOINT}", "outputs/last.pt")


def test_a_child_that_was_resumed_stays_one_edge_when_it_has_read_the_checkpoint_and_its_weights() -> None:
    ties = declared("resume", read(CHECKPOINT), read(OTHER, OPENED_WEIGHTS))
    assert children(ties) == [("child", "resume", "declared", f"sha256:{CHECKPOINT}")]


def test_what_a_resumed_child_read_besides_is_an_edge_of_its_own_whatever_its_name_sorts_to() -> None:
    ties = declared("resume", read(OTHER, READ, "a.csv"), read(CHECKPOINT, path="z.pt"))
    assert children(ties) == [
        ("child", "resume", "declared", f"sha256:{CHECKPOINT}"),
        ("child", "data", "content", f"sha256:{OTHER}"),
    ]


def test_a_child_of_which_only_the_kind_is_left_is_still_told() -> None:
    assert children(Ties(children=(("child", "weights"),))) == [("child", "weights", "declared", None)]


def test_the_producer_is_the_first_run_that_made_the_bytes_and_never_the_reader_if_another_did() -> None:
    def made(run: str, attempt: int = 1) -> Artifact:
        return Artifact(CHECKPOINT, run, attempt, "n", "m.pt", WRITTEN, 7)

    assert producer("c", [made("b"), made("a", 2), made("a")]) == made("a")
    assert producer("a", [made("a"), made("b")]) == made("b")
    assert producer("a", [made("a")]) == made("a")
    assert producer("a", []) is None
