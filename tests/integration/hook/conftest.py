"""A Python with the hook in it, as a task has it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mllaunch_agent import tracing
from mllaunch_agent.tracing.raw import Reader, Record


class Traced:
    """code: the checkout. attempt: its folder on the node, where the notes are."""

    def __init__(self, folder: Path) -> None:
        self.code = folder / "code"
        self.attempt = folder / "attempt"
        self.notes = self.attempt / "trace"
        self.code.mkdir()
        self.attempt.mkdir()
        tracing.prepare(str(self.attempt))
        self.python = sys.executable
        self.variables: dict[str, str] = {}

    def environment(self, hook: bool = True) -> dict[str, str]:
        found = {"PATH": os.environ["PATH"], "HOME": str(self.code), "PYTHONDONTWRITEBYTECODE": "1"}
        found.update(self.variables)
        if hook:
            others = found.get("PYTHONPATH")
            found["PYTHONPATH"] = tracing.HOOK + (":" + others if others else "")
            found.update({"MLLAUNCH_TRACE": str(self.notes), "MLLAUNCH_CODE": str(self.code), "RANK": "3"})
        return found

    def write(self, name: str, text: str) -> Path:
        path = self.code / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def run(self, *words: str, hook: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.python, *words],
            cwd=self.code,
            env=self.environment(hook),
            capture_output=True,
            text=True,
            timeout=120,
            **options,
        )

    def output(self, script: str, **options: Any) -> str:
        """What a main script prints; it must end well and complain of nothing."""
        self.write("main.py", script)
        done = self.run("main.py", **options)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def alike(self, script: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a main script without the hook and with it: there must be no difference."""
        self.write("main.py", script)
        without = self.run("main.py", hook=False, **options)
        done = self.run("main.py", **options)
        assert (done.returncode, done.stdout, done.stderr) == (
            without.returncode,
            without.stdout,
            without.stderr,
        )
        return done

    def records(self, kinds: str = "") -> list[Record]:
        return [record for record in Reader(str(self.notes)).look() if not kinds or record.kind in kinds]

    def paths(self, kind: str) -> set[str]:
        """The files of the checkout that records of a kind name last."""
        root = str(self.code) + "/"
        found = [record.fields[-1] for record in self.records(kind)]
        return {path[len(root) :] for path in found if path.startswith(root)}


@pytest.fixture
def traced(tmp_path: Path) -> Traced:
    return Traced(tmp_path)
