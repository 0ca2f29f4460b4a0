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
_AHEAD_BYTES = 32 << 20  # at most this is reserved ahead of each stream
_SHARE = 8  # and of the room that there is, at most this fraction for all of them: the job writes files too
_FLOOR_BYTES = 64 << 10  # at least this, also if older output must go for it
_TICKS_AHEAD = 16  # and what the stream takes in so many ticks, some tenths of a second
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
        self._sizes: Dict[str, int] = {}
        self._growth: Dict[str, int] = {}  # bytes per tick, of late
        self._gaps: Dict[str, List[Dict[str, Any]]] = {}
        self._able = True  # until the file system says otherwise
        self._short = False
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
            self._able = self._able and system.is_full(e)  # else it is a file system without fallocate
        self.tick()

    def tick(self) -> None:
        """Reserve ahead where room is short. Costs one system call while it is not.

        Streams that are not there yet (the run waits for GPUs) are left alone.
        """
        if not self._able:
            return
        disk = os.statvfs(self._folder)
        free = disk.f_bavail * disk.f_frsize
        # What is reserved stays so: to free it, not knowing where the job writes just now, could take its output.
        self._short = free <= (2 * _SHORT_BYTES if self._short else _SHORT_BYTES)
        if not self._short:
            return
        share = max(_FLOOR_BYTES, min(_AHEAD_BYTES, free // _SHARE // max(1, len(self._outputs))))
        most = max(_FLOOR_BYTES, min(_AHEAD_BYTES, disk.f_blocks * disk.f_frsize // 2 // _SHARE))
        # First: gaps go on record there.
        self._ensure(self._events.stream.path, min(_EVENTS_AHEAD_BYTES, share), _FLOOR_BYTES)
        for path in self._outputs:
            floor = max(_FLOOR_BYTES, min(most, self._grown(path) * _TICKS_AHEAD))
            self._ensure(path, max(floor, share), floor)

    def release(self) -> None:
        """Give back what was reserved and not written, also by a supervisor before: nothing is printed any more."""
        for path in self._outputs:
            try:
                fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                continue
            try:
                found = os.fstat(fd)
                start = -(-found.st_size // _BLOCK) * _BLOCK
                if path in self._reserved or found.st_blocks * 512 > start:
                    system.punch(fd, start, _AHEAD_BYTES + _BLOCK)  # none was ever reserved further ahead
            except OSError:
                pass  # a file system that cannot
            finally:
                os.close(fd)

    @property
    def is_short(self) -> bool:
        """Whether room has to be reserved: then tick() should be called more often."""
        return self._short and self._able

    def gaps(self) -> Dict[str, List[Dict[str, Any]]]:
        """By stream, the ranges given up: {"offset", "size_bytes", "reason"}, in order."""
        return self._gaps

    def _grown(self, path: str) -> int:
        """How many bytes the stream has taken in since the last tick, or half of what it took before that."""
        size = _size(path)
        grown = max(0, size - self._sizes.get(path, size))
        self._sizes[path] = size
        self._growth[path] = max(grown, self._growth.get(path, 0) // 2)
        return self._growth[path]

    def _ensure(self, path: str, ahead: int, floor: int) -> None:
        """Reserve ``ahead`` bytes or, with less room, down to ``floor``, for which older output goes if it must."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            while self._able:
                size = os.fstat(fd).st_size
                reserved = self._reserved.get(path, 0)
                if reserved >= size + ahead * 3 // 4:
                    return
                start = max(reserved, size // _BLOCK * _BLOCK)
                want = size + ahead - start
                if self._try_reserve(fd, start, want):
                    self._reserved[path] = start + want
                    return
                # Others may be quicker than we to take what we give up: so until it is ours, or nothing is left.
                if ahead > floor:
                    ahead = max(floor, ahead // 2)
                elif not (self._able and self._give_up(want)):
                    return
        finally:
            os.close(fd)

    def _try_reserve(self, fd: int, offset: int, size: int) -> bool:
        while True:
            try:
                system.reserve(fd, offset, size)
                return True
            except InterruptedError:
                continue  # a child has ended
            except OSError as e:
                self._able = system.is_full(e)
                return False

    def _give_up(self, size: int) -> bool:
        """Free about ``size`` bytes of the oldest output, of the stream that holds the most; False if none is left."""
        best = max(self._outputs, key=_held_blocks)
        name = os.path.basename(best)
        gaps = self._gaps.get(name, [])
        start = gaps[-1]["offset"] + gaps[-1]["size_bytes"] if gaps else 0
        try:
            fd = os.open(best, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
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


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _held_blocks(path: str) -> int:
    try:
        return os.stat(path).st_blocks
    except FileNotFoundError:
        return 0


def _line_end(fd: int, offset: int) -> int:
    """The last end of a line at or before ``offset``, if there is one near: so no secret is cut in two, whose second
    half would be known by nothing."""
    start = max(0, offset - _BLOCK)
    newline = os.pread(fd, offset - start, start).rfind(b"\n")
    return offset if newline < 0 else start + newline + 1
