"""Taking snapshots of real repositories: what is clean, what is dirty, and that nothing is touched."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from mllaunch.capture import snapshot, worktree
from mllaunch.domain.snapshot import Snapshot
from mllaunch.errors import MllaunchError, UsageError

from .conftest import Repository

NOW = "2026-11-21T09:30:00.123Z"


def take(repository: Repository, *, allow_dirty: bool = False) -> Snapshot:
    return snapshot.take(str(repository.root), allow_dirty=allow_dirty, now=NOW)


def refused(repository: Repository, *, allow_dirty: bool = False) -> MllaunchError:
    with pytest.raises(MllaunchError) as caught:
        take(repository, allow_dirty=allow_dirty)
    assert "\n" not in caught.value.message
    return caught.value


def state_of_git(repository: Repository) -> dict[str, str]:
    """A digest of every file, but for git's objects and our own refs."""
    found = {}
    for path in sorted(repository.root.rglob("*")):
        name = str(path.relative_to(repository.root))
        if name.startswith((".git/objects", ".git/refs/mllaunch")):
            continue
        if path.is_file() and not path.is_symlink():
            stat = path.stat()
            found[name] = f"{hashlib.sha256(path.read_bytes()).hexdigest()} {stat.st_mtime_ns} {stat.st_mode}"
        else:
            found[name] = str(path.readlink()) if path.is_symlink() else "folder"
    return found


def test_a_clean_tree_is_its_head_commit(repository: Repository) -> None:
    repository.git("remote", "add", "origin", "https://me:secret@example.org/x.git")
    found = take(repository)
    head = repository.git("rev-parse", "HEAD")
    assert found == Snapshot(
        commit=head,
        tree=repository.git("rev-parse", "HEAD^{tree}"),
        base_commit=head,
        dirty=False,
        uncommitted=(),
        branch="main",
        repository=str(repository.root),
        git_dir=str(repository.root / ".git"),
        remote="https://***@example.org/x.git",
        ref=f"refs/mllaunch/{head}",
    )


def test_a_dirty_tree_is_refused_with_its_files_and_line_counts_named(repository: Repository) -> None:
    repository.write("train.py", "print('training')\nprint('more')\n")
    repository.write("new/data.txt", "1\n2\n3")
    (repository.root / "src/model.py").unlink()
    repository.write("staged.py", "x\n")
    repository.git("add", "staged.py")
    (repository.root / "run.sh").chmod(0o644)
    error = refused(repository)
    assert isinstance(error, UsageError)
    assert (error.code, error.exit_code) == ("dirty", 2)
    lines = {tuple(line.split()) for line in error.evidence}
    assert lines == {
        ("modified", "train.py", "+1", "-0"),
        ("untracked", "new/data.txt", "+3", "-0"),
        ("deleted", "src/model.py", "+0", "-1"),
        ("staged", "staged.py", "+1", "-0"),
        ("mode", "run.sh", "+0", "-0"),
    }
    assert error.hint is not None
    assert "--allow-dirty" in error.hint
    assert "git commit" in error.hint


def test_a_long_listing_is_cut_and_says_how_much_is_missing(repository: Repository) -> None:
    for number in range(25):
        repository.write(f"file{number}", "x\n")
    error = refused(repository)
    assert len(error.evidence) == 21
    assert error.evidence[-1] == "... and 5 more"


def test_ignored_files_do_not_make_a_tree_dirty(repository: Repository) -> None:
    repository.write("outputs/weights.pt", b"\0" * 100)
    assert not take(repository).dirty


def test_a_touched_but_equal_file_is_clean(repository: Repository) -> None:
    os.utime(repository.root / "train.py", (1, 1))
    assert not take(repository).dirty


def test_a_dirty_tree_becomes_a_commit_of_exactly_what_is_there(repository: Repository) -> None:
    repository.write("train.py", "print('changed')\n")
    repository.write("half.py", "staged\n")
    repository.git("add", "half.py")
    repository.write("half.py", "and changed again\n")
    repository.write("new file.py", "new\n")
    (repository.root / "src/model.py").unlink()
    (repository.root / "latest").unlink()
    (repository.root / "latest").symlink_to("train.py")
    (repository.root / "run.sh").chmod(0o644)
    head = repository.git("rev-parse", "HEAD")
    found = take(repository, allow_dirty=True)
    assert found.dirty
    assert found.base_commit == head != found.commit
    assert set(found.uncommitted) == {
        "train.py",
        "half.py",
        "new file.py",
        "src/model.py",
        "latest",
        "run.sh",
    }
    assert repository.git("rev-parse", f"{found.commit}^{{tree}}") == found.tree
    assert repository.git("rev-parse", f"{found.commit}^") == head
    assert (
        repository.git("log", "-1", "--format=%an %aI", found.commit) == "mllaunch 2026-11-21T09:30:00+00:00"
    )
    repository.git("add", "--all")
    assert repository.git("write-tree") == found.tree


