"""The run log's own copy of the code gives back exactly what was run, without the user's repository too."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mllaunch.capture import codestore, snapshot
from mllaunch.domain.snapshot import Snapshot
from mllaunch.errors import MllaunchError, NotFound, UsageError

from .conftest import Repository, files_of, make_repository
from .test_hostile import _tree

NOW = "2026-11-21T09:30:00Z"


def take(repository: Repository) -> Snapshot:
    return snapshot.take(str(repository.root), allow_dirty=True, now=NOW)


@pytest.fixture
def store(tmp_path: Path) -> str:
    return str(tmp_path / "log" / "code.git")


def in_store(store: str, *args: str) -> str:
    return subprocess.run(["git", "-C", store, *args], check=True, capture_output=True, text=True).stdout


def test_the_exact_code_comes_back_with_the_users_repository_deleted(
    tmp_path: Path, repository: Repository, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write(b"latin-\xe9\n.py", "odd\n")
    repository.write("train.py", "changed\n")
    repository.write("large.bin", bytes(range(256)) * 10_000)
    found = take(repository)
    expected = files_of(repository.root)
    codestore.preserve(store, found)
    shutil.rmtree(repository.root)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    codestore.checkout(store, found.commit, str(tmp_path / "out"))
    assert files_of(tmp_path / "out") == expected


def test_submodules_come_back_too(tmp_path: Path, repository: Repository, store: str) -> None:
    inner = make_repository(repository.root / "vendor/inner")
    inner.write("lib.py", "lib\n")
    inner.commit()
    repository.commit()
    inner.write("lib.py", "changed\n")
    found = take(repository)
    expected = files_of(repository.root)
    codestore.preserve(store, found)
    shutil.rmtree(repository.root)
    codestore.checkout(store, found.commit, str(tmp_path / "out"))
    assert files_of(tmp_path / "out") == expected
    codestore.prune(store)
    codestore.checkout(store, found.commit, str(tmp_path / "again"))
    assert files_of(tmp_path / "again") == expected


def test_preserving_is_idempotent_and_history_stays_behind(repository: Repository, store: str) -> None:
    for number in range(3):
        repository.write("train.py", f"{number}\n")
        repository.commit()
    found = take(repository)
    codestore.preserve(store, found)
    codestore.preserve(store, found)
    assert in_store(store, "rev-list", "--all").split() == [found.commit]
    in_store(store, "fsck", "--strict")


def test_many_runs_cost_one_copy_and_the_changes(repository: Repository, store: str) -> None:
    import random

    repository.write("large.bin", random.Random(1).randbytes(1_000_000))
    repository.commit()
    for number in range(20):
        repository.write("train.py", f"{number}\n")
        codestore.preserve(store, take(repository))
    size_bytes = sum(path.stat().st_size for path in Path(store).rglob("*") if path.is_file())
    assert len(in_store(store, "for-each-ref", "refs/mllaunch/").splitlines()) == 20
    assert size_bytes < 1_200_000
    in_store(store, "fsck", "--strict")


def _preserve(store: str, found: Snapshot) -> None:
    codestore.preserve(store, found)


def test_several_processes_preserve_at_once(tmp_path: Path, repository: Repository, store: str) -> None:
    snapshots = []
    for number in range(6):
        repository.write("train.py", f"{number}\n")
        snapshots.append(take(repository))
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_preserve, args=(store, found)) for found in snapshots * 2]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 12
    for found in snapshots:
        codestore.checkout(store, found.commit, str(tmp_path / found.commit))
    in_store(store, "fsck", "--strict")


def test_what_killed_writers_leave_is_in_nobodys_way(
    tmp_path: Path, repository: Repository, store: str
) -> None:
    first = take(repository)
    (tmp_path / "log" / "code.git.new").mkdir(parents=True)
    codestore.preserve(store, first)
    repository.write("train.py", "changed\n")
    second = take(repository)
    (Path(store) / "refs/mllaunch" / f"{second.commit}.lock").write_text("")
    (Path(store) / "packed-refs.lock").write_text("")
    (Path(store) / "shallow.new").write_text("half")
    codestore.preserve(store, second)
    (Path(store) / "packed-refs.lock").write_text("")
    codestore.forget(store, first.commit)
    codestore.checkout(store, second.commit, str(tmp_path / "out"))
    assert files_of(tmp_path / "out") == files_of(repository.root)


def test_forgetting_and_pruning_frees_the_bytes_and_keeps_the_others(
    tmp_path: Path, repository: Repository, store: str
) -> None:
    import random

    kept = take(repository)
    codestore.preserve(store, kept)
    repository.write("large.bin", random.Random(1).randbytes(1_000_000))
    gone = take(repository)
    codestore.preserve(store, gone)
    codestore.forget(store, gone.commit)
    codestore.forget(store, gone.commit)
    with pytest.raises(NotFound):
        codestore.checkout(store, gone.commit, str(tmp_path / "out"))
    codestore.prune(store)
    size_bytes = sum(path.stat().st_size for path in Path(store).rglob("*") if path.is_file())
    assert size_bytes < 50_000
    codestore.checkout(store, kept.commit, str(tmp_path / "out"))
    in_store(store, "fsck", "--strict")
    codestore.preserve(store, gone)
    codestore.checkout(store, gone.commit, str(tmp_path / "again"))


def test_a_folder_that_is_not_empty_is_refused_and_untouched(
    tmp_path: Path, repository: Repository, store: str
) -> None:
    found = take(repository)
    codestore.preserve(store, found)
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "link").symlink_to(out)
    (out / "mine").write_text("mine")
    for name in ("out", "out/mine", "link"):
        with pytest.raises(UsageError):
            codestore.checkout(store, found.commit, str(tmp_path / name))
    assert [path.name for path in out.iterdir()] == ["mine"]
    (out / "mine").unlink()
    codestore.checkout(store, found.commit, str(out))
    assert files_of(out) == files_of(repository.root)


@pytest.mark.parametrize("commit", ["", "HEAD", "--all", "../../x", "a" * 40, "b" * 64])
def test_an_unknown_commit_is_not_found(
    tmp_path: Path, repository: Repository, store: str, commit: str
) -> None:
    codestore.preserve(store, take(repository))
    codestore.forget(store, commit)
    with pytest.raises(NotFound):
        codestore.checkout(store, commit, str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["..", ".git", "../evil", "/evil"])
def test_a_preserved_tree_cannot_lead_out_of_the_folder(
    tmp_path: Path, repository: Repository, store: str, name: str
) -> None:
    tree = _tree(repository, ("100644", name, repository.git("rev-parse", "HEAD:train.py")))
    commit = repository.git("commit-tree", "-m", "hostile", tree)
    codestore.preserve(store, take(repository)._replace(commit=commit, tree=tree))
    with pytest.raises(MllaunchError):
        codestore.checkout(store, commit, str(tmp_path / "a/b/out"))
    assert not (tmp_path / "a/b/evil").exists()
    assert not (tmp_path / "a/evil").exists()


def test_sha256_repositories_are_stored_beside(tmp_path: Path, store: str) -> None:
    root = tmp_path / "modern"
    root.mkdir()
    modern = Repository(root)
    modern.git("init", "--quiet", "--object-format=sha256")
    modern.write("train.py", "x\n")
    modern.commit()
    modern.write("train.py", "y\n")
    found = take(modern)
    codestore.preserve(store, found)
    codestore.checkout(store, found.commit, str(tmp_path / "out"))
    codestore.prune(store)
    assert files_of(tmp_path / "out") == files_of(root)


# Preserves a snapshot and kills itself at the N-th step that changes the store.
DOOMED = """
import os, signal, sys
from mllaunch.capture import codestore, snapshot
left = int(sys.argv[3])
def doomed(step):
    def stepping(*args):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args)
    return stepping
