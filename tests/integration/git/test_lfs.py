"""Files kept by Git LFS, read and checked without running git-lfs."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mllaunch.capture import lfs, snapshot, trees
from mllaunch.domain.snapshot import Snapshot
from mllaunch.errors import MllaunchError, UsageError

from .conftest import Repository

NOW = "2026-11-21T09:30:00Z"
CONTENT = bytes(range(256)) * 500
DIGEST = hashlib.sha256(CONTENT).hexdigest()
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{DIGEST}\nsize {len(CONTENT)}\n"

WITHOUT_FILTERS = ("-c", "filter.lfs.process=", "-c", "filter.lfs.clean=", "-c", "filter.lfs.required=false")


def take(repository: Repository, *, allow_dirty: bool = False) -> Snapshot:
    return snapshot.take(str(repository.root), allow_dirty=allow_dirty, now=NOW)


@pytest.fixture
def smudged(repository: Repository) -> Repository:
    """A repository as git-lfs leaves it: pointer committed, file in the tree, object in the store."""
    repository.write(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")
    repository.write("data.bin", POINTER)
    repository.commit()
    repository.write("data.bin", CONTENT)
    repository.write(f".git/lfs/objects/{DIGEST[:2]}/{DIGEST[2:4]}/{DIGEST}", CONTENT)
    for part in ("clean", "smudge", "process"):
        repository.git("config", f"filter.lfs.{part}", "no-such-program")
    repository.git("config", "filter.lfs.required", "true")
    return repository


def test_a_file_that_holds_what_its_pointer_says_is_clean(smudged: Repository) -> None:
    assert not take(smudged).dirty


def test_a_file_that_holds_something_else_is_dirty_also_with_the_same_size(
    tmp_path: Path, smudged: Repository
) -> None:
    changed = CONTENT[:-1] + b"x"
    smudged.write("data.bin", changed)
    with pytest.raises(UsageError) as caught:
        take(smudged)
    assert "data.bin" in caught.value.evidence[0]
    kept = Path(trees.ensure(str(tmp_path / "store"), take(smudged, allow_dirty=True)))
    assert (kept / "data.bin").read_bytes() == changed


def test_a_clean_lfs_file_stays_a_pointer_in_a_dirty_snapshot(smudged: Repository) -> None:
    smudged.write("train.py", "changed\n")
    found = take(smudged, allow_dirty=True)
    assert found.uncommitted == ("train.py",)
    assert smudged.git("cat-file", "blob", f"{found.commit}:data.bin") + "\n" == POINTER


def test_a_newly_staged_pointer_stays_a_pointer(tmp_path: Path, smudged: Repository) -> None:
    smudged.write("new.bin", POINTER)
    smudged.git(*WITHOUT_FILTERS, "add", "new.bin")
    smudged.write("new.bin", CONTENT)
    found = take(smudged, allow_dirty=True)
    assert found.uncommitted == ("new.bin",)
    assert smudged.git("cat-file", "blob", f"{found.commit}:new.bin") + "\n" == POINTER
    kept = Path(trees.ensure(str(tmp_path / "store"), found))
    assert (kept / "new.bin").read_bytes() == CONTENT


def test_a_kept_tree_holds_the_file_in_place_of_the_pointer(tmp_path: Path, smudged: Repository) -> None:
    smudged.write("data.bin", POINTER)  # as with GIT_LFS_SKIP_SMUDGE
    smudged.write("notes.txt", POINTER)  # looks like one, but its attributes do not give it to LFS
    smudged.git(*WITHOUT_FILTERS, "add", "notes.txt")
    smudged.git(*WITHOUT_FILTERS, "commit", "--quiet", "--message", "notes")
    found = take(smudged)
    kept = Path(trees.ensure(str(tmp_path / "store"), found))
    inode = kept.stat().st_ino
    assert (kept / "data.bin").read_bytes() == CONTENT
    assert (kept / "notes.txt").read_text() == POINTER
    Path(f"{kept}.boot").write_text("an earlier boot")
    assert Path(trees.ensure(str(tmp_path / "store"), found)).stat().st_ino == inode


def test_the_working_tree_serves_when_the_object_is_not_in_the_store(
    tmp_path: Path, smudged: Repository
) -> None:
    (smudged.root / f".git/lfs/objects/{DIGEST[:2]}/{DIGEST[2:4]}/{DIGEST}").unlink()
    kept = Path(trees.ensure(str(tmp_path / "store"), take(smudged)))
    assert (kept / "data.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("stored", [None, b"", CONTENT[:-1], CONTENT[:-1] + b"x"])
def test_a_pointer_never_passes_for_the_file(
    tmp_path: Path, smudged: Repository, stored: bytes | None
) -> None:
    smudged.write("data.bin", POINTER)
    place = smudged.root / f".git/lfs/objects/{DIGEST[:2]}/{DIGEST[2:4]}/{DIGEST}"
    place.unlink()
    if stored is not None:
        place.write_bytes(stored)
    found = take(smudged)
    with pytest.raises(MllaunchError) as caught:
        trees.ensure(str(tmp_path / "store"), found)
    assert caught.value.code == "lfs-object-missing"
    assert caught.value.evidence == (f"data.bin  sha256:{DIGEST}  {len(CONTENT)} bytes",)
    assert caught.value.hint == "git lfs pull"
    assert list((tmp_path / "store").iterdir()) == []


def test_a_change_of_attributes_is_not_hidden_by_an_earlier_tree(tmp_path: Path, smudged: Repository) -> None:
    smudged.write("data.bin", POINTER)
    store = str(tmp_path / "store")
    trees.ensure(store, take(smudged))
    smudged.write(".gitattributes", "")
    kept = Path(trees.ensure(store, take(smudged, allow_dirty=True)))
    assert (kept / "data.bin").read_text() == POINTER


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        b"version https://git-lfs.github.com/spec/v1\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:../../x\nsize 1\n",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize -1\n",
        b"version https://git-lfs.github.com/spec/v1\noid md5:" + b"a" * 64 + b"\nsize 1\n",
        POINTER.encode() + b"x" * 2000,
    ],
)
def test_what_only_resembles_a_pointer_is_an_ordinary_file(blob: bytes) -> None:
    assert lfs.parse(blob) is None


def test_a_pointer_is_read(tmp_path: Path) -> None:
    pointer = lfs.parse(POINTER.encode())
    assert pointer == lfs.Pointer(DIGEST, len(CONTENT))
    assert lfs.object_path("/g", pointer) == f"/g/lfs/objects/{DIGEST[:2]}/{DIGEST[2:4]}/{DIGEST}"
