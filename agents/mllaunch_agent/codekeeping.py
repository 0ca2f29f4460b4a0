"""The code of runs on a node that others send it to: contents once each, and kept trees made of them.

    HOME/contents/ab/cdef...      a file's content by git's id; a name that ends in .x is the same, executable
    HOME/trees/<key>              a complete tree, all of its files hard links to contents; never written to
    HOME/trees/tmp-<pid>-<random> one being made

A tree is named by the SHA-256 of its listing, so its name says what is in it. Nothing is ever altered in place: what is
there is whole, or has another name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from typing import Dict, List, Optional

from mllaunch_agent import codewatch, system

__all__ = ["CodeKeeping", "Damaged", "key_of", "lock_path"]

_LINK = "120000"
_EXECUTABLE = "100755"


class Damaged(Exception):
    """What was sent is not what it was said to be; nothing of it is kept."""


def key_of(listing: bytes) -> str:
    """Names a tree by the text that codewatch.format_tree gives."""
    return hashlib.sha256(listing).hexdigest()


def lock_path(home: str) -> str:
    """Shared by those who rely on what is here, taken by who removes what nothing uses."""
    return os.path.join(home, "code.lock")


class CodeKeeping:
    def __init__(self, home: str) -> None:
        self._lock_path = lock_path(home)
        self._lock: Optional[int] = None
        self._contents = os.path.join(home, "contents")
        self._trees = os.path.join(home, "trees")

    def hold(self) -> None:
        """Keep everything from being removed until ``let_go``, or the end of this process."""
        if self._lock is None:
            self._lock = system.share_lock(self._lock_path)

    def let_go(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def tree(self, key: str) -> str:
        """Where a tree is, or would be. ValueError if this cannot be the name of one."""
        if len(key) != 64 or set(key) - set("0123456789abcdef"):
            raise ValueError("not the name of a tree: %r" % key[:80])
        return os.path.join(self._trees, key)

    def has(self, key: str) -> bool:
        place = self.tree(key)
        if not os.path.isdir(place):
            return False
        os.utime(place)  # by which the least used is found
        return True

    def lacking(self, listing: bytes) -> List[str]:
        """Ids of the contents that are not here; each once."""
        ids = {entry.blob for entry in codewatch.parse_tree(listing).values()}
        return sorted(blob for blob in ids if not os.path.exists(self._place(blob, False)))

    def keep(self, blob: str, content: bytes) -> None:
        """Raises Damaged, OSError."""
        if codewatch.blob_id_of(content) != blob:
            raise Damaged("the content of %s was damaged on its way" % blob)
        place = self._place(blob, False)
        os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
        system.write_atomic(place, content)
        os.chmod(place, 0o644)

    def keep_part(self, blob: str, offset: int, content: bytes) -> None:
        """Likewise, in several parts: of a file that is too large to be sent at once."""
        os.makedirs(self._contents, mode=0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if offset == 0 else 0)
        fd = os.open(self._part(blob), flags, 0o600)
        try:
            os.lseek(fd, offset, os.SEEK_SET)
            system.write_all(fd, content)
        finally:
            os.close(fd)

    def keep_whole(self, blob: str) -> None:
        """All parts are here."""
        part = self._part(blob)
        if codewatch.blob_id(part) != blob:
            os.unlink(part)
            raise Damaged("the content of %s was damaged on its way" % blob)
        place = self._place(blob, False)
        os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
        os.chmod(part, 0o644)
        os.rename(part, place)

    def _part(self, blob: str) -> str:
        self._place(blob, False)  # refuses what is no name
        return os.path.join(self._contents, "part-%s-%d" % (blob, os.getpid()))

    def make(self, key: str, listing: bytes) -> None:
        """Make a tree of contents that are all here. Raises Damaged, OSError; then nothing is there of it."""
        if key_of(listing) != key:
            raise Damaged("the listing of the code was damaged on its way")
        final = self.tree(key)
        if os.path.isdir(final):
            return
        os.makedirs(self._trees, mode=0o700, exist_ok=True)
        temporary = os.path.join(self._trees, "tmp-%d-%s" % (os.getpid(), os.urandom(8).hex()))
        os.mkdir(temporary)
        try:
            self._fill(temporary, codewatch.parse_tree(listing))
            try:
                os.rename(temporary, final)
            except OSError:
                if not os.path.isdir(final):  # else somebody else was first, with the same files
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _fill(self, root: str, listed: Dict[str, codewatch.Listed]) -> None:
        made = {root}
        _refuse_files_as_folders(listed)
        for path, entry in listed.items():
            if not all(part not in ("", ".", "..") for part in path.split("/")):
                raise Damaged("not a plain relative path: %r" % path)
            place = os.path.join(root, path)
            folder = os.path.dirname(place)
            if folder not in made:
                os.makedirs(folder, exist_ok=True)
                made.add(folder)
            if entry.mode == _LINK:
                with open(self._place(entry.blob, False), "rb") as file:
                    os.symlink(file.read(), os.fsencode(place))
            else:
                self._link(entry, place)

    def _link(self, entry: codewatch.Listed, place: str) -> None:
        content = self._ready(entry)
        try:
            os.link(content, place)
        except OSError as error:
            if error.errno != errno.EMLINK:
                raise
            shutil.copy(
                content, place
            )  # so many trees have it, such as an empty file, that it can have no more names

    def _ready(self, entry: codewatch.Listed) -> str:
        """The content with the mode that it has in a tree: links to one file share it."""
        plain = self._place(entry.blob, False)
        if entry.mode != _EXECUTABLE:
            return plain
        place = self._place(entry.blob, True)
        if not os.path.exists(place):
            with open(plain, "rb") as file:
                system.write_atomic(place, file.read())
            os.chmod(place, 0o755)
        return place

    def _place(self, blob: str, executable: bool) -> str:
        if not blob or set(blob) - set("0123456789abcdef"):
            raise ValueError("not the name of a content: %r" % blob[:80])
        return os.path.join(self._contents, blob[:2], blob[2:] + (".x" if executable else ""))


def _refuse_files_as_folders(listed: Dict[str, codewatch.Listed]) -> None:
    """Below a symbolic link there is another folder than the tree's."""
    for path in listed:
        parts = path.split("/")
        for count in range(1, len(parts)):
            if "/".join(parts[:count]) in listed:
                raise Damaged("%r is below a file, which is no folder" % path)