for name in ("_create", "_copy", "_add_shallow", "_set_ref"):
    setattr(codestore, name, doomed(getattr(codestore, name)))
codestore.preserve(sys.argv[1], snapshot.take(sys.argv[2], allow_dirty=True, now="2026-11-21T09:30:00Z"))
"""


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_writer_killed_at_any_step_spoils_nothing(
    tmp_path: Path, repository: Repository, store: str, step: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DOOMED, store, str(repository.root), str(step)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == -signal.SIGKILL
    found = take(repository)
    with pytest.raises(NotFound):
        codestore.checkout(store, found.commit, str(tmp_path / "out"))
    codestore.preserve(store, found)
    codestore.checkout(store, found.commit, str(tmp_path / "out"))
    codestore.prune(store)
    in_store(store, "fsck", "--strict")
    assert files_of(tmp_path / "out") == files_of(repository.root)


def test_the_uncommitted_changes_come_back_as_a_patch_that_git_applies(
    tmp_path: Path, repository: Repository, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = take(repository)
    shutil.copytree(repository.root, tmp_path / "copy", symlinks=True)
    # What the user has configured for their own eyes must not reach the patch.
    repository.git("config", "--global", "diff.noprefix", "true")
    repository.git("config", "--global", "diff.mine.textconv", f"touch {tmp_path / 'ran'}")
    repository.git("config", "--global", "color.ui", "always")
    repository.write(".gitattributes", "*.py diff=mine\n")
    repository.write("train.py", "changed\n")
    repository.write(b"latin-\xe9\n.txt", "odd\n")
    repository.write("large.bin", bytes(range(256)) * 1_000)
    (repository.root / "run.sh").chmod(0o644)
    (repository.root / "latest").unlink()
    found = take(repository)
    expected = files_of(repository.root)
    codestore.preserve(store, clean)
    codestore.preserve(store, found)
    shutil.rmtree(repository.root)
    patch = codestore.uncommitted(store, found.commit)
    subprocess.run(["git", "apply", "-"], input=patch, cwd=tmp_path / "copy", check=True)
    assert files_of(tmp_path / "copy") == expected
    assert not (tmp_path / "ran").exists()
    assert codestore.uncommitted(store, clean.commit) == b""


def test_forgetting_a_dirty_tree_frees_what_it_was_made_from(repository: Repository, store: str) -> None:
    repository.write("train.py", "changed\n")
    found = take(repository)
    codestore.preserve(store, found)
    codestore.forget(store, found.commit)
    assert in_store(store, "for-each-ref") == ""
    with pytest.raises(NotFound):
        codestore.uncommitted(store, found.commit)