def test_an_edit_within_the_tick_of_the_clock_in_which_the_file_was_added_is_seen(
    repository: Repository,
) -> None:
    file = repository.root / "train.py"
    repository.git("config", "core.trustctime", "false")
    repository.write("train.py", "RATE = 1.0\n")
    os.utime(file, (1e9, 1e9))
    repository.commit()
    file.write_text("RATE = 2.0\n")
    for path in (file, repository.root / ".git" / "index"):
        os.utime(path, (1e9, 1e9))
    found = take(repository, allow_dirty=True)
    assert repository.git("show", f"{found.commit}:train.py") == "RATE = 2.0"


def test_a_dirty_snapshot_leaves_every_byte_of_the_user_as_it_was(repository: Repository) -> None:
    repository.write("train.py", "stashed\n")
    repository.git("stash")
    repository.write("train.py", "changed\n")
    repository.write("staged.py", "staged\n")
    repository.git("add", "staged.py")
    repository.write("new.py", "new\n")
    os.utime(repository.root / "src/model.py", (1, 1))  # git would like to refresh its index now
    before = state_of_git(repository)
    snapshot.pin(take(repository, allow_dirty=True))
    after = state_of_git(repository)
    assert {name for name in after if after[name] != before.get(name)} == set()
    assert before.keys() == after.keys()


def test_a_pinned_snapshot_survives_pruning_and_an_unpinned_one_does_not(repository: Repository) -> None:
    repository.write("train.py", "changed\n")
    found = take(repository, allow_dirty=True)
    snapshot.pin(found)
    snapshot.pin(found)
    repository.git("prune", "--expire=now")
    assert repository.git("cat-file", "-t", found.commit) == "commit"
    snapshot.unpin(found)
    snapshot.unpin(found)
    repository.git("prune", "--expire=now")
    with pytest.raises(AssertionError):
        repository.git("cat-file", "-e", found.commit)


def test_a_conflicted_tree_is_refused_even_when_dirt_is_allowed(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "-b", "other")
    repository.write("train.py", "one\n")
    repository.commit()
    repository.git("checkout", "--quiet", "main")
    repository.write("train.py", "two\n")
    repository.commit()
    with pytest.raises(AssertionError):
        repository.git("merge", "other")
    error = refused(repository, allow_dirty=True)
    assert (error.code, error.exit_code) == ("conflicted", 2)
    assert "train.py" in error.evidence[0]


def test_a_file_replaced_by_a_folder_and_a_folder_by_a_link_are_recorded(repository: Repository) -> None:
    (repository.root / "train.py").unlink()
    repository.write("train.py/inner.py", "now a folder\n")
    (repository.root / "src/model.py").unlink()
    (repository.root / "src").rmdir()
    (repository.root / "src").symlink_to("/etc")
    found = take(repository, allow_dirty=True)
    assert repository.git("ls-tree", "-r", "--name-only", found.tree).split() == [
        ".gitignore",
        "latest",
        "run.sh",
        "src",
        "train.py/inner.py",
    ]


def test_a_missing_index_and_a_staged_deletion_are_dirty_but_lose_nothing(repository: Repository) -> None:
    repository.git("rm", "--cached", "--quiet", "train.py")
    tree = repository.git("rev-parse", "HEAD^{tree}")
    assert take(repository, allow_dirty=True).tree == tree
    (repository.root / ".git/index").unlink()
    assert take(repository, allow_dirty=True).tree == tree
    assert not (repository.root / ".git/index").exists()


def test_the_subfolder_it_is_called_from_does_not_matter(repository: Repository) -> None:
    repository.write("train.py", "changed\n")
    inner = snapshot.take(str(repository.root / "src"), allow_dirty=True, now=NOW)
    assert inner == take(repository, allow_dirty=True)


def test_a_snapshot_can_be_started_early_and_collected_later(repository: Repository) -> None:
    pending = snapshot.begin(str(repository.root))
    assert pending.finish(allow_dirty=False) == take(repository)


def test_a_commit_made_while_git_was_looking_is_noticed(repository: Repository) -> None:
    early = worktree.begin(str(repository.root))
    assert early.status.has_ended_within(30)
    head = repository.commit("meanwhile")
    late = worktree.begin(str(repository.root))
    assert early._replace(heads=late.heads).finish().commit == head
    early.heads.discard()
    late.status.discard()


def test_line_end_settings_do_not_get_in_the_way(tmp_path: Path, repository: Repository) -> None:
    repository.git("config", "core.autocrlf", "true")
    repository.git("config", "core.safecrlf", "true")
    repository.write("train.py", b"one\ntwo\r\n")
    found = take(repository, allow_dirty=True)
    assert repository.git("cat-file", "blob", f"{found.commit}:train.py") == "one\ntwo"


def test_a_sparse_checkout_is_clean(repository: Repository) -> None:
    repository.git("sparse-checkout", "set", "src")
    assert not take(repository).dirty
    repository.write("src/model.py", "changed\n")
    found = take(repository, allow_dirty=True)
    assert found.uncommitted == ("src/model.py",)
    assert "train.py" in repository.git("ls-tree", "-r", "--name-only", found.commit).split()


def test_the_environment_of_a_git_hook_does_not_lead_astray(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = take(repository)
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "elsewhere"))
    assert take(repository) == expected
