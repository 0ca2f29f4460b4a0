"""GPU leases of a node, shared by all its users: who holds which GPU, and who is next.

In one folder (by default /run/lock/mllaunch, or /tmp/mllaunch-leases where /run/lock isn't open to all):

    gpu-UUID.lock   locked by whoever holds that GPU; its text says who, and means nothing when unlocked
    ticket-N        locked by a waiter; its text says who and how many GPUs; a free lock means a dead waiter

A lock belongs to an open file description (F_OFD_SETLK, fcntl_locking(2)), which shim and task inherit: so the
kernel frees a GPU exactly when the last of them is gone. Locks are only ever given up by closing, because an
explicit unlock would free the GPU under a living task. flock(2) has the same life, but can't be asked without
being taken: fifty waiters who look who holds a GPU would keep it from the one whose turn it is.

The ticket with the lowest number among the living is served first, and alone: a run that wants many GPUs is not
starved by those that want few. A new ticket's number is above all that exist, and link(2) settles who gets it, so
no counter is needed.

Files become visible by link(2), complete: with mode, text and lock. Their mode is 01666: open to every user, and
the sticky bit keeps systemd-tmpfiles from removing them from /tmp under a run of many days. A file of any other
mode isn't ours and is never written to, so a hard link to somebody's file does no harm. Nothing is opened with
O_CREAT under its final name: in a sticky folder fs.protected_regular forbids that for the files of others.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import struct
import time
from typing import (
    Any,
    Callable,
    Collection,
    Dict,
    Iterable,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from mllaunch_agent import system

__all__ = [
    "Lease",
    "LeaseError",
    "Queue",
    "Ticket",
    "Waiting",
    "check",
    "choose",
    "default_dir",
    "holders",
    "queue_name",
    "take_back",
    "waiting",
]

Info = Dict[str, Any]
Foreign = Callable[[str], Sequence[Info]]

_INFO_BYTES = 4096
_TICKET_DIGITS = 15
_UNBORN_S = 3600.0  # a file that was not published after this long has a dead maker
_MODE = 0o1666
_UUID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_F_OFD_GETLK = 36  # the constants of module fcntl came with Python 3.9
_F_OFD_SETLK = 37
_STRUCT_FLOCK = "hhqqi4x"  # type, whence, start, length, pid: the same on every 64-bit Linux


class LeaseError(OSError):
    """The folder of leases, or what was asked for, can't be used; the message is one line for the user."""


class Waiting(NamedTuple):
    """Why a ticket was not served yet."""

    wanted: int
    free: int  # GPUs that nobody holds and no foreign process uses
    holders: Tuple[Info, ...]  # {"gpu", "run", "user", "pid"}; run is None while it is being decided
    ahead: Tuple[Info, ...]  # {"run", "user"}, next to be served first
    foreign: Tuple[Info, ...]  # {"gpu", "pid", "user", "command"}: uses a GPU without a lease


def check(wanted: int, available: Collection[str]) -> None:
    """Refuse what this machine can never give. Raises LeaseError."""
    if wanted > len(set(available)):
        raise LeaseError("%d GPUs are wanted, but this machine has %d" % (wanted, len(set(available))))


def choose(
    available: Sequence[str], locked: Collection[str], foreign: Collection[str], wanted: int
) -> Optional[List[str]]:
    """The first ``wanted`` of ``available`` that are neither locked nor used by others; all or None."""
    free = [uuid for uuid in available if uuid not in locked and uuid not in foreign]
    return free[:wanted] if len(free) >= wanted else None


def default_dir() -> str:
    """The folder that every user of this node agrees on: it depends on the node alone, not on who asks."""
    try:
        everyones = os.stat("/run/lock").st_mode & 0o1002 == 0o1002
    except OSError:
        everyones = False
    return "/run/lock/mllaunch" if everyones else "/tmp/mllaunch-leases"


def holders(directory: Optional[str] = None) -> List[Info]:
    """Who holds GPUs now: the holders' info with "gpu", sorted by GPU. Any user may ask."""
    try:
        folder = _Folder(directory, create=False)
    except FileNotFoundError:
        return []
    try:
        found = []
        for name in sorted(os.listdir(folder.fd)):
            if name.startswith("gpu-") and name.endswith(".lock") and _is_uuid(name[4:-5]):
                info = folder.look(name)
                if info:
                    found.append(dict(info, gpu=name[4:-5]))
        return found
    finally:
        folder.close()


