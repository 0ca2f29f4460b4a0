"""What the hook and the C layer wrote: one file for each process and layer. The format is in docs/trace.md."""

from __future__ import annotations

import os
import re
from typing import Dict, List, NamedTuple, Tuple

__all__ = ["Reader", "Record", "parse"]

_NAME = re.compile(r"\d+-\d+-(py|c)\Z")
_ESCAPED = re.compile(rb"\\(.)", re.DOTALL)
_PLAIN = {b"t": b"\t", b"n": b"\n"}
_AT_ONCE = 4 << 20  # bytes of one file in one look: memory stays bounded


class Record(NamedTuple):
    """kind: one letter. ms: since boot. process: the name of the file, which is one process and one layer."""

    kind: str
    ms: int
    process: str
    fields: Tuple[str, ...]


def parse(process: str, line: bytes) -> List[Record]:
    """The record in a line without its newline; [] for one that was torn by a full disk."""
    words = line.split(b"\t")
    if len(words) < 3 or len(words[0]) != 1 or not words[1].isdigit():
        return []
    fields = tuple(os.fsdecode(_unescaped(word)) for word in words[2:])
    return [Record(words[0].decode("ascii", "replace"), int(words[1]), process, fields)]


def _unescaped(word: bytes) -> bytes:
    return _ESCAPED.sub(lambda m: _PLAIN.get(m.group(1), m.group(1)), word) if b"\\" in word else word


class Reader:
    """Follows the files of a trace folder. Each record is given once, those of one look in the order of their times."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._offsets: Dict[str, int] = {}

    def look(self) -> List[Record]:
        """What has been added since the last look."""
        found: List[Record] = []
        try:
            with os.scandir(self._folder) as entries:
                sizes = {
                    e.name: e.stat(follow_symlinks=False).st_size for e in entries if _NAME.match(e.name)
                }
        except OSError:
            return []
        for name, size in sizes.items():
            if size > self._offsets.get(name, 0):
                found += self._read(name)
        found.sort(key=lambda record: record.ms)
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
        if not whole and len(data) == _AT_ONCE:
            whole = data  # no record is that long
        self._offsets[name] = offset + len(whole)
        return [record for line in whole.split(b"\n") for record in parse(name, line)]
