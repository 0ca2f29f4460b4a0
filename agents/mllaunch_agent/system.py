"""Small calls to the operating system that several parts of the agent need."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import time
from typing import Optional

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2), since Linux 3.4
_FALLOC_FL_KEEP_SIZE = 1  # fallocate(2)
_FALLOC_FL_PUNCH_HOLE = 2


def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def now() -> str:
    """Wall time, RFC 3339 in UTC with milliseconds."""
    t = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(t)) + ".%03dZ" % int(t % 1 * 1000)


def boot_s() -> float:
    """Seconds since boot, counting sleep; no change of the clock moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def boot_id() -> str:
    """Names this boot of this machine; "" where the kernel does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as f:
            return f.read().strip()
    except OSError:
        return ""


def become_subreaper() -> bool:
    """Orphaned descendants become children of this process, so that it can collect their exit codes."""
    return bool(libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def try_lock(path: str) -> Optional[int]:
    """Lock a file for as long as the returned descriptor (or a copy in a child) is open; None if another holds it.

    The kernel frees the lock when its holder is gone, however it went, so a lock is never stale.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        os.close(fd)
        if e.errno in (errno.EAGAIN, errno.EACCES):
            return None
        raise
    return fd


def is_locked(path: str) -> bool:
    """Whether a living process holds the lock. Asks with a shared lock, so askers do not disturb each other."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except OSError as e:
        return e.errno in (errno.EAGAIN, errno.EACCES)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes) -> None:
    """os.write until all is written; OSError (ENOSPC, EIO) as it comes."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_atomic(path: str, data: bytes, durable: bool = False) -> None:
    """Make the file appear whole or not at all; with ``durable`` it survives a power cut once this returns."""
    temporary = "%s.%d.tmp" % (path, os.getpid())
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, data)
        if durable:
            os.fsync(fd)
    except BaseException:
        os.unlink(temporary)
        raise
    finally:
        os.close(fd)
    os.rename(temporary, path)
    if durable:
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def read_file(path: str) -> Optional[bytes]:
    """The whole file, or None if it is not there."""
    try:
        with open(path, "rb") as f:
            return f.read()
    except FileNotFoundError:
        return None


def reserve(fd: int, offset: int, size: int) -> None:
    """Give a file blocks for [offset, offset + size) without changing its length; OSError when there are none."""
    _fallocate(fd, _FALLOC_FL_KEEP_SIZE, offset, size)


def punch(fd: int, offset: int, size: int) -> None:
    """Free the blocks of [offset, offset + size); the range then reads as zeros and the length stays."""
    _fallocate(fd, _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE, offset, size)


def _fallocate(fd: int, mode: int, offset: int, size: int) -> None:
    call = libc().fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(fd, mode, offset, size) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
