"""Where bytes come from, back to the first run, whatever became of the runs between."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mllaunch.domain.artifact import Artifact
from mllaunch.domain.dot import origin_graph
from mllaunch.domain.run import Parent
from mllaunch.errors import NotFound
from mllaunch.runlog.sqlite import SqliteRunLog
from mllaunch.usecases.origin import ancestors, origin, ties
from tests.conformance.runs import QUEUED, RUNNING, make_run


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteRunLog]:
    made = SqliteRunLog(str(tmp_path / "home"))
    yield made
    made.close()


def sha(letter: str) -> str:
    return letter.encode().hex() * 32


def run(log: SqliteRunLog, number: int, *files: tuple[str, str, str], parent: Parent | None = None) -> str:
    """A run that wrote and read files: (kind, path, the letter that stands for its bytes). Its id."""
    made = make_run(number)._replace(parent=parent)
    log.add(made, QUEUED)
    steps = {"checkpoint": number * 10, "weights": number * 10}
    log.add_artifacts(
        Artifact(sha(letter), made.id, 1, "gpu01", path, kind, 7, steps.get(kind))
        for kind, path, letter in files
    )
    return made.id


def saved(path: str, letter: str) -> list[tuple[str, str, str]]:
    """What a checkpoint leaves in the run log: it is one, and it is a file."""
    return [("checkpoint", path, letter), ("file", path, letter)]


def shape(edges: list[dict[str, Any]]) -> list[Any]:
    """The tree as [(kind, path, maker, [...])]."""
    return [
        (e["kind"], e["path"], e["produced_by"] and e["produced_by"]["name"], shape(e["from"])) for e in edges
    ]


def test_three_generations_are_followed_back_to_the_first(log: SqliteRunLog) -> None:
    run(log, 1, ("data", "data/train", "d"), *saved("out/a.pt", "a"))
    run(log, 2, ("input", "/x/start.pt", "a"), *saved("out/b.pt", "b"))
    run(log, 3, ("input", "b-copy.pt", "b"), *saved("out/c.pt", "c"))
    found = origin(log, sha("c"))
    [place] = found["written_by"]
    assert (place["run"]["name"], place["step"], place["path"]) == ("brave-otter-3", 30, "out/c.pt")
    assert shape(found["ancestors"]) == [
        (
            "weights",
            "b-copy.pt",
            "brave-otter-2",
            [("weights", "/x/start.pt", "brave-otter-1", [("data", "data/train", None, [])])],
        )
    ]
    made = found["ancestors"][0]["produced_by"]
    assert (made["step"], made["path"], made["evidence"]) == (20, "out/b.pt", "content")
    assert made["code"]["commit"] == "a" * 40
    graph = origin_graph(found)
    assert all(f"brave-otter-{number}" in graph for number in (1, 2, 3))


def test_checkpoints_come_before_data_and_what_is_known_before_what_is_not(log: SqliteRunLog) -> None:
    run(log, 1, *saved("a.pt", "a"), ("file", "made.csv", "m"))
    run(
        log,
        2,
        ("data", "a-data", "d"),
        ("input", "b-made.csv", "m"),
        ("input", "z.pt", "a"),
        ("input", "y.pt", "y"),
        ("input-weights", "y.pt", "w"),
        *saved("c.pt", "c"),
    )
    assert [(kind, path, maker) for kind, path, maker, _ in shape(origin(log, sha("c"))["ancestors"])] == [
        ("weights", "z.pt", "brave-otter-1"),
        ("weights", "y.pt", None),
        ("data", "b-made.csv", "brave-otter-1"),
        ("data", "a-data", None),
    ]


def test_a_run_that_reads_what_its_descendant_wrote_makes_no_endless_tree(log: SqliteRunLog) -> None:
    run(log, 1, *saved("a.pt", "a"), ("input", "b.pt", "b"))
    run(log, 2, *saved("b.pt", "b"), ("input", "a.pt", "a"))
    assert shape(origin(log, sha("a"))["ancestors"]) == [
        ("weights", "b.pt", "brave-otter-2", [("weights", "a.pt", "brave-otter-1", [])])
    ]


def test_a_run_that_two_others_go_back_to_is_told_in_full_once(log: SqliteRunLog) -> None:
    run(log, 1, ("data", "d", "d"), *saved("a.pt", "a"), *saved("b.pt", "b"))
    run(log, 2, ("input", "a.pt", "a"), ("input", "b.pt", "b"), *saved("c.pt", "c"))
    assert shape(origin(log, sha("c"))["ancestors"]) == [
        ("weights", "a.pt", "brave-otter-1", [("data", "d", None, [])]),
        ("weights", "b.pt", "brave-otter-1", []),
    ]


def test_a_very_long_chain_is_cut_and_not_refused(log: SqliteRunLog) -> None:
    for number in range(1, 130):
        run(log, number, ("input", "in.pt", chr(number)), ("checkpoint", "out.pt", chr(number + 1)))
    [edge] = ancestors(log, make_run(129).id)
    depth = 0
    while edge["from"]:
        [edge] = edge["from"]
        depth += 1
    assert 50 < depth <= 100


def test_of_what_a_forgotten_run_made_only_what_others_say_of_it_is_known(log: SqliteRunLog) -> None:
    first = run(log, 1, *saved("a.pt", "a"))
    run(log, 2, ("input", "start.pt", "a"), *saved("b.pt", "b"))
    edge = Parent(first, "brave-otter-1", "resume", 1, 10, "a.pt", sha("a"), "e" * 40)
    run(log, 3, ("input", "start.pt", "a"), *saved("c.pt", "c"), parent=edge)
    log.remove(first)
    [by_content] = origin(log, sha("b"))["ancestors"]
    assert (by_content["path"], by_content["produced_by"]) == ("start.pt", None)
    [declared] = origin(log, sha("c"))["ancestors"]
    made = declared["produced_by"]
    assert (made["run"], made["name"], made["step"], made["code"]) == (first, "brave-otter-1", 10, None)
    assert origin(log, sha("a"))["written_by"] == []
    assert [place["run"]["name"] for place in origin(log, sha("a"))["read_by"]] == [
        "brave-otter-2",
        "brave-otter-3",
    ]


def test_a_declared_parent_is_told_once_and_as_declared_although_another_made_the_same_bytes(
    log: SqliteRunLog,
) -> None:
    run(log, 1, *saved("same.pt", "a"))
    second = run(log, 2, *saved("a.pt", "a"))
    edge = Parent(second, "brave-otter-2", "resume", 1, 20, "a.pt", sha("a"), "e" * 40)
    run(log, 3, ("input", "/home/checkpoint/a.pt", "a"), *saved("c.pt", "c"), parent=edge)
    [told] = origin(log, sha("c"))["ancestors"]
    assert (told["kind"], told["path"], told["size_bytes"]) == ("resume", "a.pt", 7)
    assert (told["produced_by"]["name"], told["produced_by"]["evidence"]) == ("brave-otter-2", "declared")


def test_weights_that_were_saved_anew_in_other_bytes_are_recognised(log: SqliteRunLog) -> None:
    first = run(log, 1, *saved("a.pt", "a"), ("weights", "a.pt", "w"))
    run(log, 2, ("input", "re-saved.pt", "r"), ("input-weights", "re-saved.pt", "w"), *saved("b.pt", "b"))
    [edge] = origin(log, sha("b"))["ancestors"]
    assert (edge["produced_by"]["run"], edge["produced_by"]["evidence"]) == (first, "weights")
    assert (edge["digest"], edge["kind"], edge["produced_by"]["step"]) == (
        f"sha256:{sha('r')}",
        "weights",
        10,
    )
    found = origin(log, sha("q"), size_bytes=9, weights=sha("w"))
    assert (found["written_by"], found["size_bytes"]) == ([], 9)
    assert [place["run"]["id"] for place in found["same_weights"]] == [first]
    assert [place["path"] for place in found["read_by"]] == ["re-saved.pt"]
    exact = origin(log, sha("a"), weights=sha("w"))
    assert len(exact["written_by"]) == 1
    assert exact["same_weights"] == []


def test_what_a_run_wrote_itself_is_not_where_it_comes_from_but_a_copy_of_an_earlier_runs_is(
    log: SqliteRunLog,
) -> None:
    run(log, 1, *saved("a.pt", "a"))
    run(
        log,
        2,
        ("input", "own.pt", "o"),
        *saved("own.pt", "o"),
        ("input", "in.pt", "a"),
        *saved("best.pt", "a"),
    )
    run(log, 3, *saved("later-copy.pt", "o"))
    assert shape(ancestors(log, make_run(2).id)) == [("weights", "in.pt", "brave-otter-1", [])]


def test_empty_files_tie_nothing_together(log: SqliteRunLog) -> None:
    for number, kind in ((1, "file"), (2, "input")):
        made = run(log, number)
        log.add_artifacts([Artifact(sha("0"), made, 1, "n", "empty", kind, 0)])
    assert ancestors(log, make_run(2).id) == []


def test_a_checkpoint_is_told_with_its_step_and_each_place_once(log: SqliteRunLog) -> None:
    run(log, 1, *saved("a.pt", "a"), *saved("copy.pt", "a"))
    assert [(place["path"], place["step"]) for place in origin(log, sha("a"))["written_by"]] == [
        ("a.pt", 10),
        ("copy.pt", 10),
    ]


def test_the_oldest_run_that_wrote_it_is_named_first_and_its_mixed_code_is_told(log: SqliteRunLog) -> None:
    run(log, 2, *saved("late.pt", "a"))
    first = run(log, 1, *saved("early.pt", "a"))
    log.set_status(first, RUNNING._replace(mixed=True))
    found = origin(log, sha("a"))["written_by"]
    assert [(p["path"], p["run"]["mixed_code"]) for p in found] == [("early.pt", True), ("late.pt", False)]


def test_bytes_that_nobody_knows_are_not_found(log: SqliteRunLog) -> None:
    run(log, 1, *saved("a.pt", "a"))
    with pytest.raises(NotFound) as caught:
        origin(log, sha("x"), size_bytes=12, weights=sha("y"))
    assert caught.value.code == "unknown_file"
    assert caught.value.evidence == (
        f"looked for sha256:{sha('x')}, 12 bytes",
        f"looked for the weights in it, sha256:{sha('y')}",
    )
    assert caught.value.hint


def test_what_others_have_to_do_with_a_run_is_told_with_steps_and_names(log: SqliteRunLog) -> None:
    first = run(log, 1, *saved("a.pt", "a"), ("weights", "a.pt", "w"))
    edge = Parent(first, "brave-otter-1", "resume", 1, 10, "a.pt", sha("a"), "e" * 40)
    second = run(log, 2, parent=edge)
    third = run(log, 3, ("input", "in.pt", "r"), ("input-weights", "in.pt", "w"))
    found = ties(log, make_run(1), {}, [])
    assert found.children == ((second, "resume"),)
    assert found.declared == {second: edge}
    assert [(a.run_id, a.step) for a in found.readers] == [(third, 10)]
    assert found.names == {second: "brave-otter-2", third: "brave-otter-3"}
    line = {"record": "input", "sha256": sha("r"), "weights": sha("w"), "size_bytes": 7}
    producers = ties(log, make_run(3), {}, [(1, "gpu01", line)]).producers
    assert producers[f"sha256:{sha('r')}"]["evidence"] == "weights"
