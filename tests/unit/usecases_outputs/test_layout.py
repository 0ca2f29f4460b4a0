"""Where files of several nodes go: nothing that one wrote may come in the place of what another did."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from mllaunch.usecases.layout import layout, words
from mllaunch.usecases.outputs import OutputFile


def file(node: str, path: str, content: str | None = "same") -> OutputFile:
    """content: what makes its digest; None where there is none on record."""
    return OutputFile(path, "file", 1, None, content, None, None, node)


def link(node: str, path: str, target: str) -> OutputFile:
    return OutputFile(path, "symlink", None, None, None, None, target, node)


def pipe(node: str, path: str) -> OutputFile:
    return OutputFile(path, "special", None, None, None, None, None, node)


def places(*files: OutputFile) -> list[tuple[str, list[str]]]:
    """Where they go, and from which nodes."""
    return [(want.place, [holder.node for holder in want.holders]) for want in layout(files).wanted]


def test_paths_of_one_node_alone_stay_as_they_are_whatever_is_known_of_them() -> None:
    assert places(file("a", "x", None), link("a", "y", "x"), pipe("a", "z")) == [
        ("x", ["a"]),
        ("y", ["a"]),
        ("z", ["a"]),
    ]


def test_disjoint_paths_of_several_nodes_go_into_one_tree() -> None:
    assert places(file("a", "out/0.pt"), file("b", "out/1.pt", "other")) == [
        ("out/0.pt", ["a"]),
        ("out/1.pt", ["b"]),
    ]


def test_the_same_bytes_are_one_file_that_any_of_the_nodes_can_give() -> None:
    assert places(file("a", "x"), file("b", "x"), link("a", "l", "x"), link("b", "l", "x")) == [
        ("x", ["a", "b"]),
        ("l", ["a", "b"]),
    ]


def test_one_path_that_differs_gives_every_file_the_folder_of_its_node() -> None:
    found = layout([file("a", "x", "1"), file("a", "only"), file("b", "x", "2"), file("b", "same")])
    assert found.contested == ("x",)
    assert [want.place for want in found.wanted] == ["a/x", "a/only", "b/x", "b/same"]


def test_what_is_not_known_to_be_the_same_differs() -> None:
    assert layout([file("a", "x", None), file("b", "x", None)]).contested == ("x",)
    assert layout([file("a", "x"), file("b", "x", None)]).contested == ("x",)
    assert layout([file("a", "x"), file("b", "x"), file("c", "x", "other")]).contested == ("x",)


def test_a_link_differs_from_a_file_and_from_a_link_to_elsewhere() -> None:
    assert layout([link("a", "l", "x"), link("b", "l", "y")]).contested == ("l",)
    assert layout([link("a", "l", "x"), file("b", "l")]).contested == ("l",)


def test_a_file_cannot_lie_where_another_node_has_a_folder() -> None:
    assert layout([file("a", "out/x"), file("b", "out/x/deep/y")]).contested == ("out/x",)
    assert layout([file("b", "out/x/y"), link("a", "out", "z")]).contested == ("out",)


def test_what_is_never_copied_is_in_nobodys_way() -> None:
    away = [link("a", "out/data", "/scratch/a"), link("b", "out/data", "/scratch/b")]
    assert places(*away, pipe("a", "p"), pipe("b", "p"), file("c", "p")) == [
        ("out/data", ["a"]),
        ("out/data", ["b"]),
        ("p", ["a", "b"]),
        ("p", ["c"]),
    ]


names = st.sampled_from("abc")
files = st.lists(
    st.builds(file, names, st.lists(names, min_size=1, max_size=3).map("/".join), st.sampled_from("12")),
    unique_by=lambda made: (made.node, made.path),
)


@given(files, st.randoms())
def test_no_file_is_lost_or_comes_in_anothers_place_and_the_order_decides_nothing(
    found: list[OutputFile], random: Random
) -> None:
    planned = layout(found)
    assert sorted(holder for want in planned.wanted for holder in want.holders) == sorted(found)
    assert len({want.place for want in planned.wanted}) == len(planned.wanted)
    for want in planned.wanted:
        assert len({holder.sha256 for holder in want.holders}) == 1
    random.shuffle(found)
    assert layout(found).contested == planned.contested


def test_the_line_names_one_path_and_counts_the_others() -> None:
    assert words(["x"]).startswith("x: not the same on all nodes")
    assert words(["x", "y", "z"]).startswith("x and 2 more: not the same")
