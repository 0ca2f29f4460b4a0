"""Kept trees with several makers at once, and makers that are killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

from mllaunch.capture import snapshot, trees
from mllaunch.domain.snapshot import Snapshot

from .conftest import Repository, files_of

NOW = "2026-11-21T09:30:00Z"

# Makes a tree and kills itself as soon as the N-th file of it is being written.
DOOMED = """
import os, signal, sys
from mllaunch.capture import files, snapshot, trees
write, left = files._write_one, int(sys.argv[3])
def doomed(*args):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return write(*args)
files._write_one = doomed
trees.ensure(sys.argv[1], snapshot.take(sys.argv[2], allow_dirty=True))
"""


def _ensure(store: str, found: Snapshot) -> None:
    trees.ensure(store, found)


def test_many_makers_of_the_same_trees_and_a_sweeper_do_no_harm(
    tmp_path: Path, repository: Repository
) -> None:
    store = str(tmp_path / "store")
    for number in range(200):
        repository.write(f"many/{number}", f"{number}\n")
    first = snapshot.take(str(repository.root), allow_dirty=True, now=NOW)
    expected_first = files_of(repository.root)
    repository.write("many/7", "changed\n")
    second = snapshot.take(str(repository.root), allow_dirty=True, now=NOW)
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_ensure, args=(store, found)) for found in [first, second] * 4]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        trees.sweep(store, {first.tree, second.tree})
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 8
    assert files_of(Path(store) / first.tree) == expected_first
    assert files_of(Path(store) / second.tree) == files_of(repository.root)
    # The lock is there if somebody met a tree between its rename and its mark.
    names = {path.name for path in Path(store).iterdir()} - {"check.lock"}
    assert names == {name + end for name in (first.tree, second.tree) for end in ("", ".boot")}


def test_a_maker_killed_at_any_file_leaves_nothing_that_is_taken_for_a_tree(
    tmp_path: Path, repository: Repository
) -> None:
    store = tmp_path / "store"
    for number in (1, 2, 4):
        done = subprocess.run(
            [sys.executable, "-c", DOOMED, str(store), str(repository.root), str(number)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.returncode == -signal.SIGKILL
        assert all(path.name.startswith("tmp-") for path in store.iterdir())
    found = snapshot.take(str(repository.root), allow_dirty=True, now=NOW)
    assert files_of(Path(trees.ensure(str(store), found))) == files_of(repository.root)
    assert {path.name for path in store.iterdir()} == {found.tree, f"{found.tree}.boot"}
