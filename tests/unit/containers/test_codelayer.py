"""The code layer: the same bytes for the same tree, and nothing lost on the way."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllaunch_containers.codelayer import CodeLayer, write
from mllaunch_containers.spec import ImageError

Tree = dict[bytes, tuple[bytes, bool]]  # path -> content, executable


def layer(tree: Path, mtime: int = 1_700_000_000) -> tuple[bytes, CodeLayer]:
    out = io.BytesIO()
    made = write(str(tree), out, mtime)
    return out.getvalue(), made


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape") as tar:
        return {member.name: member for member in tar}


def listed(data: bytes) -> list[bytes]:
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        member = tar.extractfile(".mllaunch/tree")
        assert member is not None
        return member.read().split(b"\0")[:-1]


def made_of(tree: Tree, root: Path, paths: Iterator[bytes] | None = None) -> None:
    for path in paths or iter(tree):
        place = root / os.fsdecode(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(tree[path][0])
        place.chmod(0o755 if tree[path][1] else 0o644)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    (root / "src" / "empty").mkdir(parents=True)
    (root / "src" / "a.py").write_bytes(b"print(1)\n")
    (root / "run.sh").write_bytes(b"#!/bin/sh\n")
    (root / "run.sh").chmod(0o700)
    (root / "link").symlink_to("src/a.py")
    (root / "broken").symlink_to("/nowhere/at/all")
    (root / "loop").symlink_to(".")
    return root


def test_members_are_sorted_and_belong_to_nobody_and_everybody_may_write(tree: Path) -> None:
    data, made = layer(tree)
    found = members(data)
    assert list(found) == [
        "workspace",
        "workspace/broken",
        "workspace/link",
        "workspace/loop",
        "workspace/run.sh",
        "workspace/src",
        "workspace/src/a.py",
        "workspace/src/empty",
        ".mllaunch",
        ".mllaunch/tree",
    ]
    assert {(one.uid, one.gid, one.uname, one.gname) for one in found.values()} == {(0, 0, "", "")}
    assert {one.mtime for one in found.values()} == {1_700_000_000}
    modes = {name: oct(one.mode) for name, one in found.items()}
    assert modes["workspace/src"] == modes["workspace/run.sh"] == modes["workspace/link"] == "0o777"
    assert modes["workspace/src/a.py"] == "0o666"
    assert (modes[".mllaunch"], modes[".mllaunch/tree"]) == ("0o755", "0o644")
    assert found["workspace/broken"].linkname == "/nowhere/at/all"
    assert made == CodeLayer(hashlib.sha256(data).hexdigest(), len(data), 5)


def test_the_last_member_names_every_file_as_git_does(tree: Path) -> None:
    data, _ = layer(tree)

    def git(content: bytes) -> bytes:
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest().encode()

    assert listed(data) == [
        b"120000 " + git(b"/nowhere/at/all") + b"\tbroken",
        b"120000 " + git(b"src/a.py") + b"\tlink",
        b"120000 " + git(b".") + b"\tloop",
        b"100755 " + git(b"#!/bin/sh\n") + b"\trun.sh",
        b"100644 " + git(b"print(1)\n") + b"\tsrc/a.py",
    ]


def test_folders_come_before_their_content_even_where_a_name_continues_theirs(tmp_path: Path) -> None:
    made_of({b"a/b": (b"", False), b"a.txt": (b"", False), b"a-b/c": (b"", False)}, tmp_path)
    assert list(members(layer(tmp_path)[0]))[:6] == [
        "workspace",
        "workspace/a",
        "workspace/a-b",
        "workspace/a-b/c",
        "workspace/a.txt",
        "workspace/a/b",
    ]


def test_gits_own_files_caches_and_special_files_stay_out(tree: Path) -> None:
    before, _ = layer(tree)
    for folder in (".git/objects", "src/.git", "__pycache__", "src/__pycache__"):
        (tree / folder).mkdir(parents=True)
        (tree / folder / "x").write_bytes(b"x")
    (tree / "src" / "empty" / ".git").write_text("gitdir: elsewhere\n")
    os.mkfifo(tree / "fifo")
    assert layer(tree)[0] == before
    (tree / "src" / "empty" / "__pycache__").write_text("a file of that name is a file\n")
    assert "workspace/src/empty/__pycache__" in members(layer(tree)[0])


def test_hard_links_are_files_of_their_own(tree: Path) -> None:
    os.link(tree / "src" / "a.py", tree / "twin.py")
    found = members(layer(tree)[0])
    assert found["workspace/twin.py"].isreg()
    assert found["workspace/twin.py"].size == found["workspace/src/a.py"].size == 9


@pytest.mark.parametrize(("said", "there"), [(10, 9), (8, 9), (0, 9)])
def test_a_file_that_changes_its_size_is_an_error_and_no_broken_layer(
    tree: Path, monkeypatch: pytest.MonkeyPatch, said: int, there: int
) -> None:
    fstat = os.fstat

    def lying(handle: int) -> os.stat_result:
        found = fstat(handle)
        return os.stat_result((*found[:6], said, *found[7:])) if found.st_size == there else found

    monkeypatch.setattr(os, "fstat", lying)
    with pytest.raises(OSError, match=r"changed its size .*a\.py"):
        write(str(tree), io.BytesIO(), 0)


def test_a_name_that_would_delete_files_of_the_layers_below_is_refused(tree: Path) -> None:
    (tree / "src" / ".wh.a.py").write_text("")
    with pytest.raises(ImageError, match=r"src/\.wh\.a\.py") as caught:
        write(str(tree), io.BytesIO(), 0)
    assert caught.value.code == "code_name"


def test_large_files_do_not_go_through_memory_as_a_whole(tmp_path: Path) -> None:
    class Widest(io.RawIOBase):
        bytes_at_once = 0

        def write(self, data: bytes) -> int:  # type: ignore[override]
            self.bytes_at_once = max(self.bytes_at_once, len(data))
            return len(data)

    with (tmp_path / "large").open("wb") as file:
        file.truncate(20_000_001)
    out = Widest()
    made = write(str(tmp_path), out, 0)  # type: ignore[arg-type]
    assert made.size_bytes > 20_000_000
    assert out.bytes_at_once < 2_000_000


_NAME = (
    st.binary(min_size=1, max_size=12)
    | st.sampled_from(
        [b"a", b"a b", b"a\nb", b"-x", b"\xff\xfe", "ü".encode(), b"a.b", b"x" * 101, b"y" * 250]
    )
).map(lambda name: name.replace(b"\0", b"0").replace(b"/", b"1"))
_PATH = st.lists(
    _NAME.filter(lambda n: n not in (b".", b"..", b".git", b"__pycache__") and not n.startswith(b".wh.")),
    min_size=1,
    max_size=4,
).map(b"/".join)
_CONTENT = st.tuples(st.binary(max_size=1500), st.booleans())


def without_clashes(tree: Tree) -> Tree:
    """No path is a folder of another."""
    folders = {
        b"/".join(path.split(b"/")[:depth]) for path in tree for depth in range(1, path.count(b"/") + 1)
    }
    return {path: content for path, content in tree.items() if path not in folders}


@settings(max_examples=60)
@given(tree=st.dictionaries(_PATH, _CONTENT, max_size=8).map(without_clashes), order=st.randoms())
def test_one_tree_gives_the_same_bytes_wherever_and_however_it_came_about(
    tmp_path_factory: pytest.TempPathFactory, tree: Tree, order: object
) -> None:
    roots = [tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("another-place")]
    made_of(tree, roots[0])
    paths = list(tree)
    order.shuffle(paths)  # type: ignore[attr-defined]
    umask = os.umask(0o077)
    try:
        made_of(tree, roots[1], iter(paths))
    finally:
        os.umask(umask)
    for path in paths:
        place = roots[1] / os.fsdecode(path)
        place.chmod(0o700 if tree[path][1] else 0o600)
        os.utime(place, (1, 1))
    first, second = (layer(root) for root in roots)
    assert first == second
    assert len(listed(first[0])) == len(tree)

    back = tmp_path_factory.mktemp("back")
    subprocess.run(["tar", "-x", "-C", back], input=first[0], check=True)
    for path, (content, executable) in tree.items():
        place = back / "workspace" / os.fsdecode(path)
        assert place.read_bytes() == content
        assert bool(place.stat().st_mode & 0o100) == executable
    for root in (*roots, back):
        shutil.rmtree(root)
