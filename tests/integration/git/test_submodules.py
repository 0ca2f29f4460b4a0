"""Repositories inside repositories."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mllaunch.capture import snapshot, trees
from mllaunch.domain.snapshot import Snapshot
from mllaunch.errors import UsageError

from .conftest import Repository, files_of, make_repository

NOW = "2026-11-21T09:30:00Z"


def take(repository: Repository, *, allow_dirty: bool = False) -> Snapshot:
    return snapshot.take(str(repository.root), allow_dirty=allow_dirty, now=NOW)


@pytest.fixture
def vendor(tmp_path: Path, repository: Repository) -> Repository:
    """A submodule ``vendor``, which has a submodule ``deep`` itself."""
    deep = make_repository(tmp_path / "deep")
    deep.write("deep.py", "deep\n")
    deep.commit()
    library = make_repository(tmp_path / "library")
    library.write("lib.py", "lib\n")
    local = ("-c", "protocol.file.allow=always", "submodule", "--quiet", "add")
    library.git(*local, str(deep.root), "deep")
    library.commit()
    repository.git(*local, str(library.root), "vendor")
    repository.git(
        "-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init", "--recursive"
    )
    repository.commit("with submodule")
    return Repository(repository.root / "vendor")


def kept_files(tmp_path: Path, found: Snapshot) -> dict[str, tuple[str, bytes]]:
    return files_of(Path(trees.ensure(str(tmp_path / "store"), found)))


def test_clean_submodules_are_clean_and_their_files_are_kept(
    tmp_path: Path, repository: Repository, vendor: Repository
) -> None:
    found = take(repository)
    assert not found.dirty
    assert kept_files(tmp_path, found)["vendor/deep/deep.py"] == ("file", b"deep\n")
    assert files_of(repository.root) == kept_files(tmp_path, found)


def test_changes_in_depth_are_named_and_recorded(
    tmp_path: Path, repository: Repository, vendor: Repository
) -> None:
    kept_files(tmp_path, take(repository))
    vendor.write("deep/deep.py", "deep\nchanged\n")
    vendor.write("new.py", "new\n")
    with pytest.raises(UsageError) as caught:
        take(repository)
    assert {tuple(line.split()) for line in caught.value.evidence} == {
        ("modified", "vendor/deep/deep.py", "+1", "-0"),
        ("untracked", "vendor/new.py", "+1", "-0"),
    }
    found = take(repository, allow_dirty=True)
    assert set(found.uncommitted) == {"vendor/deep/deep.py", "vendor/new.py"}
    assert kept_files(tmp_path, found) == files_of(repository.root)


def test_a_submodule_at_another_commit_is_dirty(
    tmp_path: Path, repository: Repository, vendor: Repository
) -> None:
    vendor.write("lib.py", "newer\n")
    moved = vendor.commit()
    with pytest.raises(UsageError) as caught:
        take(repository)
    assert caught.value.evidence[0].split() == ["submodule", "vendor"]
    found = take(repository, allow_dirty=True)
    assert repository.git("rev-parse", f"{found.commit}:vendor") == moved
    assert kept_files(tmp_path, found) == files_of(repository.root)


def test_a_staged_submodule_is_dirty(tmp_path: Path, repository: Repository, vendor: Repository) -> None:
    vendor.write("lib.py", "newer\n")
    moved = vendor.commit()
    repository.git("add", "vendor")
    with pytest.raises(UsageError):
        take(repository)
    found = take(repository, allow_dirty=True)
    assert repository.git("rev-parse", f"{found.commit}:vendor") == moved


def test_a_configured_ignore_hides_no_change(repository: Repository, vendor: Repository) -> None:
    repository.git("config", "submodule.vendor.ignore", "all")
    vendor.write("lib.py", "changed\n")
    with pytest.raises(UsageError):
        take(repository)


def test_conflicts_in_a_submodule_are_refused(repository: Repository, vendor: Repository) -> None:
    vendor.git("checkout", "--quiet", "-b", "other")
    vendor.write("lib.py", "one\n")
    vendor.commit()
    vendor.git("checkout", "--quiet", "-b", "third", "HEAD~1")
    vendor.write("lib.py", "two\n")
    vendor.commit()
    with pytest.raises(AssertionError):
        vendor.git("merge", "other")
    with pytest.raises(UsageError) as caught:
        take(repository, allow_dirty=True)
    assert caught.value.code == "conflicted"


def test_a_submodule_that_is_not_checked_out_is_an_empty_folder(
    tmp_path: Path, repository: Repository, vendor: Repository
) -> None:
    repository.git("submodule", "--quiet", "deinit", "--all", "--force")
    shutil.rmtree(repository.root / ".git/modules")
    found = take(repository)
    kept = Path(trees.ensure(str(tmp_path / "store"), found))
    assert list((kept / "vendor").iterdir()) == []


def test_a_deleted_submodule_is_a_deletion(
    tmp_path: Path, repository: Repository, vendor: Repository
) -> None:
    shutil.rmtree(vendor.root)
    found = take(repository, allow_dirty=True)
    assert found.uncommitted == ("vendor",)
    assert kept_files(tmp_path, found) == files_of(repository.root)


def test_a_repository_that_was_never_added_is_recorded_with_its_files(
    tmp_path: Path, repository: Repository
) -> None:
    nested = make_repository(repository.root / "nested")
    nested.write("inner.py", "inner\n")
    nested.commit()
    nested.write("inner.py", "changed\n")
    with pytest.raises(UsageError):
        take(repository)
    found = take(repository, allow_dirty=True)
    assert kept_files(tmp_path, found) == files_of(repository.root)


def test_pinning_keeps_the_commits_of_changed_submodules(
    tmp_path: Path, repository: Repository, vendor: Repository
) -> None:
    vendor.write("lib.py", "changed\n")
    found = take(repository, allow_dirty=True)
    snapshot.pin(found)
    vendor.git("prune", "--expire=now")
    assert kept_files(tmp_path, found) == files_of(repository.root)
