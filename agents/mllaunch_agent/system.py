"""Small calls to the operating system that several parts of the agent need."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import time
from typing import TYPE_CHECKING, Container, NamedTuple, Optional

if TYPE_CHECKING:
    import ctypes

_PR_SET_CHILD_SUBREAPER = 36  # prctl(2), since Linux 3.4
_FALLOC_FL_KEEP_SIZE = 1  # fallocate(2)
_FALLOC_FL_PUNCH_HOLE = 2
_F_OFD_GETLK = 36  # the constants of module fcntl came with Python 3.9
_F_OFD_SETLK = 37
_F_OFD_SETLKW = 38
_STRUCT_FLOCK = "hhqqi4x"  # type, whence, start, length, pid: the same on every 64-bit Linux
_WHOLE_FILE = struct.pack(_STRUCT_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
_WHOLE_FILE_SHARED = struct.pack(_STRUCT_FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
_SYS_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_SYS_WAITID = {"x86_64": 247, "aarch64": 95}


class Exit(NamedTuple):
    """How a process ended, and what it has used where the kernel told. status is wait(2)'s."""

    status: int
    cpu_s: Optional[float]
    max_rss_bytes: Optional[int]


def libc() -> ctypes.CDLL:
    import ctypes  # not for the launcher, which only asks about locks

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


def lower_io_priority() -> None:
    """Let this thread have the disk only when nobody else wants it: ioprio_set(2), the class IDLE."""
    number = _SYS_IOPRIO_SET.get(os.uname().machine)
    if number is not None:
        libc().syscall(number, 1, 0, 3 << 13)


def become_subreaper() -> bool:
    """Orphaned descendants become children of this process, so that it can collect their exit codes."""
    return bool(libc().prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def try_lock(path: str) -> Optional[int]:
    """Lock a file for as long as the returned descriptor (or a copy in a child) is open; None if another holds it.

    The kernel frees the lock when its holder is gone, however it went, so a lock is never stale. It belongs to the
    open file description (fcntl_locking(2)) like that of flock(2), which however cannot be asked for without being
    taken: a command that only looked would keep a supervisor from the lock, and its run from starting.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.fcntl(fd, _F_OFD_SETLK, _WHOLE_FILE)
    except OSError as e:
        os.close(fd)
        if e.errno in (errno.EAGAIN, errno.EACCES):
            return None
        raise
    return fd


def share_lock(path: str) -> int:
    """Keep others from locking a file, beside any number of those who share it so; waits for who has locked it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.fcntl(fd, _F_OFD_SETLKW, _WHOLE_FILE_SHARED)
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_locked(path: str) -> bool:
    """Whether a living process holds the lock. Asking takes nothing, so it disturbs nobody."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        answer = fcntl.fcntl(fd, _F_OFD_GETLK, _WHOLE_FILE)
        return bool(struct.unpack(_STRUCT_FLOCK, answer)[0] != fcntl.F_UNLCK)
    finally:
        os.close(fd)


def peek_exit(pid: int) -> Optional[Exit]:
    """How a child of ours ended, None while it lives; it stays a zombie, for whoever must still read the same.

    ChildProcessError if it is no child of ours.
    """
    import ctypes

    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    exited = found.si_code == os.CLD_EXITED
    status = found.si_status << 8 if exited else found.si_status
    number = _SYS_WAITID.get(os.uname().machine)
    usage = (ctypes.c_long * 18)()  # struct rusage: two times of two words each, then ru_maxrss
    # The C library's waitid(3) leaves out the kernel's fifth argument, which tells what the child has used.
    options = os.WEXITED | os.WNOHANG | os.WNOWAIT
    if number is None or libc().syscall(number, os.P_PID, pid, None, options, usage) != 0:
        return Exit(status, None, None)
    cpu_s = usage[0] + usage[2] + (usage[1] + usage[3]) / 1e6
    return Exit(status, round(cpu_s, 3), usage[4] * 1024)


def close_all_but(kept: Container[int]) -> None:
    """Close every other descriptor of this process."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            try:
                os.close(int(name))
            except OSError:
                pass  # the descriptor of the listing itself


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


def is_full(error: BaseException) -> bool:
    """Whether the error says that the disk has no room, or the user no quota."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


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
    import ctypes

    call = libc().fallocate
    call.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    if call(fd, mode, offset, size) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def free_port() -> int:
    """A TCP port that nobody listens on now. Another may take it before the tasks do: the usual practice."""
    import socket

    with socket.socket() as s:
        s.bind(("", 0))
        port: int = s.getsockname()[1]
    return port
