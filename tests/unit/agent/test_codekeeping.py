"""Code that is sent to a node: what is kept is whole, and is what it was said to be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mllaunch_agent import codewatch
from mllaunch_agent.codekeeping import CodeKeeping, Damaged, key_of
from mllaunch_agent.codewatch import Listed, blob_id_of

PLAIN, EXECUTABLE, LINK = "100644", "100755", "120000"
FILES = {
    "train.py": (PLAIN, b"print('hello')\n"),
    "run.sh": (EXECUTABLE, b"#!/bin/sh\n"),
    "pkg/__init__.py": (PLAIN, b""),
    "pkg/deep/er/__init__.py": (PLAIN, b""),
    "pkg/same.sh": (PLAIN, b"#!/bin/sh\n"),
    "latest": (LINK, b"pkg/deep"),
    "nowhere": (LINK, b"/no/such/\xff"),
    "caf\udce9.txt": (PLAIN, b"not UTF-8\n"),
}


def listing(files: dict[str, tuple[str, bytes]]) -> bytes:
    return codewatch.format_tree(
        {path: Listed(mode, blob_id_of(content)) for path, (mode, content) in files.items()}
    )


class Node:
    def __init__(self, home: Path) -> None:
        self.home = home
        self.keeping = CodeKeeping(str(home))

    def send(self, files: dict[str, tuple[str, bytes]]) -> Path:
        """As a launcher does it."""
        text = listing(files)
        lacking = self.keeping.lacking(text)
        for blob, content in {blob_id_of(content): content for _, content in files.values()}.items():
            if blob in lacking:
                self.keeping.keep(blob, content)
        self.keeping.make(key_of(text), text)
        return Path(self.keeping.tree(key_of(text)))

    def has(self, text: bytes) -> bool:
        return self.keeping.has(key_of(text))

    def left(self) -> list[str]:
        """What lies there besides contents."""
        return sorted(path.name for path in self.home.glob("trees/*"))

    def contents(self) -> list[str]:
        return sorted(path.name for path in (self.home / "contents").rglob("*") if path.is_file())


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "home")


def test_a_tree_is_exactly_what_is_listed(node: Node) -> None:
    tree = node.send(FILES)
    assert codewatch.format_tree(codewatch.listing(str(tree), None)) == listing(dict(sorted(FILES.items())))
    for path, (mode, content) in FILES.items():
        if mode == LINK:
            assert os.fsencode((tree / path).readlink()) == content
        else:
            assert (tree / path).read_bytes() == content
            assert (tree / path).stat().st_mode & 0o777 == int(mode, 8) & 0o777
    assert node.has(listing(FILES))


def test_nothing_is_lacking_of_what_was_sent_once(node: Node) -> None:
    text = listing(FILES)
    assert node.keeping.lacking(text) == sorted({blob_id_of(content) for _, content in FILES.values()})
    node.send(FILES)
    assert node.keeping.lacking(text) == []
    new = {**FILES, "new.py": (PLAIN, b"new\n"), "moved.py": FILES["train.py"]}
    assert node.keeping.lacking(listing(new)) == [blob_id_of(b"new\n")]


def test_trees_share_the_files_that_they_have_in_common(node: Node) -> None:
    one = node.send(FILES)
    two = node.send({**FILES, "new.py": (PLAIN, b"new\n")})
    assert one != two
    for path in ("train.py", "run.sh"):
        assert (one / path).samefile(two / path)
    assert not (one / "run.sh").samefile(one / "pkg/same.sh")  # one of them is executable


def test_a_tree_is_made_once(node: Node) -> None:
    tree = node.send(FILES)
    before = tree.stat().st_ino
    assert node.send(FILES) == tree
    assert tree.stat().st_ino == before
    assert node.left() == [tree.name]


def test_of_two_that_make_a_tree_at_once_both_have_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    text = listing(FILES)
    other = Node(node.home)
    fill = node.keeping._fill

    def overtaken(root: str, listed: dict[str, Listed]) -> None:
        fill(root, listed)
        other.send(FILES)

    monkeypatch.setattr(node.keeping, "_fill", overtaken)
    tree = node.send(FILES)
    assert (tree / "train.py").exists()
    assert node.left() == [key_of(text)]


def test_damaged_content_is_refused_and_not_kept(node: Node) -> None:
    blob = blob_id_of(b"whole")
    with pytest.raises(Damaged):
        node.keeping.keep(blob, b"wh0le")
    assert node.keeping.lacking(listing({"a": (PLAIN, b"whole")})) == [blob]


def test_of_a_damaged_listing_nothing_is_made(node: Node) -> None:
    node.send(FILES)
    text = listing({**FILES, "other.py": FILES["train.py"]})
    with pytest.raises(Damaged):
        node.keeping.make(key_of(text), text.replace(b"other", b"0ther"))
    assert not node.has(text)
    assert node.left() == [key_of(listing(FILES))]


def test_of_a_tree_whose_contents_are_not_all_here_nothing_is_left(node: Node) -> None:
    text = listing({"a": (PLAIN, b"a"), "b": (EXECUTABLE, b"b")})
    node.keeping.keep(blob_id_of(b"a"), b"a")
    with pytest.raises(FileNotFoundError):
        node.keeping.make(key_of(text), text)
    assert not node.has(text)
    assert node.left() == []


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "a//x", "a/./x", ".", "..", "", "a/"])
def test_a_path_that_leads_elsewhere_is_refused(node: Node, path: str) -> None:
    text = listing({"fine": (PLAIN, b"x"), path: (PLAIN, b"x")})
    node.keeping.keep(blob_id_of(b"x"), b"x")
    with pytest.raises(Damaged):
        node.keeping.make(key_of(text), text)
    assert node.left() == []
    assert not list(node.home.parent.rglob("x"))


@pytest.mark.parametrize(
    "files", [{"a": PLAIN, "a/b": PLAIN}, {"a/b/c": PLAIN, "a": PLAIN}, {"a": "120000", "a/b": PLAIN}]
)
def test_a_path_below_a_file_or_link_is_refused(node: Node, files: dict[str, str]) -> None:
    text = listing({path: (mode, b"x") for path, mode in files.items()})
    node.keeping.keep(blob_id_of(b"x"), b"x")
    with pytest.raises(Damaged, match="no folder"):
        node.keeping.make(key_of(text), text)
    assert node.left() == []


@pytest.mark.parametrize("name", ["", "x", "../../../etc/passwd", "G" * 64, "a" * 63, "/" * 64])
def test_what_is_no_name_of_a_tree_is_refused(node: Node, name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a tree"):
        node.keeping.tree(name)


@pytest.mark.parametrize("blob", ["", "../../passwd", "/etc/passwd", "XYZ", "ab/cd"])
def test_what_is_no_name_of_a_content_is_refused(node: Node, blob: str) -> None:
    with pytest.raises(ValueError, match="not the name of a content"):
        node.keeping.keep_part(blob, 0, b"x")
    with pytest.raises(ValueError, match="not the name of a content"):
        node.keeping.lacking(b"100644 %s\ta\0" % blob.encode())


def test_a_large_file_comes_in_parts(node: Node) -> None:
    blob = blob_id_of(b"first,second")
    node.keeping.keep_part(blob, 0, b"first,")
    node.keeping.keep_part(blob, 6, b"second")
    text = listing({"large": (PLAIN, b"first,second")})
    assert node.keeping.lacking(text) == [blob]
    node.keeping.keep_whole(blob)
    assert node.keeping.lacking(text) == []
    assert (node.send({"large": (PLAIN, b"first,second")}) / "large").read_bytes() == b"first,second"


def test_parts_that_are_sent_again_from_the_beginning_replace_the_first_ones(node: Node) -> None:
    blob = blob_id_of(b"right")
    node.keeping.keep_part(blob, 0, b"wrong, and longer")
    node.keeping.keep_part(blob, 0, b"right")
    node.keeping.keep_whole(blob)
    assert node.contents() == [blob[2:]]


def test_damaged_parts_are_refused_and_not_kept(node: Node) -> None:
    blob = blob_id_of(b"whole")
    node.keeping.keep_part(blob, 0, b"wh0le")
    with pytest.raises(Damaged):
        node.keeping.keep_whole(blob)
    assert node.contents() == []
    assert node.keeping.lacking(listing({"a": (PLAIN, b"whole")})) == [blob]
