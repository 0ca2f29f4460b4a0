"""The code of runs on a node that others send it to: contents once each, and kept trees made of them.

    HOME/contents/ab/cdef...      a file's content by git's id; a name that ends in .x is the same, executable
    HOME/trees/<key>              a complete tree, all of its files hard links to contents; never written to
    HOME/trees/tmp-<pid>-<random> one being made

A tree is named by the SHA-256 of its listing, so its name says what is in it. Nothing is ever altered in place: what is
there is whole, or has another name.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import Dict, Iterable, List

from mllaunch_agent import codewatch, system

__all__ = ["CodeKeeping", "Damaged", "key_of"]

_LINK = "120000"
_EXECUTABLE = "100755"


class Damaged(Exception):
    """What was sent is not what it was said to be; nothing of it is kept."""


def key_of(listing: bytes) -> str:
    """Names a tree by the text that codewatch.format_tree gives."""
    return hashlib.sha256(listing).hexdigest()


class CodeKeeping:
    def __init__(self, home: str) -> None:
        self._contents = os.path.join(home, "contents")
        self._trees = os.path.join(home, "trees")

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

    def sweep(self, keep: Iterable[str]) -> None:
        """Remove the trees that are not to be kept, and the contents that no tree has any more."""
        kept = set(keep)
        for name in _listed(self._trees):
            if name not in kept:
                shutil.rmtree(os.path.join(self._trees, name), ignore_errors=True)
        for folder in _listed(self._contents):
            for name in _listed(os.path.join(self._contents, folder)):
                place = os.path.join(self._contents, folder, name)
                if os.stat(place).st_nlink == 1:
                    os.unlink(place)

    def _fill(self, root: str, listed: Dict[str, codewatch.Listed]) -> None:
        made = {root}
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
                os.link(self._ready(entry), place)

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


def _listed(folder: str) -> List[str]:
    try:
        return sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