def queue_name(directory: Optional[str] = None) -> str:
    """Names the queue for GPUs of this node, while it runs: no two nodes have the same, and all users see the same."""
    folder = _Folder(directory, create=True)
    try:
        info = os.fstat(folder.fd)
        return "%s/%d/%d" % (system.boot_id(), info.st_dev, info.st_ino)
    finally:
        folder.close()


def waiting(directory: Optional[str] = None) -> List[Info]:
    """Who waits for GPUs now, next first. Any user may ask."""
    try:
        folder = _Folder(directory, create=False)
    except FileNotFoundError:
        return []
    try:
        return [info for info in (folder.look(name) for _, name in folder.tickets()) if info]
    finally:
        folder.close()


class Lease:
    """GPUs that are ours as long as any process holds ``fds``; a child gets them by pass_fds or fork."""

    def __init__(self, held: Dict[str, int], order: Sequence[str]) -> None:
        self.uuids: Tuple[str, ...] = tuple(order)
        self.fds: Tuple[int, ...] = tuple(held[uuid] for uuid in order)

    def release(self) -> None:
        """Let go in this process; those who inherited the descriptors still hold the GPUs. Safe to repeat."""
        fds, self.fds = self.fds, ()
        for fd in fds:
            os.close(fd)


def take_back(directory: Optional[str], uuids: Sequence[str], info: Info) -> Optional[Lease]:
    """Lock again what a process that died had leased, out of turn; None if any of it has another holder now."""
    folder = _Folder(directory, create=True)
    held: Dict[str, int] = {}
    try:
        for uuid in sorted(uuids):
            fd = folder.lock("gpu-%s.lock" % uuid)
            if fd is None:
                break
            held[uuid] = fd
        if len(held) < len(uuids):
            for fd in held.values():
                os.close(fd)
            return None
        for fd in held.values():
            _write(fd, info)
        return Lease(held, uuids)
    finally:
        folder.close()


class Queue:
    """The waiting line of a node."""

    def __init__(self, directory: Optional[str] = None) -> None:
        self._folder = _Folder(directory, create=True)

    def try_out(self) -> None:
        """Make a file as tickets are, and remove it. Raises LeaseError if no ticket could be drawn."""
        name = "unborn-%s" % os.urandom(4).hex()
        fd = self._folder.publish(name, {})
        self._folder.remove(name)
        if fd is not None:
            os.close(fd)

    def enter(self, info: Info, wanted: int) -> Ticket:
        """Draw a ticket for ``wanted`` (at least 1) GPUs; ``info``: run, user, pid, attempt, run_id.

        A process forked from the one which entered keeps that place when it enters for the same attempt: so
        the restart of a killed supervisor doesn't send its run to the end of the line.
        """
        if wanted < 1:
            raise ValueError("a ticket is for at least one GPU")
        text = dict(info, wanted=wanted, since=system.now())
        key = (self._folder.identity, info.get("run_id"), info.get("attempt"))
        ticket = _entered.get(key)
        if ticket is not None and ticket.is_valid():
            _write(ticket.fd, text)
            return ticket
        self._folder.sweep_unborn()
        while True:
            numbers = [number for number, _ in self._folder.tickets()]
            number = max(numbers, default=0) + 1
            fd = self._folder.publish("ticket-%d" % number, text)
            if fd is not None:
                _entered[key] = Ticket(self._folder, number, fd, text)
                return _entered[key]


