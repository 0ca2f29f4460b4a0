"""Kept trees: one folder per git tree, holding exactly its files, made once and never altered.

    STORE/<tree id>          a complete tree; jobs never run in it, they get an overlay or a copy
    STORE/tmp-<pid>-<random> one being made or removed, locked (flock) by whoever does it

A tree appears by rename, so it is there completely or not at all. A maker that was killed leaves a temporary
folder whose lock is free; the next ``ensure`` or ``sweep`` removes it. Files that an earlier tree of the
project holds unchanged are hard links to it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator

from mllaunch.capture import files
from mllaunch.capture.git import Git, GitFailed, batch, explained
from mllaunch.capture.submodules import Locate, locator
from mllaunch.domain.snapshot import Snapshot

__all__ = ["ensure", "sweep"]

_TEMPORARY = "tmp-"
_HEX = frozenset("0123456789abcdef")
_CANDIDATES = 16  # earlier trees to consider: a store is shared by all projects of a user


def ensure(store: str, snapshot: Snapshot) -> str:
    """The folder with exactly the snapshot's files, made if it is not there yet.

    Modes are git's (0644 or 0755, less the umask); LFS pointers are replaced by their files; a submodule that
    is not checked out is an empty folder, as git leaves it. Safe with any number of processes at once, and
    when killed.
    Raises MllaunchError "lfs-object-missing", "damaged-object", "hostile-tree"; OSError (disk full).
    """
    final = os.path.join(store, snapshot.tree)
    if _is_used_again(final):
        return final
    os.makedirs(store, exist_ok=True)
    _remove_stale(store)
    git = Git(snapshot.git_dir, git_dir=snapshot.git_dir)
    temporary, lock = _locked_folder(store)
    try:
        _fill(os.fsencode(temporary), store, git, snapshot)
        try:
            os.rename(temporary, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise  # else another process was first, with the same content
    except GitFailed as error:
        raise explained(error, snapshot.repository) from error
    finally:
        _remove(temporary)
        os.close(lock)
    return final


def sweep(store: str, keep: set[str], *, used_before_s: float | None = None) -> None:
    """Remove the trees that are not in ``keep`` (tree ids), and what killed processes left.

    used_before_s: the Unix time at which ``keep`` was read; trees that ``ensure`` gave out since then stay.
    """
    if not os.path.isdir(store):
        return
    _remove_stale(store)
    for name in _trees(store):
        path = os.path.join(store, name)
        if name in keep or (used_before_s is not None and _used_at_s(path) >= used_before_s):
            continue
        grave, lock = _locked_folder(store)
        try:
            os.rename(path, grave)  # a half-removed tree must never be found under its id
        except FileNotFoundError:
            pass  # another sweep
        finally:
            _remove(grave)
            os.close(lock)


def _fill(target: bytes, store: str, git: Git, snapshot: Snapshot) -> None:
    locate = locator(snapshot)
    parts = files.listing(git, snapshot.tree, locate)
    earlier = _earlier_tree(store, git)
    known = {} if earlier is None else _records(git, earlier, locate)
    base = None if earlier is None else os.fsencode(os.path.join(store, earlier))
    repository = os.fsencode(snapshot.repository)
    for part in parts:
        plan = files.make_plan(part.records, known.get(part.prefix, []))
        folder = part.prefix.rstrip(b"/")
        below = b"/" + folder if folder else b""
        files.write(
            part,
            plan,
            target + below,
            None if base is None else base + below,
            os.fsdecode(repository + below),
        )


def _records(git: Git, tree: str, locate: Locate) -> dict[bytes, list[bytes]]:
    """The records of an earlier tree by part, as far as its objects are still there."""
    try:
        return {part.prefix: part.records for part in files.listing(git, tree, locate)}
    except GitFailed:
        return {}


def _earlier_tree(store: str, git: Git) -> str | None:
    """The most recently used kept tree whose objects this repository has."""
    names = sorted(_trees(store), key=lambda name: _used_at_s(os.path.join(store, name)), reverse=True)
    names = names[:_CANDIDATES]
    found = (
        [name for name, kind, _, _ in batch(git, names, size_only=True) if kind == "tree"] if names else []
    )
    return found[0] if found else None


def _is_used_again(path: str) -> bool:
    """Whether the tree is there; notes the time, by which ``sweep`` and ``_earlier_tree`` go."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _used_at_s(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _trees(store: str) -> Iterator[str]:
    for name in os.listdir(store):
        if len(name) in (40, 64) and not set(name) - _HEX:
            yield name


def _locked_folder(store: str) -> tuple[str, int]:
    """A new temporary folder and the descriptor that holds its lock until it is closed."""
    while True:
        path = os.path.join(store, f"{_TEMPORARY}{os.getpid()}-{os.urandom(8).hex()}")
        os.mkdir(path)
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # taken for a dead maker's between the two calls
            continue
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.path.isdir(path):
            return path, lock
        os.close(lock)


def _remove_stale(store: str) -> None:
    """Remove the temporary folders whose makers are gone."""
    for name in os.listdir(store):
        if not name.startswith(_TEMPORARY):
            continue
        path = os.path.join(store, name)
        try:
            lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            continue  # just finished
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            continue  # its maker lives
        else:
            _remove(path)
        finally:
            os.close(lock)


def _remove(path: str) -> None:
    if os.path.lexists(path):
        import shutil

        shutil.rmtree(path, ignore_errors=True)
