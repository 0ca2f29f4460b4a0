"""Runs a target as a task of a run is, and compares what the capture made of it with what it did."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from mllaunch_agent import tracing
from mllaunch_agent.environment import Inside, task_environment
from mllaunch_agent.tracing.ledger import Ledger
from mllaunch_agent.tracing.raw import Reader
from tests.coverage.target import GIVEN, Code, Target
from tests.unit.agent_core.specs import spec

__all__ = ["Finding", "run"]

_SCRIPT = "target.py"
_LIMIT_S = 120.0
_INCIDENTAL = {"uname"}  # Python's own module uuid starts it; it reads nothing of the target's


class Finding(NamedTuple):
    """What became of one target. Each thing in words, such as "read given.txt"."""

    target: Target
    missed: tuple[str, ...]
    false: tuple[str, ...]  # told, but not so
    is_said: bool  # the record names a child or program that it cannot see into
    problem: str | None  # the target itself did not work

    @property
    def is_seen(self) -> bool:
        return not self.missed and self.problem is None


def run(target: Target, folder: Path, python: str, preload: str | None = None) -> Finding:
    """folder: a new one, to work in. preload: the C layer, or None to do without."""
    place = folder.resolve() / "code"
    _lay_out(target, place, python)
    tracing.prepare(str(folder))
    trace = tracing.folder_of(str(folder.resolve()))
    done = subprocess.run(
        [python, _SCRIPT],
        cwd=place,
        env=_environment(folder, place, trace, preload),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=_LIMIT_S,
    )
    problem = None
    if done.returncode != target.status:
        problem = f"it ended with {done.returncode}: {done.stderr[-600:]}"
    elif absent := [path for path in (*target.reads, *target.writes) if not os.path.lexists(place / path)]:
        problem = f"it did not do what it is said to: {absent} is not there"
    return _judge(target, place, _ledger(trace), problem)


def _lay_out(target: Target, place: Path, python: str) -> None:
    for path, content in {GIVEN: "given\n", **target.files, _SCRIPT: target.script}.items():
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(_bytes(content))
    for command in target.build:
        subprocess.run(["sh", "-c", command], cwd=place, env={**os.environ, "PYTHON": python}, check=True)


def _environment(folder: Path, place: Path, trace: str, preload: str | None) -> Mapping[str, str]:
    given = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8"}
    if preload:
        given["LD_PRELOAD"] = preload
    task = spec(environment=given, folder=str(folder))
    inside = Inside(trace=trace, hook=tracing.HOOK, code=str(place), python_path=None)
    return task_environment(task, {"rank": 0, "local_rank": 0}, [], ("127.0.0.1", 29500), str(place), inside)


def _ledger(trace: str) -> Ledger:
    ledger, reader = Ledger(), Reader(trace)
    while records := reader.look():
        for record in records:
            ledger.feed(record)
    return ledger


# --- judging ------------------------------------------------------------------------------------------------


def _judge(target: Target, place: Path, ledger: Ledger, problem: str | None) -> Finding:
    reads, writes = _real(place, ledger.reads), _real(place, ledger.writes)
    uses = {(_relative(place, use.path), use.blob) for use in ledger.new_uses()}
    folders = _real(place, ledger.folders)
    missed = [f"read {path}" for path in target.reads if path not in reads]
    missed += [f"wrote {path}" for path in target.writes if path not in writes]
    missed += [f"read the folder {path}" for path in target.folders if path not in folders]
    missed += [
        f"executed {code.path}"
        for code in (Code(_SCRIPT, target.script), *target.code)
        if (code.path, _blob(code.content)) not in uses
    ]
    false = _false(target, place, reads, writes)
    is_said = bool(ledger.silent - _INCIDENTAL or ledger.shut or ledger.faults)
    return Finding(target, tuple(map(_shown, missed)), tuple(map(_shown, false)), is_said, problem)


def _false(target: Target, place: Path, reads: set[str], writes: set[str]) -> Iterator[str]:
    """Files that are there and that the target did not touch in this way. Those that are not there the agent omits."""
    code = {_SCRIPT, *(code.path for code in target.code)}  # which is read before it is executed
    for did, told, true in (("read", reads, {*target.reads, *code}), ("wrote", writes, set(target.writes))):
        for path in sorted(told - true - set(target.touches)):
            is_bytecode = "__pycache__/" in path  # of code, which is judged by itself
            is_bulk = path.startswith(tuple(f"{folder}/" for folder in target.folders))
            if (place / path).is_file() and not is_bytecode and not is_bulk:
                yield f"{did} {path}"


def _real(place: Path, paths: Mapping[str, object] | set[str]) -> set[str]:
    """Paths as they are without links, relative to the folder; those outside of it are of no interest."""
    found = {_relative(place, os.path.realpath(path)) for path in paths}
    return {path for path in found if not path.startswith("..")}


def _relative(place: Path, path: str) -> str:
    return os.path.relpath(path, place)


def _blob(content: str | bytes | None) -> str | None:
    """What git calls a file with this content."""
    if content is None:
        return None
    raw = _bytes(content)
    return hashlib.sha1(b"blob %d\0" % len(raw) + raw).hexdigest()


def _bytes(content: str | bytes) -> bytes:
    return content.encode() if isinstance(content, str) else content


def _shown(text: str) -> str:
    """Printable, on one line."""
    return text.encode("utf-8", "backslashreplace").decode().encode("unicode_escape").decode("ascii")