class Ticket:
    """A place in the line; ask it now and then with try_take(). Never blocks."""

    def __init__(self, folder: _Folder, number: int, fd: int, info: Info) -> None:
        self.number = number
        self.fd = fd
        self._folder = folder
        self._info = info

    def is_valid(self) -> bool:
        return self.fd >= 0 and os.fstat(self.fd).st_nlink > 0

    def leave(self) -> None:
        """Give the place up. Safe to repeat."""
        if self.fd >= 0:
            self._folder.remove("ticket-%d" % self.number)
            os.close(self.fd)
            self.fd = -1

    def try_take(self, available: Iterable[str], foreign: Foreign) -> Union[Lease, Waiting]:
        """Take the GPUs if it is our turn and enough are free, all or none; then the ticket is used up.

        ``available``: UUIDs in the order of preference. ``foreign(uuid)``: the processes that NVML shows on a
        GPU which nobody holds.
        """
        order = list(dict.fromkeys(available))
        for uuid in order:
            if not _is_uuid(uuid):
                raise LeaseError("not a GPU's UUID: %r" % uuid[:80])
        ahead = self._ahead(len(order))
        if ahead:
            return self._look_on(order, ahead)
        held: Dict[str, int] = {}
        taken: Sequence[str] = ()
        try:
            locked = self._lock(sorted(order), held)
            used = {uuid: list(foreign(uuid)) for uuid in order if uuid in held}
            strangers = {uuid: processes for uuid, processes in used.items() if processes}
            chosen = choose(order, locked, strangers, self._info["wanted"])
            if chosen is None:
                return self._waiting(len(held) - len(strangers), locked, (), strangers)
            for uuid in chosen:
                _write(held[uuid], self._info)
            taken = chosen
        finally:
            for uuid, fd in held.items():
                if uuid not in taken:
                    os.close(fd)
        self.leave()
        return Lease(held, taken)

    def _lock(self, uuids: Sequence[str], held: Dict[str, int]) -> Dict[str, Info]:
        """Lock what is free into ``held``; who has the others."""
        locked: Dict[str, Info] = {}
        for uuid in uuids:
            fd = self._folder.lock("gpu-%s.lock" % uuid)
            if fd is None:
                locked[uuid] = self._folder.look("gpu-%s.lock" % uuid) or {}
            else:
                held[uuid] = fd
                os.ftruncate(fd, 0)  # else somebody who looks now would name its last holder
        return locked

    def _ahead(self, machine: int) -> List[Info]:
        """Living waiters before us, but for those whose wish this machine can no longer grant."""
        found = []
        for number, name in self._folder.tickets():
            if number < self.number:
                info = self._folder.look(name)
                if info is None:
                    self._folder.remove(name)
                elif not (isinstance(info.get("wanted"), int) and info["wanted"] > machine):
                    found.append(info)
        return found

    def _look_on(self, order: Sequence[str], ahead: List[Info]) -> Waiting:
        seen = {uuid: self._folder.look("gpu-%s.lock" % uuid) for uuid in order}
        locked = {uuid: info for uuid, info in seen.items() if info is not None}
        return self._waiting(len(order) - len(locked), locked, ahead, {})

    def _waiting(
        self, free: int, locked: Dict[str, Info], ahead: Iterable[Info], foreign: Dict[str, List[Info]]
    ) -> Waiting:
        who = ("run", "user", "pid")
        return Waiting(
            wanted=self._info["wanted"],
            free=free,
            holders=tuple({"gpu": u, **{k: i.get(k) for k in who}} for u, i in sorted(locked.items())),
            ahead=tuple({"run": info.get("run"), "user": info.get("user")} for info in ahead),
            foreign=tuple({**process, "gpu": u} for u, found in foreign.items() for process in found),
        )


_entered: Dict[Tuple[Any, Any, Any], Ticket] = {}


