"""The code that tasks work with, as it was made from the commit, and what of it is not so any more."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

__all__ = ["CodeWatch", "Listed", "blob_id", "blob_id_of", "parse_tree"]

_BLOCK = 1 << 20

Key = Tuple[int, int, int, int]


class Listed(NamedTuple):
    """A file of the code as it was built into the image. blob: git's id of its content."""

    mode: str
    blob: str


def parse_tree(text: bytes) -> Dict[str, Listed]:
    """By path, what an image says of its code: ``MODE BLOB\\tPATH`` records, each ended by a NUL."""
    found = {}
    for record in text.split(b"\0"):
        meta, tab, path = record.partition(b"\t")
        words = meta.decode("ascii", "replace").split(" ")
        if tab and len(words) == 2:
            found[os.fsdecode(path)] = Listed(words[0], words[1])
    return found


def blob_id(path: str) -> Optional[str]:
    """What git would name the content of a file or symbolic link; None if there is none or it may not be read."""
    try:
        if os.path.islink(path):
            target = os.fsencode(os.readlink(path))
            return blob_id_of(target)
        # Of what a task may have put there a pipe would keep us waiting.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                return None
            total = hashlib.sha1(b"blob %d\0" % info.st_size)
            while True:
                block = file.read(_BLOCK)
                if not block:
                    return total.hexdigest()
                total.update(block)
    except OSError:
        return None


def blob_id_of(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%s" % (len(content), content)).hexdigest()


class CodeWatch:
    """Notices when a file of the code is not what it was. Polled: a change is seen once, with what it was before.

    listed: the code as it was built. seen: path -> blob id, of changes that are on record already.
    """

    def __init__(self, listed: Dict[str, Listed], seen: Mapping[str, Optional[str]]) -> None:
        self._listed = listed
        self._last: Dict[str, Optional[str]] = {path: entry.blob for path, entry in listed.items()}
        self._last.update(seen)
        self._keys: Dict[str, Optional[Key]] = {}

    def look(self, root: str) -> List[Dict[str, Any]]:
        """The changes since the last look: [{"path", "before", "after"}]. root: the code's folder.

        OSError if the folder itself cannot be looked at. The first look takes times and sizes for what they are.
        """
        os.lstat(os.path.join(root, "."))
        found = []
        first = not self._keys
        for path in self._listed:
            place = os.path.join(root, path)
            key = _key(place)
            before = self._keys.get(path)
            self._keys[path] = key
            if first or key == before:
                continue
            blob = None if key is None else blob_id(place)
            if _key(place) == key:
                found += self.note(path, blob)
            else:
                self._keys[path] = before  # it is being written: what was read of it never was its content
        return found

    def note(self, path: str, blob: Optional[str]) -> List[Dict[str, Any]]:
        """The change, if this is one: what a file is now."""
        before = self._last.get(path)
        if before == blob:
            return []
        self._last[path] = blob
        return [{"path": path, "before": before, "after": blob}]

    def known(self, paths: Iterable[str]) -> List[str]:
        """Those of the paths that are files of the code; also those below a path."""
        wanted = set(paths)
        return [path for path in self._listed if path in wanted or not wanted.isdisjoint(_above(path))]


def _above(path: str) -> List[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _key(path: str) -> Optional[Key]:
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns
