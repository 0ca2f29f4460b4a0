"""What the hook and the C layer wrote: one file for each process and layer. The format is in docs/trace.md."""

from __future__ import annotations

import os
import re
from typing import Dict, List, NamedTuple, Set, Tuple

__all__ = ["Reader", "Record", "parse"]

_NAME = re.compile(r"\d+-\d+-(py|c)\Z")
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_PLAIN = {b"t": b"\t", b"n": b"\n"}
_AT_ONCE = 4 << 20  # bytes of one file in one look: memory stays bounded
_DIGITS = 15  # of a time; a longer number is none of ours, and may take minutes to be read


class Record(NamedTuple):
    """kind: one letter. ms: since boot. process: the name of the file, which is one process and one layer."""

    kind: str
    ms: int
    process: str
    fields: Tuple[str, ...]


def parse(process: str, line: bytes) -> List[Record]:
    """The record in a line without its newline; [] for one that was torn by a full disk."""
    words = line.split(b"\t")
    if len(words) < 3 or len(words[0]) != 1 or not words[1].isdigit() or len(words[1]) > _DIGITS:
        return []
    fields = tuple(os.fsdecode(_unescaped(word)) for word in words[2:])
    return [Record(words[0].decode("ascii", "replace"), int(words[1]), process, fields)]


def _unescaped(word: bytes) -> bytes:
    return _ESCAPED.sub(lambda m: _PLAIN.get(m.group(1), m.group(1)), word) if b"\\" in word else word


class Reader:
    """Follows the files of a trace folder. Each record is given once, those of one look in the order of their times,
    and those of one process as it wrote them."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._offsets: Dict[str, int] = {}
        self._cut: Set[str] = set()  # files in the midst of a line that is longer than any of ours
        self._latest: Dict[str, int] = {}  # the time of each file's last record

    def look(self) -> List[Record]:
        """What has been added since the last look."""
        found: List[Tuple[int, Record]] = []
        for name, size in self._sizes():
            if size > self._offsets.get(name, 0):
                found += self._in_order(name, self._read(name))
        found.sort(key=lambda pair: pair[0])
        return [record for _, record in found]

    def _sizes(self) -> List[Tuple[str, int]]:
        try:
            with os.scandir(self._folder) as entries:
                return [
                    (e.name, e.stat(follow_symlinks=False).st_size) for e in entries if _NAME.match(e.name)
                ]
        except OSError:
            return []

    def _in_order(self, name: str, records: List[Record]) -> List[Tuple[int, Record]]:
        """With the times to sort by: threads may write their records in another order than that of their times."""
        latest_ms = self._latest.get(name, 0)
        found = []
        for record in records:
            latest_ms = max(latest_ms, record.ms)
            found.append((latest_ms, record))
        self._latest[name] = latest_ms
        return found

    def _read(self, name: str) -> List[Record]:
        offset = self._offsets.get(name, 0)
        try:
            with open(os.path.join(self._folder, name), "rb") as file:
                file.seek(offset)
                data = file.read(_AT_ONCE)
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        if not whole and len(data) < _AT_ONCE:
            return []  # its line is not complete yet
        self._offsets[name] = offset + (len(whole) or len(data))
        lines = whole.split(b"\n")
        if name in self._cut and whole:
            self._cut.remove(name)
            del lines[0]
        if not whole:
            self._cut.add(name)
        return [record for line in lines for record in parse(name, line)]
