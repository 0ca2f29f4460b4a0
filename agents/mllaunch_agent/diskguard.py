"""Keeps a full disk from failing the job's own printing.

A write() to a file on a full disk fails, and a Python program whose print() fails dies. So when room gets short,
blocks are reserved ahead of each output stream; and when there are none left to reserve, room is made by giving up
the oldest part of what was printed. What is given up is on record, exactly. The job notices nothing.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Sequence

from mllaunch_agent import protocol, shim, system
from mllaunch_agent.streams import EventLog

_SHORT_BYTES = 1 << 30  # with more room than this nothing is done at all
_AHEAD_BYTES = 32 << 20  # reserved ahead of each stream: what a job prints in some tenths of a second
_BALLAST_BYTES = 64 << 10  # room for exit records and the seal
_EVENTS_AHEAD_BYTES = 256 << 10
_KEPT_BYTES = 64 << 10  # of the newest output: somebody may be reading it, and masking looks back some 2 KiB
_BLOCK = 4096
_REASON = "the disk was full"


class DiskGuard:
    def __init__(self, folder: str, ranks: Sequence[int], events: EventLog) -> None:
        self._folder = folder
        names = [
            stream(rank) for rank in ranks for stream in (protocol.stdout_stream, protocol.stderr_stream)
        ]
        self._outputs = [os.path.join(folder, "streams", name) for name in names]
        self._events = events
        self._reserved: Dict[str, int] = {}
        self._gaps: Dict[str, List[Dict[str, Any]]] = {}
        self._able = True
        for event in events.past:
            if event["kind"] == protocol.GAP:
                self._note(event["stream"], event["offset"], event["size_bytes"])

    def prepare(self) -> None:
        """Before the tasks start: set room aside for the end, and for the first of the output if room is short."""
        for path in self._outputs:
            open(path, "ab").close()
        try:
            fd = os.open(shim.ballast_path(self._folder), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                system.reserve(fd, 0, _BALLAST_BYTES)
            finally:
                os.close(fd)
        except OSError as e:
            self._able = system.is_full(e)  # else it is a file system without fallocate
        self.tick()

    def tick(self) -> None:
        """Reserve ahead where room is short. Costs one system call while it is not."""
        if not self._able:
            return
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize > _SHORT_BYTES and not self._reserved:
            return
        total = disk.f_blocks * disk.f_frsize
        ahead = min(_AHEAD_BYTES, max(_BLOCK * 16, total // 8)) // _BLOCK * _BLOCK
        self._ensure(
            self._events.stream.path, min(_EVENTS_AHEAD_BYTES, ahead)
        )  # first: gaps go on record there
        for path in self._outputs:
            self._ensure(path, ahead)

    def release(self) -> None:
        """Give back what was reserved and not written: nothing is printed any more."""
        for path, end in self._reserved.items():
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                size = os.fstat(fd).st_size
                start = -(-size // _BLOCK) * _BLOCK
                if path in self._outputs and end > start:
                    system.punch(fd, start, end - start)
            finally:
                os.close(fd)

    @property
    def is_short(self) -> bool:
        """Whether room had to be reserved: then tick() should be called more often."""
        return bool(self._reserved)

    def gaps(self) -> Dict[str, List[Dict[str, Any]]]:
        """By stream, the ranges given up: {"offset", "size_bytes", "reason"}, in order."""
        return self._gaps

    def _ensure(self, path: str, ahead: int) -> None:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            if self._reserved.get(path, 0) >= size + ahead * 3 // 4:
                return
            start = max(self._reserved.get(path, 0), size // _BLOCK * _BLOCK)
            want = size + ahead - start
            # Others may be quicker than we to take what we give up: so until it is ours, or nothing is left to give.
            while not self._try_reserve(fd, start, want):
                if not self._give_up(want):
                    return
            self._reserved[path] = start + want
        finally:
            os.close(fd)

    def _try_reserve(self, fd: int, offset: int, size: int) -> bool:
        try:
            system.reserve(fd, offset, size)
        except OSError:
            return False
        return True

    def _give_up(self, size: int) -> bool:
        """Free about ``size`` bytes of the oldest output, of the stream that holds the most; False if none is left."""
        best = max(self._outputs, key=lambda path: os.stat(path).st_blocks)
        name = os.path.basename(best)
        gaps = self._gaps.get(name, [])
        start = gaps[-1]["offset"] + gaps[-1]["size_bytes"] if gaps else 0
        fd = os.open(best, os.O_RDWR | os.O_CLOEXEC)
        try:
            # Whether the digest has taken it in or not: the job does not wait for that.
            end = _line_end(fd, min(start + size + _BLOCK, os.fstat(fd).st_size - _KEPT_BYTES))
            if end < start + _BLOCK:
                return False
            # On record first: a crash between the two leaves a gap that is claimed but not there, never the reverse.
            self._events.write(
                protocol.GAP, stream=name, offset=start, size_bytes=end - start, reason=_REASON
            )
            self._note(name, start, end - start)
            whole = start // _BLOCK * _BLOCK  # with the block that the last gap has left half used
            system.punch(fd, whole, end - whole)
        finally:
            os.close(fd)
        return True

    def _note(self, stream: str, offset: int, size: int) -> None:
        gaps = self._gaps.setdefault(stream, [])
        if gaps and gaps[-1]["offset"] + gaps[-1]["size_bytes"] == offset:
            gaps[-1]["size_bytes"] += size
        else:
            gaps.append({"offset": offset, "size_bytes": size, "reason": _REASON})


def _line_end(fd: int, offset: int) -> int:
    """The last end of a line at or before ``offset``, if there is one near: so no secret is cut in two, whose second
    half would be known by nothing."""
    start = max(0, offset - _BLOCK)
    newline = os.pread(fd, offset - start, start).rfind(b"\n")
    return offset if newline < 0 else start + newline + 1
