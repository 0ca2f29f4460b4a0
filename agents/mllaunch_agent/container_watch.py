"""What a container's keeper watches: the main process, by the node's kernel, and the output, where it goes through the
engine."""

from __future__ import annotations

import os
from typing import Callable, Iterable, Optional, Set

from mllaunch_agent import pidfd, protocol, system
from mllaunch_agent.engine import Engine, EngineGone
from mllaunch_agent.engine_answer import Answer, Frames
from mllaunch_agent.family import environment
from mllaunch_agent.probes import processes

__all__ = ["MainProcess", "Output", "Wait", "seen_from_here"]

_FULL_DISK_PAUSE_S = 0.5

# Waits until one of the files is readable, or the time is up; which files are.
Wait = Callable[[Iterable[int], Optional[float]], Set[int]]


def seen_from_here(pid: int, container_id: str, run_id: str) -> int:
    """The pid, or 0 if it is not the container's process: one in another machine (Docker Desktop) or another
    namespace has a number that means nothing here, or a stranger."""
    try:
        with open("/proc/%d/cgroup" % pid, encoding="utf-8", errors="replace") as file:
            known = container_id in file.read()
    except OSError:
        return 0
    # An engine without control groups leaves no id there.
    return pid if known or b"MLLAUNCH_RUN_ID=%s" % run_id.encode() in environment(pid) else 0


class MainProcess:
    """The main process of a container, as the node's kernel shows it. pid: 0 if it has ended already, or is not to
    be seen from here."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._ticks = processes.start_ticks(pid) if pid else None
        self._fd = None if self._ticks is None else pidfd.watch(pid, self._ticks)

    def fileno(self) -> Optional[int]:
        return self._fd

    def lives(self) -> bool:
        return self._ticks is not None and processes.is_same(self._pid, self._ticks)

    def is_seen(self) -> bool:
        return self._ticks is not None

    def exit_status(self) -> Optional[int]:
        return None if self._fd is None else pidfd.exit_status(self._fd)

    def close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)


class Output:
    """Copies what a container prints to its engine into the task's streams, from where they end."""

    def __init__(self, folder: str, rank: int, engine: Engine, container_id: str, wait: Wait) -> None:
        self._engine = engine
        self._wait = wait
        self._id = container_id
        names = protocol.stdout_stream(rank), protocol.stderr_stream(rank)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._files = [os.open(os.path.join(folder, "streams", name), flags, 0o600) for name in names]
        self._answer: Optional[Answer] = None
        self._frames = Frames()
        self._skip = [0, 0]  # bytes of each stream that are there already
        self._whole = False  # whether the last connection ended because there was no more to come

    def connect(self) -> None:
        """Ask for all of the output again, if the connection is gone. EngineGone."""
        if self._answer is None:
            answer = self._engine.output(self._id)
            self._frames = Frames()
            self._skip = [os.fstat(file).st_size for file in self._files]
            self._answer = answer

    def fileno(self) -> Optional[int]:
        return None if self._answer is None else self._answer.fileno()

    def take(self) -> bool:
        """Store what has come; False at the end of the connection."""
        assert self._answer is not None
        data = self._answer.drain()
        if not data:
            self._whole = self._answer.is_whole()
            self._answer.close()
            self._answer = None
            return False
        for stream, piece in self._frames.feed(data):
            self._store(0 if stream == 1 else 1, piece)
        return True

    def finish(self) -> None:
        """The container has ended: store the rest of what it printed. EngineGone, also if the engine goes meanwhile."""
        self.connect()
        while self.take():
            pass
        if not self._whole:
            raise EngineGone("the connection broke while the last output came")

    def _store(self, index: int, piece: bytes) -> None:
        skipped = min(self._skip[index], len(piece))
        self._skip[index] -= skipped
        view = memoryview(piece)[skipped:]
        while view:
            try:
                view = view[os.write(self._files[index], view) :]
            except OSError as e:
                if not system.is_full(e):
                    raise
                self._wait((), _FULL_DISK_PAUSE_S)  # the engine keeps the rest meanwhile

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
        for file in self._files:
            os.close(file)
