"""A checkpoint is brought whole and as it was verified, or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from mllaunch_agent import checkpoint
from mllaunch_agent.protocol import Checkpoint


def wanted(source: Path, *, is_known: bool = True) -> Checkpoint:
    """What the launcher asks an agent for: the source as it is now."""
    return {
        "kind": "resume",
        "name": source.name,
        "source": str(source),
        "path": "unused here",
        "sha256": checkpoint.digest_of(str(source)) or "",
        "verified": checkpoint.keys(str(source)) if is_known else None,
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    file = tmp_path / "parent" / "model-2.npz"
    file.parent.mkdir()
    file.write_bytes(b"weights" * 100)
    return file


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An attempt's."""
    made = tmp_path / "attempt"
    made.mkdir()
    return made


def assert_nothing_is_left(folder: Path) -> None:
    assert [path for path in folder.rglob("*") if not path.is_dir()] == []
    assert not list(folder.glob("checkpoint/*"))


@pytest.mark.parametrize("is_known", [True, False])
def test_the_file_is_copied_into_the_attempts_own_folder(source: Path, folder: Path, is_known: bool) -> None:
    asked = wanted(source, is_known=is_known)
    found = checkpoint.bring(str(folder), asked)
    assert found == checkpoint.place(str(folder), asked) == str(folder / "checkpoint" / "model-2.npz")
    assert Path(found).read_bytes() == source.read_bytes()
    Path(found).write_bytes(b"what the task writes there")
    assert source.read_bytes() == b"weights" * 100
    source.unlink()
    assert checkpoint.bring(str(folder), asked) == found  # it is there already


def test_one_that_was_replaced_since_it_was_verified_is_refused_and_nothing_is_left(
    source: Path, folder: Path
) -> None:
    asked = wanted(source)
    other = source.with_name("other")
    other.write_bytes(b"Weights" * 100)
    other.replace(source)
    with pytest.raises(checkpoint.CheckpointError, match="its digest differs"):
        checkpoint.bring(str(folder), asked)
    assert_nothing_is_left(folder)


def test_one_that_was_written_anew_with_the_same_bytes_is_taken(source: Path, folder: Path) -> None:
    asked = wanted(source)
    other = source.with_name("other")
    other.write_bytes(source.read_bytes())
    other.replace(source)
    assert Path(checkpoint.bring(str(folder), asked)).read_bytes() == b"weights" * 100


def test_one_that_is_gone_is_refused_and_nothing_is_left(source: Path, folder: Path) -> None:
    asked = wanted(source)
    source.unlink()
    with pytest.raises(checkpoint.CheckpointError, match="is gone"):
        checkpoint.bring(str(folder), asked)
    assert_nothing_is_left(folder)


def test_a_link_loop_in_its_place_is_refused(source: Path, folder: Path) -> None:
    asked = wanted(source)
    source.unlink()
    source.symlink_to(source.name)
    with pytest.raises(OSError):
        checkpoint.bring(str(folder), asked)
    assert_nothing_is_left(folder)


def test_a_pipe_in_its_place_is_refused_and_nobody_waits_for_it(source: Path, folder: Path) -> None:
    asked = wanted(source)
    source.unlink()
    os.mkfifo(source)
    with pytest.raises(OSError):
        checkpoint.bring(str(folder), asked)
    assert_nothing_is_left(folder)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_folder_is_brought_with_all_of_its_files(tmp_path: Path, folder: Path, is_known: bool) -> None:
    source = tmp_path / "parent" / "global_step2"
    (source / "deep").mkdir(parents=True)
    (source / "a.bin").write_bytes(b"a")
    (source / "deep" / "b.bin").write_bytes(b"bb")
    found = Path(checkpoint.bring(str(folder), wanted(source, is_known=is_known)))
    files = {str(path.relative_to(found)) for path in found.rglob("*") if path.is_file()}
    assert files == {"a.bin", "deep/b.bin"}
    assert checkpoint.digest_of(str(found)) == checkpoint.digest_of(str(source))


def test_a_folder_with_a_file_that_differs_is_refused_and_nothing_is_left(
    tmp_path: Path, folder: Path
) -> None:
    source = tmp_path / "parent" / "global_step2"
    source.mkdir(parents=True)
    (source / "a.bin").write_bytes(b"a")
    (source / "b.bin").write_bytes(b"bb")
    asked = wanted(source)
    (source / "b.bin").write_bytes(b"bc")
    os.utime(source / "b.bin", ns=(0, 0))
    with pytest.raises(checkpoint.CheckpointError):
        checkpoint.bring(str(folder), asked)
    assert_nothing_is_left(folder)


def test_what_a_killed_agent_left_half_brought_is_replaced(source: Path, folder: Path) -> None:
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / "model-2.npz.tmp").write_bytes(b"half")
    found = checkpoint.bring(str(folder), wanted(source))
    assert [path.name for path in (folder / "checkpoint").iterdir()] == ["model-2.npz"]
    assert hashlib.sha256(Path(found).read_bytes()).hexdigest() == wanted(source)["sha256"]


def test_large_files_are_linked_and_verified_all_the_same(
    source: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "_COPIED_BYTES", 10)
    found = checkpoint.bring(str(folder), wanted(source))
    assert Path(found).samefile(source)
    other = folder / "other"
    asked = wanted(source)
    source.write_bytes(b"Weights" * 100)
    with pytest.raises(checkpoint.CheckpointError):
        checkpoint.bring(str(other), asked)
    assert_nothing_is_left(other)
