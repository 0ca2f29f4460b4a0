from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch.errors import Unreachable
from mllaunch.usecases.outputs import (
    Listing,
    OpenOutput,
    OutputFile,
    chosen,
    is_plain,
    listing,
    matches,
    parse,
    stays_inside,
)


def file(path: str, kind: str = "file") -> OutputFile:
    return OutputFile(path, kind, 1, None, None, None, None, "here")


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.pt", "a.pt", True),
        ("*.pt", "outputs/a.pt", False),
        ("**/*.pt", "a.pt", True),
        ("**/*.pt", "outputs/deep/a.pt", True),
        ("outputs/**", "outputs/deep/a.pt", True),
        ("outputs/**/a.pt", "outputs/a.pt", True),
        ("outputs/**/b/**/a.pt", "outputs/x/b/y/z/a.pt", True),
        ("outputs/**/b/**/a.pt", "outputs/x/c/y/z/a.pt", False),
        ("o?tputs/[ab].pt", "outputs/a.pt", True),
        ("**", "anything/at/all", True),
        ("A.pt", "a.pt", False),
    ],
)
def test_a_star_stays_within_a_name_and_two_stars_are_any_depth(
    pattern: str, path: str, expected: bool
) -> None:
    assert matches(pattern.split("/"), path.split("/")) is expected


@given(st.lists(st.sampled_from(["a", "b", "cc"]), min_size=1, max_size=6))
def test_every_path_is_matched_by_itself_and_below_two_stars(parts: list[str]) -> None:
    assert matches(parts, parts)
    assert matches(["**", parts[-1]], parts)
    assert not matches([*parts, "more"], parts)


def test_a_folder_means_all_that_is_in_it_and_deleted_files_are_never_chosen() -> None:
    files = (file("out/a"), file("out/deep/b"), file("other"), file("out/gone", "deleted"))
    assert [f.path for f in chosen(files, "out/")] == ["out/a", "out/deep/b"]
    assert [f.path for f in chosen(files, None)] == ["out/a", "out/deep/b", "other"]


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "a\0b", ".."])
def test_a_path_that_is_not_plain_is_no_file_of_a_run(path: str) -> None:
    assert not is_plain(path)
    files, damaged = parse(json.dumps({"path": path, "kind": "file"}).encode(), "here")
    assert (files, damaged) == ([], 1)


def test_damaged_lines_are_counted_and_the_others_read() -> None:
    lines = [
        b'{"path":"a","kind":"file","size_bytes":3,"mtime":"2026-01-01T00:00:00.000000Z","sha256":"ab"}',
        b"not json",
        b'{"kind":"file"}',
        b'{"path":"b","kind":"file","size_bytes":"large"}',
        b"[]",
        b'{"path":"caf\\udce9","kind":"deleted"}',
    ]
    files, damaged = parse(b"\n".join(lines) + b"\n", "here")
    assert damaged == 4
    assert [(f.path, f.kind, f.size_bytes, f.sha256) for f in files] == [
        ("a", "file", 3, "ab"),
        ("caf\udce9", "deleted", None, None),
    ]


class Node:
    """A node whose tasks go on; None: it does not answer."""

    def __init__(self, path: str | None) -> None:
        self.path = path

    def output_now(self) -> list[dict[str, Any]]:
        if self.path is None:
            raise Unreachable("unreachable", "it cannot be reached")
        return [{"path": self.path, "kind": "file"}]

    def open_output(self, path: str) -> OpenOutput:
        raise NotImplementedError


class Log:
    """Nothing was collected yet."""

    def views(self, run_id: str) -> dict[tuple[int, str], Any]:
        return {}


def look(**nodes: str | None) -> Listing:
    folders = {name: Node(path) for name, path in nodes.items()}
    return listing(cast("Any", Log()), cast("Any", None), folders, cast("Any", SimpleNamespace(id="r")), 1)


def test_of_several_nodes_a_silent_one_is_named_and_the_others_are_listed() -> None:
    found = look(a="x", b=None, c="y")
    assert [(file.node, file.path) for file in found.files] == [("a", "x"), ("c", "y")]
    assert (found.silent, found.is_final) == ({"b": "it cannot be reached"}, False)


def test_the_silence_of_the_only_node_is_an_error() -> None:
    with pytest.raises(Unreachable):
        look(a=None)


@pytest.mark.parametrize(
    ("target", "depth", "expected"),
    [
        ("b.pt", 1, True),
        ("../b.pt", 1, True),
        ("../../b.pt", 1, False),
        ("../b.pt", 0, False),
        ("/etc/passwd", 3, False),
        ("deep/../b.pt", 2, False),
        ("./b.pt", 0, True),
        ("", 1, False),
        ("a\0b", 1, False),
    ],
)
def test_only_links_that_stay_below_the_top_are_taken(target: str, depth: int, expected: bool) -> None:
    assert stays_inside(target, depth) is expected
