"""An attempt without processes: notes are written by the test, files are real, and the time is the test's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mllaunch_agent import hashing, protocol, system, tracing
from mllaunch_agent.blobs import BlobLog
from mllaunch_agent.tracing.checkpoints import Checkpoints
from mllaunch_agent.tracing.inputs import Inputs
from mllaunch_agent.tracing.ledger import Ledger
from mllaunch_agent.tracing.places import Places
from mllaunch_agent.tracing.raw import Reader
from mllaunch_agent.tracing.tracer import Tracer


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Attempt:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder / "attempt"
        self.root = folder / "work"
        self.data: list[str] = []
        self.committed: dict[str, str] = {}
        self.opened: set[str] = set()  # what the tasks have open for writing
        self.now_s = 1000.0
        monkeypatch.setattr(system, "boot_s", lambda: self.now_s)
        (self.folder / "streams").mkdir(parents=True)
        (self.root / "out").mkdir(parents=True)
        tracing.prepare(str(self.folder))
        self.begin()

    def begin(self) -> None:
        """A supervisor takes up its work, the first one or another."""
        self.ledger = Ledger()
        self.reader = Reader(tracing.folder_of(str(self.folder)))
        self.places = Places(str(self.root), [], lambda path: path, self.committed.get, self.data, "out")
        digests = hashing.Digests()
        self.checkpoints = Checkpoints(
            self.ledger, self.places, digests, lambda: {self.path(path) for path in self.opened}, self.wall
        )
        self.inputs = Inputs(self.spec(), self.ledger, self.places, digests, self.wall)

    @staticmethod
    def wall(ms: int) -> str:
        return f"at {ms}"

    def spec(self) -> protocol.TaskSpec:
        fields: Any = {
            "folder": str(self.folder),
            "argv": ["python", "train.py"],
            "secrets": ["hunter2secret"],
            "python": "/usr/bin/python",
            "data": [{"path": path, "source": "/somewhere"} for path in self.data],
            "cache": str(self.folder),
        }
        spec: protocol.TaskSpec = fields
        return spec

    def tracer(self) -> Tracer:
        return Tracer(self.spec(), self.places, BlobLog(str(self.folder)), lambda: set(self.opened))

    def path(self, name: str) -> str:
        return str(self.root / name)

    def note(self, kind: str, *fields: str, pid: int = 7, layer: str = "py") -> None:
        """A process writes a record; a name is one below the root."""
        file = Path(tracing.folder_of(str(self.folder)), f"{pid}-1-{layer}")
        self.now_s += 0.001
        if not file.exists() and kind != "P":
            self.process(pid)
        if kind in "RWZDFMLSC":
            names = 2 if kind == "M" else 1
            fields = (*fields[:-names], *(self.path(field) for field in fields[-names:]))
        words = [kind, str(int(self.now_s * 1000)), *fields]
        with file.open("ab") as out:
            out.write("\t".join(words).encode("utf-8", "surrogateescape") + b"\n")

    def process(self, pid: int, *argv: str, layer: str = "py", rank: str = "0", parent: int = 1) -> None:
        kind, version = ("python", "3.11") if layer == "py" else ("c", "")
        words = ["python", "train.py", *argv]
        self.note(
            "P", kind, str(pid), str(parent), rank, "/bin/python", version, "/", *words, pid=pid, layer=layer
        )

    def write(self, name: str, content: bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def fold(self) -> None:
        for record in self.reader.look():
            self.ledger.feed(record)

    def look(self, wait_s: float = 0.0) -> list[dict[str, Any]]:
        """What is told of checkpoints after a while."""
        self.now_s += wait_s
        self.fold()
        return self.checkpoints.look()

    def finish(self) -> list[dict[str, Any]]:
        self.fold()
        return self.checkpoints.finish()

    def lines(self, *records: str) -> list[dict[str, Any]]:
        """What is in the stream ``trace``."""
        text = (self.folder / "streams" / protocol.TRACE).read_bytes()
        found = [json.loads(line) for line in text.splitlines()]
        return [line for line in found if not records or line["record"] in records]


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Attempt:
    return Attempt(tmp_path, monkeypatch)
