"""What went into a run and came out of it: one entry for each content of a path, by whoever touched it."""

from __future__ import annotations

from typing import Any

from mllaunch.domain.codeuse import YES, Change
from mllaunch.domain.filesused import inputs, outputs

from . import records

A, B, C = "a" * 64, "b" * 64, "c" * 64
Line = tuple[int, str, dict[str, Any]]


def line(
    record: str, path: str, sha256: str | None = A, number: int = 1, node: str = "gpu01", **fields: Any
) -> Line:
    """A line of the trace."""
    known = {"record": record, "path": path, "sha256": sha256, "at": "2026-11-21T09:05:02Z", "size_bytes": 7}
    return number, node, {"kind": "file", **known, **fields}


def views(*nodes: str, **fields: Any) -> dict[tuple[int, str], dict[str, Any]]:
    return {(1, node): {**records.view(node), **fields} for node in nodes or ("gpu01",)}


USER = {"rank": 0, "pid": 10}


# --- inputs -----------------------------------------------------------------------------------------------------------


def test_each_content_that_a_path_had_is_an_entry() -> None:
    found = inputs(views(), [line("input", "x"), line("input", "x", B), line("input", "x")], {})
    assert [(entry["path"], entry["digest"]) for entry in found] == [
        ("x", f"sha256:{A}"),
        ("x", f"sha256:{B}"),
    ]


def test_what_several_processes_opened_names_each_of_them_once_and_the_first_time() -> None:
    later = line("input", "x", node="gpu02", at="2026-11-21T09:05:09Z", by=[USER])
    first = line("input", "x", at="2026-11-21T09:05:01Z", by=[USER, {"rank": 1, "pid": 11}])
    [entry] = inputs(views("gpu01", "gpu02"), [later, first, first], {})
    assert entry["opened_at"] == "2026-11-21T09:05:01Z"
    assert entry["by"] == [
        {"node": "gpu02", **USER},
        {"node": "gpu01", **USER},
        {"node": "gpu01", "rank": 1, "pid": 11},
    ]


def test_who_opened_it_is_the_node_alone_where_no_more_is_known() -> None:
    [entry] = inputs(views(), [line("input", "x"), line("input", "x")], {})
    assert entry["by"] == [{"node": "gpu01", "rank": None, "pid": None}]


def test_a_file_within_a_folder_that_is_one_input_is_none_by_itself() -> None:
    found = inputs(
        views("gpu01", "gpu02"),
        [
            line("folder", "data", B),
            line("input", "data/deep/1.csv"),
            line("input", "data2/1.csv", C),
            line("input", "data/2.csv", node="gpu02"),  # where no such folder is known
        ],
        {},
    )
    assert [entry["path"] for entry in found] == ["data", "data2/1.csv", "data/2.csv"]
    assert [entry["form"] for entry in found] == ["folder", "file", "file"]
    assert found[0]["kind"] == "data"


def test_declared_data_comes_first_and_knows_what_of_it_was_read() -> None:
    data = records.view("gpu01", ("data", records.DATA))
    read = line("read", "data/train", None, by=[USER], read={"count": 2, "exact": True})
    [entry, other] = inputs({(1, "gpu01"): data}, [line("input", "x"), read], {})
    assert (entry["path"], entry["read"], entry["by"]) == (
        "data/train",
        {"count": 2, "exact": True},
        [{"node": "gpu01", **USER}],
    )
    assert (entry["kind"], entry["files"], entry["digest"]) == ("data", 3, "sha256:" + "d" * 64)
    assert other["path"] == "x"


def test_data_that_changed_says_so() -> None:
    names = {"count": 1, "first": ["a.csv"]}
    changed = {"path": "data/train", "added": names, "removed": records.NAMES, "modified": records.NAMES}
    data = records.view("gpu01", ("data", records.DATA), ("data_changed", changed))
    [entry] = inputs({(1, "gpu01"): data}, [], {})
    assert entry["changed"] == {"added": names, "removed": records.NAMES, "modified": records.NAMES}


def test_who_made_it_is_known_by_its_bytes_or_else_by_the_weights_in_it() -> None:
    by_bytes, by_weights = {**records.MADE, "run": "one"}, {**records.MADE, "run": "two"}
    producers = {f"sha256:{A}": by_bytes, f"sha256:{C}": by_weights}
    found = inputs(
        views(),
        [line("input", "x", weights=C), line("input", "y", B, weights=C), line("input", "z", None)],
        producers,
    )
    assert [entry["produced_by"] for entry in found] == [by_bytes, by_weights, None]


