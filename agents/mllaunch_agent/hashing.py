"""Walking folders and hashing files that others may be writing: every file is read whole, or said to be torn."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from typing import Callable, Dict, Iterator, NamedTuple, Optional, Tuple

__all__ = ["Digests", "Entry", "Hashed", "key_of", "sha256_of", "text", "walk"]

_BLOCK = 1 << 20
_TRIES = 3

Key = Tuple[int, int, int, int, int]  # device, inode, size, mtime_ns, ctime_ns

# Why a name has no digest.
TORN = "torn"
UNREADABLE = "unreadable"
VANISHED = "vanished"


class Entry(NamedTuple):
    path: bytes  # relative to the folder that was walked
    info: Optional[os.stat_result]  # not following links; None: a folder that could not be read


class Hashed(NamedTuple):
    """A file's digest and the stat that it belongs to; or why there is none."""

    info: Optional[os.stat_result]
    sha256: Optional[str]
    problem: Optional[str]


def key_of(info: os.stat_result) -> Key:
    """Changes with every change of the content: an edit that restores size, mtime and inode still moves ctime."""
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns


def text(name: bytes) -> str:
    """A file name as JSON carries it: UTF-8, where bytes that aren't become lone surrogates, written ``\\udcXX``."""
    return name.decode("utf-8", "surrogateescape")


def walk(root: bytes, skip: Callable[[bytes], bool] = lambda path: False) -> Iterator[Entry]:
    """Everything in a folder but the folders themselves, sorted by the bytes of the path; links aren't followed.

    ``skip(path)`` leaves a name out with all beneath it. A folder counts as ``name/`` in the order, so that sorting
    each folder by itself sorts the whole.
    """
    todo = [b""]
    while todo:
        path = todo.pop()
        if path and not path.endswith(b"/"):
            try:
                yield Entry(path, os.lstat(os.path.join(root, path)))
            except FileNotFoundError:
                pass
            except OSError:
                yield Entry(path, None)
            continue
        try:
            with os.scandir(os.path.join(root, path)) as entries:
                names = [e.name + b"/" if e.is_dir(follow_symlinks=False) else e.name for e in entries]
        except FileNotFoundError:
            continue
        except OSError:
            yield Entry(path, None)
            continue
        names.sort(reverse=True)
        todo.extend(path + name for name in names if not skip(path + name))


def sha256_of(path: bytes) -> Hashed:
    """Hash a regular file; when it changes meanwhile, again, and after three times it is torn. Never blocks."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Hashed(None, None, VANISHED)
    except OSError:
        return Hashed(None, None, UNREADABLE)
    try:
        for _ in range(_TRIES):
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                return Hashed(before, None, UNREADABLE)
            os.lseek(fd, 0, os.SEEK_SET)
            digest = _digest(fd, before.st_size)
            after = os.fstat(fd)
            if digest is not None and key_of(before) == key_of(after):
                return Hashed(after, digest, None)
        return Hashed(after, None, TORN)
    except OSError:
        return Hashed(None, None, UNREADABLE)
    finally:
        os.close(fd)


class Digests:
    """Digests of files that were read before, for as long as nothing about them has changed."""

    _MOST = 50_000
    _SETTLED_NS = (
        50 * 1000 * 1000
    )  # what is written within a clock tick of the last change does not move ctime

    def __init__(self) -> None:
        self._known: Dict[Key, str] = {}

    def of(self, path: bytes) -> Hashed:
        """As sha256_of."""
        try:
            info = os.lstat(path)
        except OSError:
            return sha256_of(path)
        known = self._known.get(key_of(info))
        if known is not None and stat.S_ISREG(info.st_mode):
            return Hashed(info, known, None)
        hashed = sha256_of(path)
        if hashed.sha256 is not None and hashed.info is not None and self._may_keep(hashed.info):
            self._known[key_of(hashed.info)] = hashed.sha256
        return hashed

    def _may_keep(self, info: os.stat_result) -> bool:
        settled_ns = time.time_ns() - self._SETTLED_NS
        return len(self._known) < self._MOST and max(info.st_mtime_ns, info.st_ctime_ns) < settled_ns


def _digest(fd: int, size: int) -> Optional[str]:
    """Of the first ``size`` bytes and no more: a file that grows for ever must not be read for ever."""
    sha256 = hashlib.sha256()
    while size > 0:
        block = os.read(fd, min(size, _BLOCK))
        if not block:
            return None
        sha256.update(block)
        size -= len(block)
    return sha256.hexdigest()
