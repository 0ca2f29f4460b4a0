"""A copy of a tree as a task's checkout, and which of its files the task then changed.

An index remembers every file as it was made: JSON lines, one per folder, parents first:
``[folder, [[name, size, mtime_ns, ctime_ns, inode, mode], ...], [subfolder, ...]]``.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

__all__ = ["Status", "WorkdirError", "compare", "copy", "copy_one", "strip"]

FICLONE = 0x40049409  # linux/fs.h
SMALL_BYTES = 256 * 1024  # up to here one read and one write cost less than a copy inside the kernel
# A change within the clock tick (at most 10 ms) in which the index was written may leave all times equal.
RACY_NS = 20 * 1000 * 1000

SAME = "same"
CHANGED = "changed"
NEW = "new"
DELETED = "deleted"


class WorkdirError(OSError):
    """A checkout could not be made or released; the message is one line for the user."""


class Status(NamedTuple):
    path: str  # relative to the work folder
    what: str  # SAME, CHANGED, NEW or DELETED


class _Copier:
    """Copies file contents, sharing bytes where the file system can: decided once, by trying."""

    def __init__(self) -> None:
        self.shares: Optional[bool] = None

    def file(self, source: str, target: str) -> os.stat_result:
        src = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            before = os.fstat(src)
            mode = 0o777 if before.st_mode & stat.S_IXUSR else 0o666  # as git checks out; umask applies
            dst = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
            try:
                self._content(src, dst, before.st_size)
                return os.fstat(dst)
            finally:
                os.close(dst)
        finally:
            os.close(src)

    def _content(self, src: int, dst: int, size: int) -> None:
        if size == 0 or (self.shares is not False and self._share(src, dst)):
            return
        if size <= SMALL_BYTES:
            data = os.read(src, size)
            if len(data) == size and os.write(dst, data) == size:
                return
            os.lseek(src, 0, os.SEEK_SET)
            os.lseek(dst, 0, os.SEEK_SET)
        copied = 0
        while copied < size:
            sent = os.sendfile(dst, src, copied, min(size - copied, 1 << 30))
            if sent == 0:
                raise WorkdirError("a file of the kept tree became shorter while it was copied")
            copied += sent

    def _share(self, src: int, dst: int) -> bool:
        import fcntl

        try:
            fcntl.ioctl(dst, FICLONE, src)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise
            self.shares = False
            return False
        self.shares = True
        return True


def copy(tree: str, work: str, index: str) -> str:
    """Copy ``tree`` into the empty folder ``work`` and write ``index``; returns "reflink" or "copy".

    Regular files become 0644 or 0755 less the umask, symlinks are kept as they are. Anything else in the tree
    raises WorkdirError.
    """
    copier = _Copier()
    encode = json.JSONEncoder(separators=(",", ":")).encode
    with open(index, "w", encoding="ascii") as out:
        folders = [""]
        while folders:
            rel = folders.pop()
            rows, subfolders = _copy_folder(copier, os.path.join(tree, rel), os.path.join(work, rel))
            out.write(encode([rel, rows, subfolders]) + "\n")
            folders.extend(os.path.join(rel, name) for name in subfolders)
    return "reflink" if copier.shares else "copy"


def _copy_folder(copier: _Copier, source: str, target: str) -> Tuple[List[List[Any]], List[str]]:
    rows: List[List[Any]] = []
    subfolders: List[str] = []
    prefix = os.path.join(target, "")
    with os.scandir(source) as entries:
        for entry in entries:
            name = entry.name
            if entry.is_file(follow_symlinks=False):
                info = copier.file(entry.path, prefix + name)
            elif entry.is_dir(follow_symlinks=False):
                os.mkdir(prefix + name)
                subfolders.append(name)
                continue
            elif entry.is_symlink():
                os.symlink(os.readlink(entry.path), prefix + name)
                info = os.lstat(prefix + name)
            else:
                raise WorkdirError("the kept tree holds a special file: %r" % entry.path)
            rows.append([name, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino, info.st_mode])
    return rows, subfolders


def copy_one(source: str, target: str) -> None:
    """Copy one file or symlink durably, all or nothing; what is there already stays."""
    if os.path.lexists(target):
        return
    os.makedirs(os.path.dirname(target), exist_ok=True)
    part = target + ".mllaunch-part"
    if os.path.lexists(part):
        os.unlink(part)
    if os.path.islink(source):
        os.symlink(os.readlink(source), part)
    else:
        _Copier().file(source, part)
        fd = os.open(part, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
    os.rename(part, target)


def compare(tree: str, work: str, index: str) -> Iterator[Status]:
    """What became of every file. A folder which a task replaced by a link is never entered."""
    if not os.path.exists(index):  # a task may remove even our files: then all there is counts as written
        for found in _new(work, ""):
            yield found
        return
    indexed_ns = os.stat(index).st_mtime_ns
    device = os.lstat(work).st_dev
    gone: Set[str] = set()
    with open(index, encoding="ascii") as lines:
        for line in lines:
            rel, rows, subfolders = json.loads(line)
            if rel and os.path.dirname(rel) in gone:
                gone.add(rel)
            entries = None if rel in gone else _entries(os.path.join(work, rel))
            if entries is None:
                gone.add(rel)
                for row in rows:
                    yield Status(os.path.join(rel, row[0]), DELETED)
                continue
            known = {row[0] for row in rows}
            for row in rows:
                path = os.path.join(rel, row[0])
                yield Status(
                    path, _judge(entries.get(row[0]), row, os.path.join(tree, path), device, indexed_ns)
                )
            for name, entry in entries.items():
                is_folder = entry.is_dir(follow_symlinks=False)
                if is_folder and name not in subfolders:
                    for found in _new(work, os.path.join(rel, name)):
                        yield found
                elif not is_folder and name not in known:
                    yield Status(os.path.join(rel, name), NEW)


def strip(tree: str, work: str, index: str) -> None:
    """Remove what is unchanged, and the tree's folders that are then empty. Safe to repeat."""
    for status in compare(tree, work, index):
        if status.what == SAME:
            _unlink(os.path.join(work, status.path))
    if not os.path.exists(index):
        return
    with open(index, encoding="ascii") as lines:
        folders = [json.loads(line)[0] for line in lines]
    for rel in sorted(folders[1:], key=len, reverse=True):
        if os.path.realpath(os.path.join(work, rel)) == os.path.join(os.path.realpath(work), rel):
            try:
                os.rmdir(os.path.join(work, rel))
            except OSError:
                pass  # a task's files are in it


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass  # a task took the right to write this folder away: an unchanged file may stay


