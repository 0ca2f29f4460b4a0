"""Copy what a run wrote into a folder: each file whole or not at all, and checked against its digest."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mllaunch.errors import Unreachable
from mllaunch.usecases.layout import Wanted
from mllaunch.usecases.outputs import OpenOutput, OutputFile, OutputFolder, stays_inside

_BLOCK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Progress = Callable[[int, int], None]  # files done, bytes done


class Outcome(NamedTuple):
    """What became of one file. place: below the folder. problem: why it was not copied, or None. was_there: with the
    same content, before. is_silent: its node does not answer, so a later pull may well copy it.
    """

    place: str
    file: OutputFile
    was_there: bool = False
    problem: str | None = None
    is_silent: bool = False


class Failure(Exception):
    """Why one file is not copied, in words; the others still are."""


def pull(
    wanted: Sequence[Wanted],
    folders: Mapping[str, OutputFolder],
    dest: str,
    *,
    force: bool,
    progress: Progress,
) -> list[Outcome]:
    """Copy files into the folder ``dest``, which is made if need be. What happened to each, in order.

    Nothing is ever written outside ``dest``, and no link in it is followed. Another file that is already there
    stays unless ``force``. Of several nodes one that is silent keeps no other's files back. Raises OSError when dest
    cannot be used at all or its disk is full, Unreachable when the only node is silent.
    """
    os.makedirs(dest, exist_ok=True)
    root = os.open(dest, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    outcomes = []
    done_bytes = 0
    try:
        for number, want in enumerate(wanted):
            base = done_bytes

            def copied(count: int, number: int = number, base: int = base) -> None:
                progress(number, base + count)

            outcomes.append(_from_any(want, folders, root, force, copied))
            done_bytes += want.holders[0].size_bytes or 0
            progress(number + 1, done_bytes)
    finally:
        os.close(root)
    return outcomes


def _from_any(
    want: Wanted,
    folders: Mapping[str, OutputFolder],
    root: int,
    force: bool,
    copied: Callable[[int], None],
) -> Outcome:
    """Copy one from the first node that can give it."""
    failed = []
    for file in want.holders:
        try:
            was_there = _one(file, want.place, folders.get(file.node), root, force, copied)
            return Outcome(want.place, file, was_there)
        except Failure as failure:
            failed.append(Outcome(want.place, file, problem=str(failure)))
        except Unreachable as error:
            if len(folders) == 1:
                raise
            failed.append(Outcome(want.place, file, problem=error.message, is_silent=True))
    return next((outcome for outcome in failed if outcome.is_silent), failed[0])


def _one(
    file: OutputFile,
    place: str,
    source: OutputFolder | None,
    root: int,
    force: bool,
    copied: Callable[[int], None],
) -> bool:
    """Copy one; whether it was there already."""
    if file.kind not in ("file", "symlink"):
        raise Failure(
            "a folder that could not be read" if file.kind == "folder" else "a pipe, socket or device"
        )
    *parents, name = place.split("/")
    folder = _descend(root, parents)
    try:
        if file.kind == "symlink":
            return _link(file, folder, name, force)
        return _copy(file, source, folder, name, force, copied)
    except OSError as error:
        if error.errno in _FULL:
            raise
        raise Failure(f"{error.strerror or error}") from error
    finally:
        os.close(folder)


def _descend(root: int, parents: list[str]) -> int:
    """The folder below ``root``, made if need be; no link is followed on the way."""
    folder = os.dup(root)
    for part in parents:
        try:
            try:
                os.mkdir(part, dir_fd=folder)
            except FileExistsError:
                pass
            inner = os.open(part, _FOLDER, dir_fd=folder)
        except OSError as error:
            if error.errno in _FULL:
                raise
            raise Failure(f"there is no folder {part} to put it in: {error.strerror}") from error
        finally:
            os.close(folder)
        folder = inner
    return folder


def _copy(
    file: OutputFile,
    source: OutputFolder | None,
    folder: int,
    name: str,
    force: bool,
    copied: Callable[[int], None],
) -> bool:
    if file.sha256 is not None and _sha256_at(folder, name, file.size_bytes) == file.sha256:
        return True
    if not force and file.sha256 is not None and _exists(folder, name):
        raise Failure("another file is there already (--force replaces it)")
    original = _open(file, source)
    try:
        temporary, target = _part(file, folder)
        try:
            digest = _transfer(file, original, target, copied)
        except (Unreachable, KeyboardInterrupt):
            if file.sha256 is None:
                os.unlink(temporary, dir_fd=folder)
            raise  # else the next pull goes on from here
        except BaseException:
            os.unlink(temporary, dir_fd=folder)
            raise
        finally:
            os.close(target)
    finally:
        original.close()
    if file.sha256 is None and _sha256_at(folder, name, None) == digest:
        os.unlink(temporary, dir_fd=folder)
        return True
    _publish(temporary, folder, name, force)
    return False


def _part(file: OutputFile, folder: int) -> tuple[str, int]:
    """(name, descriptor) of the file to copy into; locked while somebody does. Of known bytes what an earlier pull
    that broke off has left."""
    import fcntl

    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    if file.sha256 is not None:
        name = f".mllaunch-{file.sha256[:32]}.part"
        target = os.open(name, flags, 0o600, dir_fd=folder)
        try:
            fcntl.flock(target, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return name, target
        except OSError:  # another pull is at it; or there are no locks here
            os.close(target)
    name = f".mllaunch-{os.urandom(8).hex()}.part"
    return name, os.open(name, flags | os.O_EXCL, 0o600, dir_fd=folder)


def _open(file: OutputFile, source: OutputFolder | None) -> OpenOutput:
    try:
        if source is None:
            raise FileNotFoundError(errno.ENOENT, "")
        return source.open_output(file.path)
    except FileNotFoundError as error:
        raise Failure("missing: it is no longer in the run's folder") from error
    except OSError as error:
        raise Failure(f"it cannot be read any more: {error.strerror or error}") from error


def _transfer(file: OutputFile, original: OpenOutput, target: int, copied: Callable[[int], None]) -> str:
    """Copy the bytes; their digest. Failure if they are not those on record, or changed meanwhile."""
    before = original.stat()
    size = before["size_bytes"]
    sha256 = hashlib.sha256()
    while block := os.read(target, _BLOCK):  # what is there of them already
        sha256.update(block)
    count = os.lseek(target, 0, os.SEEK_CUR)
    # No more than there was at first: a file that grows for ever must not be read for ever.
    while count < size and (block := original.read(count, min(_BLOCK, size - count))):
        sha256.update(block)
        view = memoryview(block)
        while view:
            view = view[os.write(target, view) :]
        count += len(block)
        copied(count)
    after = original.stat()
    if file.sha256 is not None and sha256.hexdigest() != file.sha256:
        raise Failure("changed: it is not what the run wrote any more")
    if file.sha256 is None and (before != after or count != size):
        raise Failure("it changed while it was copied; try again")
    umask = os.umask(0o077)
    os.umask(umask)
    os.fchmod(target, (0o777 if before["mode"] & stat.S_IXUSR else 0o666) & ~umask)
    os.utime(target, ns=(after["mtime_ns"], after["mtime_ns"]))
    return sha256.hexdigest()


def _link(file: OutputFile, folder: int, name: str, force: bool) -> bool:
    if file.target is None or not stays_inside(file.target, file.path.count("/")):
        raise Failure(f"a link that leads out of the run's folder: {file.target}")
    try:
        if os.readlink(name, dir_fd=folder) == file.target:
            return True
    except OSError:
        pass
    if not force and _exists(folder, name):
        raise Failure("another file is there already (--force replaces it)")
    temporary = f".mllaunch-{os.urandom(8).hex()}.part"
    os.symlink(file.target, temporary, dir_fd=folder)
    _publish(temporary, folder, name, force)
    return False


def _publish(temporary: str, folder: int, name: str, force: bool) -> None:
    """Give a finished file its name, at once; without force never in the place of another."""
    try:
        if force:
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
            return
        try:
            os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            os.unlink(temporary, dir_fd=folder)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            # A file system without hard links: somebody who is faster by microseconds loses the file.
            if _exists(folder, name):
                raise FileExistsError(errno.EEXIST, "") from error
            os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except FileExistsError as error:
        os.unlink(temporary, dir_fd=folder)
        raise Failure("another file is there already (--force replaces it)") from error
    except BaseException:
        os.unlink(temporary, dir_fd=folder)
        raise


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _sha256_at(folder: int, name: str, size_bytes: int | None) -> str | None:
    """The digest of what is there, if it is a regular file (of that size, where one is given)."""
    try:
        there = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    try:
        info = os.fstat(there)
        if not stat.S_ISREG(info.st_mode) or size_bytes not in (None, info.st_size):
            return None
        sha256 = hashlib.sha256()
        while block := os.read(there, _BLOCK):
            sha256.update(block)
        return sha256.hexdigest()
    except OSError:
        return None
    finally:
        os.close(there)