class _Folder:
    """The folder of leases, held open, so that nobody can exchange it under us."""

    def __init__(self, path: Optional[str], create: bool) -> None:
        self.path = path or default_dir()
        ours = create and path is None
        if create:
            try:
                os.mkdir(self.path, 0o700)
                ours = True
            except FileExistsError:
                pass
            except OSError as error:
                raise LeaseError(
                    "can't make the folder of GPU leases %r: %s" % (self.path, error.strerror)
                ) from None
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise LeaseError(
                "can't use the folder of GPU leases %r: %s" % (self.path, error.strerror)
            ) from None
        info = os.fstat(self.fd)
        self.identity = (info.st_dev, info.st_ino)
        if ours and info.st_uid == os.geteuid() and info.st_mode & 0o1777 != 0o1777:
            os.fchmod(self.fd, 0o1777)
        elif info.st_uid not in (0, os.geteuid()) and not info.st_mode & stat.S_ISVTX:
            self.close()
            raise LeaseError(
                "the folder of GPU leases %r belongs to another user, who could undo locks" % self.path
            )

    def close(self) -> None:
        os.close(self.fd)

    def publish(self, name: str, info: Info) -> Optional[int]:
        """A new file with its text and lock, all at once; its descriptor, or None if the name is taken."""
        unborn = "unborn-%d-%s" % (os.getpid(), os.urandom(4).hex())
        try:
            fd = os.open(unborn, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=self.fd)
        except OSError as error:
            remedy = "; its mode must be 1777" if isinstance(error, PermissionError) else ""
            raise LeaseError(
                "can't make a file in the folder of GPU leases %r: %s%s" % (self.path, error.strerror, remedy)
            ) from None
        try:
            _lock(fd)
            _write(fd, info)
            os.fchmod(fd, _MODE)
            os.link(unborn, name, src_dir_fd=self.fd, dst_dir_fd=self.fd, follow_symlinks=False)
        except FileExistsError:
            os.close(fd)
            return None
        except BaseException:
            os.close(fd)
            raise
        finally:
            self.remove(unborn)
        return fd

    def lock(self, name: str) -> Optional[int]:
        """Lock a file, made when it isn't there; None when somebody else has the lock."""
        while True:
            try:
                fd = self._open(name, os.O_RDWR)
            except FileNotFoundError:
                made = self.publish(name, {})
                if made is not None:
                    return made
                continue
            if not _lock(fd):
                os.close(fd)
                return None
            if self._is(name, fd):
                return fd
            os.close(fd)  # removed in the meantime: a lock on it excludes nobody

    def look(self, name: str) -> Optional[Info]:
        """The text of a file that somebody has locked; None when nobody has, or the file isn't one of ours."""
        try:
            fd = self._open(name, os.O_RDONLY)
        except OSError:
            return None
        try:
            return _text(fd) if _is_locked(fd) else None
        finally:
            os.close(fd)

    def tickets(self) -> List[Tuple[int, str]]:
        names = [name for name in os.listdir(self.fd) if name.startswith("ticket-")]
        digits = [(name[7:], name) for name in names]
        return sorted(
            (int(d), n) for d, n in digits if d.isdigit() and d.isascii() and len(d) <= _TICKET_DIGITS
        )

    def remove(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self.fd)
        except OSError:
            pass  # gone already, or of another user: it stays, and counts for nothing

    def sweep_unborn(self) -> None:
        for name in os.listdir(self.fd):
            try:
                if name.startswith("unborn-") and self._age_s(name) > _UNBORN_S:
                    self.remove(name)
            except OSError:
                pass  # gone already

    def _age_s(self, name: str) -> float:
        return time.time() - os.stat(name, dir_fd=self.fd, follow_symlinks=False).st_mtime

    def _open(self, name: str, flags: int) -> int:
        try:
            fd = os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self.fd)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise LeaseError("can't use %r in %r: %s" % (name, self.path, error.strerror)) from None
        info = os.fstat(fd)
        if info.st_mode != stat.S_IFREG | _MODE:
            os.close(fd)
            raise LeaseError("%r in %r is not one of ours" % (name, self.path))
        return fd

    def _is(self, name: str, fd: int) -> bool:
        try:
            info = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(info, os.fstat(fd))


def _lock(fd: int) -> bool:
    try:
        fcntl.fcntl(fd, _F_OFD_SETLK, struct.pack(_STRUCT_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        return False
    return True


def _is_locked(fd: int) -> bool:
    wish = struct.pack(_STRUCT_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    answer = fcntl.fcntl(fd, _F_OFD_GETLK, wish)
    return bool(struct.unpack(_STRUCT_FLOCK, answer)[0] != fcntl.F_UNLCK)


def _write(fd: int, info: Info) -> None:
    text = json.dumps(info).encode("ascii") + b"\n"
    os.pwrite(fd, text[:_INFO_BYTES], 0)
    os.ftruncate(fd, min(len(text), _INFO_BYTES))


def _text(fd: int) -> Info:
    try:
        info = json.loads(os.pread(fd, _INFO_BYTES, 0).split(b"\n", 1)[0])
    except (ValueError, RecursionError):
        return {}  # being written, or not ours
    return info if isinstance(info, dict) else {}


def _is_uuid(name: str) -> bool:
    return 0 < len(name) <= 100 and name[0] not in ".-" and _UUID_CHARACTERS.issuperset(name)
