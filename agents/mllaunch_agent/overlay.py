"""An overlay mount as a task's checkout: made without a copy, turned into plain files afterwards.

What the kernel writes into the upper folder is specified in Documentation/filesystems/overlayfs.rst:
a deleted name is a character device 0/0 (whiteout); a folder that hides the one below has the attribute
``trusted.overlay.opaque=y``; a renamed folder has ``trusted.overlay.redirect`` with its old place, and keeps
its files below.

No user namespace is used to gain the right to mount: inside one, the job would see other owners of files and
lose set-user-ID programs, so it would not be the job that was submitted.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import time
from typing import Iterator, List, NamedTuple, Optional, Set, Tuple

from mllaunch_agent import system

__all__ = ["Plan", "is_mount_point", "mount", "mounts_in", "remove_empty", "settle", "survey", "unmount"]

CAP_SYS_ADMIN = 21
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
BUSY_RETRIES = 20  # of 10 ms: a process that was just killed may still be closing its files

# redirect_dir: rename(2) of a folder of the snapshot works, as anywhere. metacopy: chmod would leave a file
# without its content in the upper folder. index: would tie a tree to a single mount at a time.
OPTIONS = "redirect_dir=on,metacopy=off,index=off"
PREFIX = "trusted.overlay."


class Plan(NamedTuple):
    """What turns an upper folder into plain files."""

    deleted: List[str]  # files and symlinks of the tree that the tasks removed, relative, sorted
    moved: List[Tuple[str, str]]  # (place in the tree, place in the upper folder): files of renamed folders
    changed: int  # files and symlinks that will be there in the end


def mount(tree: str, upper: str, scratch: str, target: str) -> bool:
    """Mount ``tree`` with ``upper`` over it on ``target``; False where that can't be done."""
    if not _may_mount() or not _writable_as_checked_out(tree) or not _holds_attributes(upper):
        return False
    fds: List[int] = []
    try:
        for path in (tree, upper, scratch, target):
            fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW))
        # Named by descriptor, a path may hold every byte: no comma, colon or backslash needs escaping.
        lower, above, area, place = ("/proc/self/fd/%d" % fd for fd in fds)
        options = "lowerdir=%s,upperdir=%s,workdir=%s,%s" % (lower, above, area, OPTIONS)
        code: int = system.libc().mount(b"mllaunch", place.encode(), b"overlay", 0, options.encode())
        return code == 0
    except OSError:
        return False
    finally:
        for fd in fds:
            os.close(fd)


def unmount(target: str) -> bool:
    """Unmount; True when processes still use it, so that it could only be detached."""
    libc = system.libc()
    for attempt in range(BUSY_RETRIES + 1):
        if libc.umount2(os.fsencode(target), UMOUNT_NOFOLLOW) == 0:
            return False
        if ctypes.get_errno() != errno.EBUSY:
            break
        if attempt < BUSY_RETRIES:
            time.sleep(0.01)
    if libc.umount2(os.fsencode(target), UMOUNT_NOFOLLOW | MNT_DETACH) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), target)
    return True


def is_mount_point(path: str) -> bool:
    try:
        return os.lstat(path).st_dev != os.lstat(os.path.dirname(path)).st_dev
    except OSError:
        return False


def mounts_in(folder: str) -> List[str]:
    """Mount points inside ``folder``. Bind mounts show in proc_pid_mountinfo(5) alone."""
    prefix = os.fsencode(os.path.realpath(folder)) + b"/"
    found = []
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            place = line.split(b" ", 5)[4]
            for byte in b" \t\n\\":
                place = place.replace(b"\\%03o" % byte, bytes([byte]))
            if place.startswith(prefix):
                found.append(os.fsdecode(place))
    return found


def _may_mount() -> bool:
    try:
        with open("/proc/self/status", "rb") as file:
            for line in file:
                if line.startswith(b"CapEff:"):
                    return bool(int(line.split()[1], 16) >> CAP_SYS_ADMIN & 1)
    except (OSError, ValueError):
        pass
    return False


def _writable_as_checked_out(tree: str) -> bool:
    """Whether the tree's files have the modes of a checkout, for an overlay shows them as they are."""
    for folder, _, names in os.walk(tree):
        for name in names:
            mode = os.lstat(os.path.join(folder, name)).st_mode
            if stat.S_ISREG(mode):
                return bool(mode & stat.S_IWUSR)
    return True


def _holds_attributes(upper: str) -> bool:
    """Without trusted attributes a file system may be an upper folder, but renames go wrong."""
    try:
        os.setxattr(upper, "trusted.mllaunch", b"y")
        os.removexattr(upper, "trusted.mllaunch")
    except OSError:
        return False
    return True


# ---- what is in an upper folder, read only