def test_what_could_not_be_read_has_no_digest_and_says_why() -> None:
    [entry] = inputs(views(), [line("input", "x", None, problem="torn")], {})
    assert (entry["digest"], entry["verified"], entry["problem"]) == (None, None, "torn")


# --- outputs ----------------------------------------------------------------------------------------------------------


def file(path: str, sha256: str | None = A, number: int = 1, node: str = "gpu01", **fields: Any) -> Line:
    """A line of the list of files at the end."""
    return number, node, {**records.FILE, "path": path, "sha256": sha256, **fields}


TREE = "7" * 40


def made(files: list[Line], traced: list[Line], *changes: Change, **trees: str) -> list[dict[str, Any]]:
    return outputs(files, traced, TREE, changes, {(c.at, c.path): trees[c.path[0]] for c in changes})


def test_a_checkpoint_is_the_file_that_is_there_if_it_has_the_same_bytes() -> None:
    [entry] = made(
        [file("m.pt")], [line("checkpoint", "m.pt", step=5, weights=C, step_from="call", by="torch.save")]
    )
    assert (entry["kind"], entry["step"], entry["step_from"], entry["by"]) == (
        "checkpoint",
        5,
        "call",
        "torch.save",
    )
    assert entry["weights"] == f"sha256:{C}"
    assert entry["written_at"] == records.FILE["mtime"]
    assert not entry["replaced"]


def test_earlier_versions_of_a_checkpoint_are_told_as_replaced() -> None:
    found = made(
        [file("m.pt", B)], [line("checkpoint", "m.pt", A, step=1), line("checkpoint", "m.pt", B, step=2)]
    )
    assert [(entry["step"], entry["replaced"]) for entry in found] == [(2, False), (1, True)]
    assert found[1]["written_at"] == "2026-11-21T09:05:02Z"


def test_a_checkpoint_that_was_deleted_since_is_replaced_by_that() -> None:
    gone = file("m.pt", None, kind="deleted")
    [entry] = made([gone], [line("checkpoint", "m.pt", A)])
    assert entry["replaced"]


def test_what_lies_elsewhere_or_is_a_folder_is_there_although_it_is_not_listed() -> None:
    found = made(
        [file("step2/a.pt")],
        [line("checkpoint", "/scratch/m.pt", B), line("checkpoint", "step2", C, folder=True)],
    )
    assert [(e["path"], e["form"], e["replaced"]) for e in found] == [
        ("step2/a.pt", "file", False),
        ("/scratch/m.pt", "file", False),
        ("step2", "folder", False),
    ]


def test_attempts_and_nodes_have_their_own_files() -> None:
    found = made(
        [file("m.pt", A, 1), file("m.pt", A, 2), file("m.pt", A, 2, "gpu02")],
        [line("checkpoint", "m.pt", A, 2, step=3)],
    )
    assert [(e["attempt"], e["node"], e["kind"]) for e in found] == [
        (1, "gpu01", "file"),
        (2, "gpu01", "checkpoint"),
        (2, "gpu02", "file"),
    ]


def test_of_any_file_it_is_known_who_wrote_it_last() -> None:
    [entry] = made([file("log.txt")], [line("written", "log.txt", None, rank=1, by=None, step=4)])
    assert (entry["kind"], entry["rank"], entry["step"]) == ("file", 1, 4)


def test_links_and_deleted_paths_are_no_outputs() -> None:
    assert made([file("link", None, kind="symlink"), file("x", None, kind="deleted")], []) == []


def test_an_output_carries_every_tree_that_was_live_until_it_was_written() -> None:
    edit = Change("2026-11-21T09:05:01Z", 1, "gpu01", None, "lib.py", "1", "2", YES, "2026-11-21T09:05:05Z")
    early, late = "2026-11-21T09:05:04.000000Z", "2026-11-21T09:05:05.000000Z"
    found = made([file("a", mtime=early), file("b", B, mtime=late)], [], edit, l="8" * 40)
    assert [entry["code"] for entry in found] == [[TREE], [TREE, "8" * 40]]
