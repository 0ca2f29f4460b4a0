"""The code that tasks work with, as it was made from the commit, and what of it is not so any more."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from mllaunch_agent import hashing, protocol, system

if TYPE_CHECKING:
    from mllaunch_agent.blobs import BlobLog

__all__ = [
    "SUFFIXES",
    "CodeWatch",
    "Listed",
    "blob_id",
    "blob_id_of",
    "follow",
    "format_tree",
    "listing",
    "look",
    "parse_tree",
    "say_verified",
]

SUFFIXES = (".py", ".pyx", ".pyi", ".sh", ".so", ".c", ".cc", ".cpp", ".cu", ".cuh", ".h", ".hpp")

_BLOCK = 1 << 20
_LOOK_S = 1.0
_SHARE = 40  # of the time that a look takes, the pause after it: a large tree costs no more than a small one
_NAMED = 20

Say = Callable[..., Any]

Key = Tuple[int, int, int, int]
_NEVER: Key = (-1, -1, -1, -1)


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


def format_tree(listed: Mapping[str, Listed]) -> bytes:
    """What ``parse_tree`` reads."""
    return b"".join(
        b"%s %s\t%s\0" % (entry.mode.encode(), entry.blob.encode(), os.fsencode(path))
        for path, entry in listed.items()
    )


def follow(
    watch: "CodeWatch", root: str, say: Say, blobs: "BlobLog", ending: threading.Event, began_ns: int
) -> None:
    """Compare the code in ``root`` to the commit, then look at it again and again until the end."""
    verified = False
    while True:
        is_last = ending.is_set()
        began_s = time.monotonic()
        try:
            look(watch, root, None, say, blobs)
        except OSError:
            return  # the folder itself has gone; what was deleted is found at the end
        if watch.is_verified and not verified:
            verified = True
            say_verified(watch, root, None, say, began_ns)
        if is_last:
            return
        ending.wait(max(_LOOK_S, _SHARE * (time.monotonic() - began_s)))


def look(watch: "CodeWatch", root: str, rank: Optional[int], say: Say, blobs: "BlobLog") -> None:
    """Tell of what has changed since the last look, and keep what it is now. OSError as CodeWatch.look."""
    for change in watch.look(root):
        if change["after"] is not None:
            blobs.keep_file(change["after"], os.path.join(root, change["path"]))
        say(protocol.CODE_CHANGED, rank=rank, **change)


def say_verified(watch: "CodeWatch", root: str, rank: Optional[int], say: Say, began_ns: int) -> None:
    """Tell how the code was when the tasks began: what they have changed since is no difference from the commit.

    began_ns: just before they did, by the clock that file times are taken from.
    """
    differing = [
        path for path in watch.differing() if not _has_changed_since(os.path.join(root, path), began_ns)
    ]
    say(
        protocol.CODE_VERIFIED,
        rank=rank,
        matches=not differing,
        files=len(watch),
        differing=differing[:_NAMED],
    )


def _has_changed_since(path: str, time_ns: int) -> bool:
    """Whether a file was written, or removed from its folder, at that time or later."""
    for place in (path, os.path.dirname(path)):
        try:
            return os.lstat(place).st_ctime_ns >= time_ns
        except OSError:
            continue
    return True


def listing(tree: str, cached: Optional[str]) -> Dict[str, Listed]:
    """The files of a kept tree. cached: a file that holds them once they are known, for the tree never changes; None:
    look at the files themselves."""
    known = system.read_file(cached) if cached is not None else None
    if known is not None:
        return parse_tree(known)
    root = os.fsencode(tree)
    found = {}
    for entry in hashing.walk(root):
        path = os.fsdecode(entry.path)
        blob = blob_id(os.path.join(tree, path))
        if entry.info is not None and blob is not None:
            found[path] = Listed(_mode(entry.info), blob)
    if cached is None:
        return found
    try:
        os.makedirs(os.path.dirname(cached), exist_ok=True)
        system.write_atomic(cached, format_tree(found))
    except OSError:
        pass  # read again next time
    return found


def _mode(info: os.stat_result) -> str:
    """As git writes it."""
    if stat.S_ISLNK(info.st_mode):
        return "120000"
    return "100755" if info.st_mode & 0o100 else "100644"


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

        The first look reads every file. OSError if the folder itself cannot be looked at.
        """
        os.lstat(os.path.join(root, "."))
        found = []
        for path in self._listed:
            place = os.path.join(root, path)
            key = _key(place)
            before = self._keys.get(path, _NEVER)
            self._keys[path] = key
            if key == before:
                continue
            blob = None if key is None else blob_id(place)
            if _key(place) == key:
                found += self.note(path, blob)
            else:
                self._keys.pop(path)  # it is being written: what was read of it never was its content
        return found

    def note(self, path: str, blob: Optional[str]) -> List[Dict[str, Any]]:
        """The change, if this is one: what a file is now."""
        before = self._last.get(path)
        if before == blob:
            return []
        self._last[path] = blob
        return [{"path": path, "before": before, "after": blob}]

    @property
    def is_verified(self) -> bool:
        """Whether every file has been read at least once."""
        return len(self._keys) == len(self._listed)

    def __len__(self) -> int:
        return len(self._listed)

    def differing(self) -> List[str]:
        """The files that are not as they were committed, as last seen."""
        return [path for path, entry in self._listed.items() if self._last[path] != entry.blob]

    def listed(self, path: str) -> Optional[str]:
        """The file of the commit, as git's id; None if there is none."""
        entry = self._listed.get(path)
        return entry.blob if entry else None

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
