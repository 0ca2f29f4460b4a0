"""A repository of 50,000 files and 500 MB in which 20 files have changed, beside `git status`.

The checkout is what a run waits for: the new tree is kept beside an earlier one, and the run gets its own.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Callable, Iterator
from unittest import mock

from bench.measuring import Row, in_turns, ms
from bench.user import User
from mllaunch.capture import snapshot as snapshots
from mllaunch.capture import trees
from mllaunch.domain.snapshot import Snapshot
from mllaunch_agent import overlay, workdir

FILE_BYTES = 10_000
CHANGED = 20


def rows(quick: bool) -> Iterator[Row]:
    files = 5_000 if quick else 50_000
    what = f"{files:,} files, {files * FILE_BYTES // 1_000_000} MB, {CHANGED} changed"
    with User() as user:
        os.environ.update(user.home.environ)  # git is called by ours within this process
        repository = _Repository(user, files)
        both = in_turns(repository.status_ms, repository.snapshot_ms, 5)
        yield Row(f"{what}: snapshot", *both, at_most_ratio=2)
        with _overlay(overlay.mount):
            both = in_turns(repository.status_ms, repository.checkout_ms, 5)
        method = repository.method
        yield Row(f"{what}: kept tree + checkout ({method})", *both, at_most_ratio=15)
        if method == workdir.OVERLAY:
            with _overlay(lambda *_: False):
                both = in_turns(repository.status_ms, repository.checkout_ms, 2, warm_up=0)
            yield Row(f"the same, where mounting is refused ({repository.method})", *both)


def _overlay(mount: Callable[..., bool]) -> mock._patch[object]:
    return mock.patch.object(overlay, "mount", mount)


class _Repository:
    def __init__(self, user: User, files: int) -> None:
        self.user = user
        self.files = files
        self.method = ""
        self._rounds = itertools.count()
        for number in range(files):
            user.repo.write(f"d{number // 500}/f{number}", os.urandom(FILE_BYTES))
        user.repo.commit()
        first = self._snapshot()
        trees.ensure(self._store, first)

    @property
    def _store(self) -> str:
        return str(self.user.folder / "trees")

    def _snapshot(self) -> Snapshot:
        return snapshots.take(str(self.user.repo.root), allow_dirty=True)

    def _change(self) -> int:
        """Other changes than before, so that nothing of them is known yet; the number of this round."""
        number = next(self._rounds)
        for i in range(CHANGED):
            self.user.repo.write(f"d0/f{i}", os.urandom(FILE_BYTES))
        return number

    def status_ms(self) -> float:
        self._change()
        return ms(
            lambda: subprocess.run(
                ["git", "status", "--porcelain"],
                cwd=self.user.repo.root,
                check=True,
                stdout=subprocess.DEVNULL,
            )
        )

    def snapshot_ms(self) -> float:
        self._change()
        return ms(self._snapshot)

    def checkout_ms(self) -> float:
        """Of a snapshot that no run had before."""
        folder = self.user.folder / f"attempt{self._change()}"
        folder.mkdir()
        snapshot = self._snapshot()

        def check_out() -> None:
            self.method = workdir.make(trees.ensure(self._store, snapshot), str(folder))

        took_ms = ms(check_out)
        seen = sum(len(names) for _, _, names in os.walk(folder / "work"))
        assert seen == self.files + 1, f"{seen} files are in the checkout"  # and .gitignore
        workdir.discard(str(folder))
        trees.sweep(self._store, {snapshot.tree})
        return took_ms
