"""Kept trees of real repositories."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllaunch.capture import snapshot, trees
from mllaunch.domain.snapshot import Snapshot
from mllaunch.errors import MllaunchError

from .conftest import Repository, files_of

NOW = "2026-11-21T09:30:00Z"


def take(repository: Repository) -> Snapshot:
    return snapshot.take(str(repository.root), allow_dirty=True, now=NOW)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def kept_in(store: Path) -> set[str]:
    """What is in a store beside the notes of when it was made."""
    return {path.name for path in store.iterdir() if path.suffix != ".boot"}


def test_a_kept_tree_holds_exactly_the_files_of_the_snapshot(repository: Repository, store: Path) -> None:
    repository.write("deep/er/empty", b"")
    repository.write("large.bin", bytes(range(256)) * 20_000)
    found = take(repository)
    kept = Path(trees.ensure(str(store), found))
    assert kept == store / found.tree
    assert files_of(kept) == files_of(repository.root)
    assert kept.joinpath("latest").readlink() == Path("src/model.py")
    assert kept_in(store) == {found.tree}


def test_a_second_call_gives_the_same_folder_untouched(repository: Repository, store: Path) -> None:
    found = take(repository)
    first = Path(trees.ensure(str(store), found))
    inode = first.stat().st_ino
    assert Path(trees.ensure(str(store), found)).stat().st_ino == inode


def test_unchanged_files_are_shared_with_an_earlier_tree_and_changed_ones_are_not(
    repository: Repository, store: Path
) -> None:
    old = Path(trees.ensure(str(store), take(repository)))
    repository.write("train.py", "changed\n")
    (repository.root / "run.sh").chmod(0o644)
    (repository.root / "latest").unlink()
    repository.write("src/extra.py", "new\n")
    new = Path(trees.ensure(str(store), take(repository)))
    assert files_of(new) == files_of(repository.root)
    assert (old / "src/model.py").samefile(new / "src/model.py")
    assert not (old / "train.py").samefile(new / "train.py")
    assert not (old / "run.sh").samefile(new / "run.sh")
    assert (old / "train.py").read_text() == "print('training')\n"


def test_blobs_are_written_exactly_without_filters_or_line_end_conversion(
    repository: Repository, store: Path
) -> None:
    repository.write(".gitattributes", "*.txt text eol=crlf ident\n*.enc filter=evil\n")
    repository.write("a.txt", "one\r\n$Id$\r\n")
    repository.write("b.enc", "plain\n")
    repository.commit()
    repository.git("config", "filter.evil.smudge", "touch evil; cat")
    repository.git("config", "filter.evil.clean", "touch evil; cat")
    kept = Path(trees.ensure(str(store), take(repository)))
    assert (kept / "a.txt").read_bytes() == b"one\n$Id$\n"
    assert (kept / "b.enc").read_bytes() == b"plain\n"


def test_what_a_killed_maker_left_is_removed_by_the_next_call(repository: Repository, store: Path) -> None:
    store.mkdir()
    half = store / "tmp-1-dead"
    (half / "src").mkdir(parents=True)
    found = take(repository)
    trees.ensure(str(store), found)
    assert kept_in(store) == {found.tree}


def test_sweeping_removes_what_nobody_needs_and_keeps_the_rest(repository: Repository, store: Path) -> None:
    first = take(repository)
    old = Path(trees.ensure(str(store), first))
    repository.write("train.py", "changed\n")
    second = take(repository)
    new = Path(trees.ensure(str(store), second))
    content = files_of(new)
    trees.sweep(str(store), {second.tree})
    assert not old.exists()
    assert files_of(new) == content
    used_at_s = new.stat().st_mtime
    trees.sweep(str(store), set(), used_before_s=used_at_s - 1)
    assert new.exists()
    trees.sweep(str(store), set())
    assert list(store.iterdir()) == []


def test_a_tree_from_before_the_last_boot_is_checked_before_it_is_used_again(
    repository: Repository, store: Path
) -> None:
    repository.write("data.bin", "x" * 5000)
    found = take(repository)
    kept = Path(trees.ensure(str(store), found))
    mark = store / f"{found.tree}.boot"
    for damage in (None, "empty", "link", "missing"):
        mark.write_text("an earlier boot")
        inode = kept.stat().st_ino
        if damage == "empty":
            (kept / "train.py").write_bytes(b"")
        elif damage == "link":
            (kept / "latest").unlink()
            (kept / "latest").symlink_to("elsewhere")
        elif damage == "missing":
            (kept / "src/model.py").unlink()
        assert Path(trees.ensure(str(store), found)) == kept
        assert files_of(kept) == files_of(repository.root)
        if damage is None:
            assert kept.stat().st_ino == inode, "a good tree may be in use: it must not be replaced"
        assert mark.read_text() != "an earlier boot"


def test_files_are_never_shared_with_a_tree_that_a_power_cut_may_have_emptied(
    repository: Repository, store: Path
) -> None:
    first = take(repository)
    old = Path(trees.ensure(str(store), first))
    (store / f"{first.tree}.boot").unlink()
    (old / "train.py").write_bytes(b"")
    repository.write("src/model.py", "changed\n")
    new = Path(trees.ensure(str(store), take(repository)))
    assert files_of(new) == files_of(repository.root)


def test_a_missing_object_is_an_error_and_leaves_nothing_half_made(
    repository: Repository, store: Path
) -> None:
    found = take(repository)
    blob = repository.git("rev-parse", "HEAD:train.py")
    (repository.root / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(MllaunchError) as caught:
        trees.ensure(str(store), found)
    assert caught.value.code == "damaged-object"
    assert list(store.iterdir()) == []