def _entries(folder: str) -> Optional[Dict[str, os.DirEntry[str]]]:
    try:
        if not stat.S_ISDIR(os.lstat(folder).st_mode):
            return None
        with os.scandir(folder) as entries:
            return {entry.name: entry for entry in entries}
    except OSError:
        return None


def _judge(entry: Optional[os.DirEntry[str]], row: List[Any], kept: str, device: int, indexed_ns: int) -> str:
    if entry is None or entry.is_dir(follow_symlinks=False):
        return DELETED
    try:
        info = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return DELETED
    _, size, mtime_ns, ctime_ns, inode, mode = row
    if (info.st_size, info.st_mtime_ns, info.st_mode) != (size, mtime_ns, mode) or info.st_dev != device:
        return CHANGED
    if (info.st_ctime_ns, info.st_ino) == (ctime_ns, inode) and ctime_ns < indexed_ns - RACY_NS:
        return SAME
    return SAME if _equal(entry.path, kept) else CHANGED


def _equal(path: str, kept: str) -> bool:
    try:
        if os.path.islink(path) or os.path.islink(kept):
            return os.readlink(path) == os.readlink(kept)
        with open(path, "rb") as one, open(kept, "rb") as other:
            while True:
                block = one.read(1 << 20)
                if block != other.read(1 << 20):
                    return False
                if not block:
                    return True
    except OSError:
        return False  # in doubt it stays


def _new(work: str, rel: str) -> Iterator[Status]:
    for folder, subfolders, names in os.walk(os.path.join(work, rel)):
        links = [name for name in subfolders if os.path.islink(os.path.join(folder, name))]
        for name in names + links:
            yield Status(os.path.relpath(os.path.join(folder, name), work), NEW)
