"""Kept trees: one folder per git tree, holding exactly its files, made once and never altered.

    STORE/<tree id>          a complete tree; jobs never run in it, they get an overlay or a copy
    STORE/<tree id>.boot     the boot of the machine in which it was made or checked
    STORE/tmp-<pid>-<random> one being made or removed, locked (flock) by whoever does it
    STORE/check.lock         locked (flock) by whoever checks a tree that has no mark of this boot (yet)

A tree appears by rename, so it is there completely or not at all. A maker that was killed leaves a temporary
folder whose lock is free; the next ``ensure`` or ``sweep`` removes it. Files that an earlier tree of the
project holds unchanged are hard links to it.

Nothing is flushed to disk here: that would slow every submit down. So a power cut may leave a tree whose files
are empty. Each tree is therefore trusted within one boot only; after another its files are hashed once before
it is given out again.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator

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
    boot = _boot_id()
    if _is_used_again(final) and _marked_boot(final) == boot:
        return final
    os.makedirs(store, exist_ok=True)
    _remove_stale(store)
    try:
        if os.path.isdir(final):
            _check(store, final, snapshot, boot)
        if not os.path.isdir(final):
            _make(store, final, snapshot)
            _mark(final, boot)
    except GitFailed as error:
        raise explained(error, snapshot.repository) from error
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
        _bury(store, path)


def _make(store: str, final: str, snapshot: Snapshot) -> None:
    temporary, lock = _locked_folder(store)
    try:
        _fill(os.fsencode(temporary), store, snapshot)
        try:
            os.rename(temporary, final)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise  # else another process was first, with the same content
    finally:
        _remove(temporary)
        os.close(lock)


def _bury(store: str, path: str) -> None:
    """Remove a tree, which must never be found half-removed under its id."""
    grave, lock = _locked_folder(store)
    try:
        os.rename(path, grave)
        os.unlink(_mark_path(path))
    except FileNotFoundError:
        pass  # another process was first
    finally:
        _remove(grave)
        os.close(lock)


def _check(store: str, tree: str, snapshot: Snapshot, boot: str) -> None:
    """Trust a tree from before this boot for the rest of it, or remove it. One process at a time checks."""
    lock = os.open(os.path.join(store, "check.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _marked_boot(tree) == boot:
            return  # another process has just checked or replaced it, and somebody may be using it
        if _is_intact(tree, snapshot):
            _mark(tree, boot)
        else:
            _bury(store, tree)
            _make(store, tree, snapshot)
            _mark(tree, boot)
    finally:
        os.close(lock)


def _is_intact(tree: str, snapshot: Snapshot) -> bool:
    """Whether a tree from before this boot survived it."""
    from mllaunch.capture import files

    git = Git(snapshot.git_dir, git_dir=snapshot.git_dir)
    parts = files.listing(git, snapshot.tree, locator(snapshot))
    return all(files.intact(part, os.fsencode(tree) + b"/" + part.prefix) for part in parts)


def _boot_id() -> str:
    """Names this boot of the machine; random(4)."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _mark_path(tree: str) -> str:
    return tree + ".boot"


def _marked_boot(tree: str) -> str | None:
    try:
        with open(_mark_path(tree)) as file:
            return file.read()
    except FileNotFoundError:
        return None


def _mark(tree: str, boot: str) -> None:
    """Note that the tree was complete in this boot. A torn note is no note."""
    with open(_mark_path(tree), "w") as file:
        file.write(boot)


def _fill(target: bytes, store: str, snapshot: Snapshot) -> None:
    from mllaunch.capture import files  # most submits find their tree, and need none of this

    git = Git(snapshot.git_dir, git_dir=snapshot.git_dir)
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
    from mllaunch.capture import files

    try:
        return {part.prefix: part.records for part in files.listing(git, tree, locate)}
    except GitFailed:
        return {}


def _earlier_tree(store: str, git: Git) -> str | None:
    """The most recently used kept tree of this boot whose objects the repository has."""
    boot = _boot_id()
    names = [name for name in _trees(store) if _marked_boot(os.path.join(store, name)) == boot]
    names.sort(key=lambda name: _used_at_s(os.path.join(store, name)), reverse=True)
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
