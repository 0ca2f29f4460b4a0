"""A user with a repository and a run log of their own, in a folder that goes with them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.harness import SCRIPT, Home, Repo, until

__all__ = ["PYTHON", "SCRIPT", "User"]

PYTHON = sys.executable  # the interpreter of every reference, and by PATH that of every run


class User:
    """As a context manager: at its end no process, mount or file of theirs is left."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mllaunch-bench-"))
        self.home = Home(self.folder / "home")
        self.repo = Repo(self.folder / "repository", self.home.environ)
        self.output = self.folder / "output"
        self.errors = self.folder / "errors"

    def __enter__(self) -> User:
        return self

    def __exit__(self, *_: object) -> None:
        self.home.close()
        shutil.rmtree(self.folder)

    def call(self, argv: Sequence[str], **variables: str) -> int:
        """Run a command with its stdout in ``output``, its stderr in ``errors``; when it began, in Unix nanoseconds."""
        with self.output.open("wb") as out, self.errors.open("wb") as err:
            began_ns = time.time_ns()
            done = subprocess.run(
                argv,
                cwd=self.repo.root,
                env={**self.home.environ, **variables},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        assert done.returncode == 0, f"{argv}: {self.errors.read_text(errors='replace')}"
        return began_ns

    def bare(self, script: str) -> int:
        """The reference: the script by itself, unbuffered as a run's Python is; as ``call``."""
        return self.call([PYTHON, script], PYTHONUNBUFFERED="1")

    def mllaunch(self, *args: str) -> int:
        return self.call([str(SCRIPT), *args])

    def newest_stream(self, name: str = "stdout.0") -> Path:
        """A stream of the newest run, where its task writes it."""
        runs = self.home.path / "runs"
        return runs / max(path.name for path in runs.iterdir()) / "1" / "streams" / name

    def settle(self) -> None:
        """Until nothing of ours works any more."""
        until(lambda: not self.home.processes(), "the run to be sealed and collected")