def survey(upper: str, tree: str) -> Plan:
    """Compare an unmounted upper folder with its tree. Changes nothing."""
    found = _Survey(upper, tree)
    while found.todo:
        found.folder(*found.todo.pop())
    deleted = sorted(found.deleted - {place for _, place in found.moved}, key=os.fsencode)
    return Plan(deleted, found.moved, found.changed + len(found.moved))


class _Survey:
    def __init__(self, upper: str, tree: str) -> None:
        self.upper = upper
        self.tree = tree
        self.deleted: Set[str] = set()
        self.moved: List[Tuple[str, str]] = []
        self.changed = 0
        self.todo: List[Tuple[str, Optional[str]]] = [("", "")]

    def folder(self, rel: str, lower: Optional[str]) -> None:
        """``rel`` of the upper folder shows the tree's ``lower`` beneath it (None: nothing)."""
        in_place = lower == rel
        seen = set()
        for entry in sorted(os.scandir(os.path.join(self.upper, rel)), key=_name):
            seen.add(entry.name)
            path = os.path.join(rel, entry.name)
            below = None if lower is None else os.path.join(lower, entry.name)
            if entry.is_dir(follow_symlinks=False):
                self._subfolder(entry.path, path, lower, below)
                continue
            shown = not _is_whiteout(entry)
            self.changed += shown
            if in_place:
                self.deleted.update(p for p in _files(self.tree, path) if not (shown and p == path))
        if lower is not None and not in_place:
            for name in sorted(_names(os.path.join(self.tree, lower)) - seen):
                below = os.path.join(lower, name)
                self.moved.extend(
                    (p, os.path.join(rel, name) + p[len(below) :]) for p in _files(self.tree, below)
                )

    def _subfolder(self, real: str, path: str, lower: Optional[str], below: Optional[str]) -> None:
        redirect = _attribute(real, "redirect")
        if redirect is not None:
            target = os.fsdecode(redirect)
            source = target[1:] if target.startswith("/") else os.path.join(lower or "", target)
        elif _attribute(real, "opaque") is not None or below is None:
            source = None
        else:
            source = below
        if source is not None and not _is_folder(os.path.join(self.tree, source)):
            source = None
        if source != path:
            # What the tree has in this place is hidden, unless the upper folder shows the same name.
            self.deleted.update(p for p in _files(self.tree, path) if not _shows(self.upper, p))
        self.todo.append((path, source))


def _name(entry: os.DirEntry[str]) -> str:
    return entry.name


def _names(folder: str) -> Set[str]:
    try:
        return set(os.listdir(folder))
    except OSError:
        return set()


def _is_folder(path: str) -> bool:
    return os.path.isdir(path) and not os.path.islink(path)


def _is_whiteout(entry: os.DirEntry[str]) -> bool:
    if entry.is_file(follow_symlinks=False) or entry.is_symlink():
        return False
    info = entry.stat(follow_symlinks=False)
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def _shows(upper: str, path: str) -> bool:
    try:
        info = os.lstat(os.path.join(upper, path))
    except OSError:
        return False
    return not stat.S_ISDIR(info.st_mode) and not (stat.S_ISCHR(info.st_mode) and info.st_rdev == 0)


def _files(tree: str, path: str) -> Iterator[str]:
    """All files and symlinks of the tree at and under ``path``, relative to the tree."""
    todo = [path]
    while todo:
        path = todo.pop()
        real = os.path.join(tree, path)
        if _is_folder(real):
            todo.extend(os.path.join(path, name) for name in os.listdir(real))
        elif os.path.lexists(real):
            yield path


def _attribute(path: str, name: str) -> Optional[bytes]:
    try:
        return os.getxattr(path, PREFIX + name, follow_symlinks=False)
    except OSError:
        return None


# ---- and made into plain files


def settle(upper: str, tree: str, moved: List[Tuple[str, str]]) -> None:
    """Bring in the files of renamed folders, then remove every marker. Safe to repeat."""
    from mllaunch_agent import treecopy

    for source, place in moved:
        treecopy.copy_one(os.path.join(tree, source), os.path.join(upper, place))
    for folder, _, names in os.walk(upper):
        _clear(folder)
        for name in names:
            path = os.path.join(folder, name)
            info = os.lstat(path)
            if stat.S_ISCHR(info.st_mode) and info.st_rdev == 0:
                os.unlink(path)
            else:
                _clear(path)


def _clear(path: str) -> None:
    try:
        for name in os.listxattr(path, follow_symlinks=False):
            if name.startswith(PREFIX):
                os.removexattr(path, name, follow_symlinks=False)
    except OSError:
        pass  # an attribute that stays harms nobody: it means something in an overlay only


def remove_empty(folder: str, tree: str) -> None:
    """Remove empty folders that the tree has too: the kernel made them on the way to a changed file."""
    for path, _, _ in os.walk(folder, topdown=False):
        rel = os.path.relpath(path, folder)
        if rel != "." and _is_folder(os.path.join(tree, rel)):
            try:
                os.rmdir(path)
            except OSError:
                pass  # not empty
