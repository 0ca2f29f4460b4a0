"""Puts several streams of a node (stdout and stderr, ranks) into the order in which their bytes arrived.

The marks tell it: text lines ``BOOT_MS STREAM OFFSET``, each saying how long STREAM was at that time. They
are noted when bytes arrive, so the order is exact between marks (at most 100 ms apart) and unknown within.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

_LONGEST_MARK = 256  # bytes; a longer line is damage
_HELD_BACK = 64 * 1024  # bytes of an unfinished line that wait for its end


class Segment(NamedTuple):
    """Bytes [start, end) of a stream.

    They had arrived boot_ms milliseconds after the node's boot; None: that is not known.
    """

    stream: str
    start: int
    end: int
    boot_ms: int | None


class Merger:
    """Follows the marks of a node, which may still be growing, and gives out segments in time order.

    lengths: the streams to merge, and how many bytes of each can be read now; other streams are left out. A
    segment ends at the end of a line unless the line is longer than 64 KiB; what is unfinished comes with a
    later segment. read(stream, start, end) reads a stream.

    Law: the segments of one stream are neither empty nor overlapping and leave no hole, and after rest() they
    cover it. Damaged marks are skipped; the bytes they would have placed come with the next mark of their
    stream.
    """

    def __init__(self, read: Callable[[str, int, int], bytes]) -> None:
        self._read = read
        self._torn = b""  # the last mark, while its line has no end
        self._done: dict[str, int] = {}
        self._boot_ms: int | None = None

    def feed(self, marks: bytes, lengths: Mapping[str, int]) -> Iterator[Segment]:
        """The segments which these next bytes of the marks complete. To be used up before the next call."""
        *lines, torn = (self._torn + marks).split(b"\n")
        self._torn = torn[: _LONGEST_MARK + 1]
        for line in lines:
            mark = _parsed(line)
            if mark is None or mark[1] not in lengths:
                continue
            self._boot_ms, stream, offset = mark
            start = self._done.get(stream, 0)
            end = self._line_end(stream, start, min(offset, lengths[stream]))
            if end > start:
                self._done[stream] = end
                yield Segment(stream, start, end, self._boot_ms)

    def rest(self, lengths: Mapping[str, int], *, lines_only: bool = False) -> Iterator[Segment]:
        """What is left of each stream: bytes that no mark tells of yet and, unless lines_only, unfinished lines."""
        for stream, length in lengths.items():
            start = self._done.get(stream, 0)
            end = self._line_end(stream, start, length) if lines_only else length
            if end > start:
                self._done[stream] = end
                yield Segment(stream, start, end, self._boot_ms)

    def _line_end(self, stream: str, start: int, end: int) -> int:
        """Where the last whole line of [start, end) ends; ``start`` if there is none."""
        if end <= start:
            return start
        looked_at = max(start, end - _HELD_BACK)
        newline = self._read(stream, looked_at, end).rfind(b"\n")
        if newline >= 0:
            return looked_at + newline + 1
        return end if end - start >= _HELD_BACK else start


def _parsed(line: bytes) -> tuple[int, str, int] | None:
    """One mark, or None if the line is not one."""
    fields = line.split(b" ")
    if len(line) > _LONGEST_MARK or len(fields) != 3:
        return None
    boot_ms, stream, offset = fields
    if not (boot_ms.isdigit() and offset.isdigit() and stream.isascii()):
        return None
    return int(boot_ms), stream.decode("ascii"), int(offset)
