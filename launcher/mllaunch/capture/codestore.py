"""The run log's own copy of the code of every run: a bare git repository, ``code.git``.

    refs/mllaunch/<commit>                  a preserved commit, complete with its tree and its submodules'
    refs/submodules/<commit>/<its commit>   what a preserved commit needs of its submodules
    refs/bases/<commit>                     what a preserved commit of a dirty tree was made from
    refs/changes/<run>/...                  what was changed while a run was going on (codechanges.py)
    shallow                                 every preserved commit, because none comes with its history

One writer at a time holds ``code.git.lock``, which the kernel frees when it dies. Repositories with SHA-256
names have a store of their own beside it, ``code-sha256.git``. A commit is copied as a pack that leaves out
what an earlier preserved commit holds already. The ref of the main commit is written last, so whatever is
found under it is complete; a writer that was killed leaves at most some unreferenced objects, which ``prune``
removes. LFS files and history are not copied.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mllaunch.capture import files
from mllaunch.capture.git import Git, GitFailed, batch, explained, shown
from mllaunch.capture.submodules import locator
from mllaunch.domain.snapshot import Snapshot
from mllaunch.errors import NotFound, UsageError

__all__ = [
    "changed",
    "checkout",
    "forget",
    "has_submodules",
    "preserve",
    "prune",
    "repository",
    "uncommitted",
    "unlock",
    "writing",
]

_RECENT = 16  # refs whose commits a new one is compared with


def preserve(code_git: str, snapshot: Snapshot) -> None:
    """Copy the snapshot's commit, its tree and those of its submodules. Idempotent; any number of processes.

    Raises MllaunchError when the user's repository cannot give the objects; OSError (disk full).
    """
    folder = _folder(code_git, snapshot.commit)
    store = Git(folder, git_dir=folder)
    if _has(store, snapshot.commit):
        return
    source = Git(snapshot.git_dir, git_dir=snapshot.git_dir)
    with writing(folder):
        _create(folder, snapshot.commit)
        try:
            for part in files.listing(source, snapshot.tree, locator(snapshot))[1:]:
                _copy(store, part.git, part.tree)
                _set_ref(store, f"refs/submodules/{snapshot.commit}/{part.tree}", part.tree)
            if snapshot.base_commit != snapshot.commit:
                if not _is_stored(store, snapshot.base_commit):
                    _copy(store, source, snapshot.base_commit)
                _set_ref(store, f"refs/bases/{snapshot.commit}", snapshot.base_commit)
            _copy(store, source, snapshot.commit)
            _set_ref(store, f"refs/mllaunch/{snapshot.commit}", snapshot.commit)
        except GitFailed as error:
            raise explained(error, snapshot.repository) from error


def repository(code_git: str, commit: str) -> Git:
    """The repository that holds a commit, or would."""
    folder = _folder(code_git, commit)
    return Git(folder, git_dir=folder)


def checkout(code_git: str, commit: str, dest: str) -> None:
    """Write exactly the tree of a preserved commit, with its submodules, into ``dest``: absent or empty.

    What was an LFS file is its pointer here. Raises NotFound, UsageError "not-empty", and MllaunchError
    "hostile-tree" or "damaged-object"; nothing is written outside ``dest``.
    """
    if os.path.lexists(dest) and (os.path.islink(dest) or not os.path.isdir(dest) or os.listdir(dest)):
        raise UsageError(
            "not-empty", f"{shown(dest)} exists and is not an empty folder", hint="name a new folder"
        )
    folder = _folder(code_git, commit)
    store = Git(folder, git_dir=folder)
    if not _has(store, commit):
        raise NotFound("no-such-code", f"the code of commit {shown(commit)} is not stored here")
    for part in _parts(store, commit):
        plan = files.make_plan(part.records, [])
        target = os.fsencode(dest) + b"/" + part.prefix
        files.write(part, plan, target.rstrip(b"/"), None, None)


def uncommitted(code_git: str, commit: str) -> bytes:
    """What a preserved commit of a dirty tree adds to the commit that it was made from, as a patch for ``git apply``.

    b"" for a commit of a clean tree. No diff driver is run. Raises NotFound when the commit is not stored here.
    """
    folder = _folder(code_git, commit)
    store = Git(folder, git_dir=folder)
    if not _has(store, commit):
        raise NotFound("no-such-code", f"the code of commit {shown(commit)} is not stored here")
    found = store.run("for-each-ref", "--format=%(objectname)", f"refs/bases/{commit}").decode().split()
    if not found:
        return b""
    plain = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--ignore-submodules=none")
    form = ("-r", "-p", "--binary", "--full-index", "--submodule=short", "--src-prefix=a/", "--dst-prefix=b/")
    return store.run("diff-tree", *form, *plain, "--end-of-options", found[0], commit)


def changed(code_git: str, before: str, after: str) -> list[str]:
    """In words, which files differ between two preserved commits: ``train.py +3 -1``"""
    store = repository(code_git, after)
    form = ("-r", "-z", "--numstat", "--no-renames", "--no-ext-diff", "--no-textconv")
    output = store.run("diff-tree", *form, "--end-of-options", before, after)
    found = []
    for record in output.split(b"\0"):
        if record:
            added, removed, path = record.split(b"\t", 2)
            lines = "binary" if added == b"-" else f"+{added.decode()} -{removed.decode()}"
            found.append(f"{os.fsdecode(path)} {lines}")
    return found


def has_submodules(code_git: str, commit: str) -> bool:
    """Whether a preserved commit has submodules. NotFound when it is not stored here."""
    store = repository(code_git, commit)
    if not _has(store, commit):
        raise NotFound("no-such-code", f"the code of commit {shown(commit)} is not stored here")
    listed = store.run("ls-tree", "-r", "-z", "--full-tree", "--end-of-options", commit)
    return any(record.startswith(b"160000") for record in listed.split(b"\0"))


def forget(code_git: str, commit: str) -> None:
    """Let a commit go; ``prune`` frees its bytes. Harmless when it is not there."""
    folder = _folder(code_git, commit)
    store = Git(folder, git_dir=folder)
    if not _has(store, commit):
        return
    with writing(folder):
        listed = store.run("for-each-ref", "--format=%(refname)", f"refs/submodules/{commit}/")
        # The main ref goes first: what is found under it is always complete.
        for ref in [f"refs/mllaunch/{commit}", f"refs/bases/{commit}", *listed.decode().split()]:
            unlock(store, ref)
            store.run("update-ref", "--stdin", stdin=f"delete {ref}\n".encode())


def prune(code_git: str) -> None:
    """Free the bytes that no preserved commit needs, and pack the rest."""
    for folder in (_folder(code_git, "0" * 40), _folder(code_git, "0" * 64)):
        if os.path.isdir(folder):
            store = Git(folder, git_dir=folder)
            with writing(folder):
                store.run("repack", "-a", "-d", "-q")
                store.run("prune", "--expire=now")


def _folder(code_git: str, commit: str) -> str:
    """The store for commits with names of this length."""
    return code_git if len(commit) != 64 else code_git.removesuffix(".git") + "-sha256.git"


def _has(store: Git, commit: str) -> bool:
    """Whether the commit is preserved, completely. Anything but a full object id is not."""
    if len(commit) not in (40, 64) or commit.strip("0123456789abcdef") or not os.path.isdir(store.cwd):
        return False
    try:
        store.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"refs/mllaunch/{commit}")
    except GitFailed:
        return False
    return True


def _create(folder: str, commit: str) -> None:
    """Make the empty repository, all at once. The lock is held."""
    if os.path.isdir(folder):
        return
    parent, name = os.path.split(folder)
    half_made = os.path.join(parent, f"{name}.new")
    if os.path.isdir(half_made):  # by a killed process
        import shutil

        shutil.rmtree(half_made)
    kind = "sha256" if len(commit) == 64 else "sha1"
    Git(parent).run("init", "--bare", "--quiet", "--template=", f"--object-format={kind}", "--", half_made)
    os.rename(half_made, folder)


def _copy(store: Git, source: Git, commit: str) -> None:
    """Bring a commit without its history, as a pack of what the store does not have yet."""
    shared = "".join(f"^{known}^{{tree}}\n" for known in _recent(store, source))
    wanted = f"--shallow {commit}\n{commit}\n{shared}".encode()
    stream, packing = source.stream("pack-objects", "--revs", "--thin", "--stdout", "-q", stdin=wanted)
    with stream:
        indexing = store.start("index-pack", "--stdin", "--fix-thin", stdin=stream.fileno())
    try:
        packing.finish()
    finally:
        indexing.finish()
    _add_shallow(store.cwd, commit)


def _recent(store: Git, source: Git) -> list[str]:
    """The newest preserved commits that the source has too."""
    listed = store.run(
        "for-each-ref", "--sort=-creatordate", f"--count={_RECENT}", "--format=%(objectname)", "refs/"
    )
    names = sorted(set(listed.decode().split()))
    found = batch(source, names, size_only=True) if names else iter(())
    return [name for name, kind, _, _ in found if kind == "commit"]


def _add_shallow(folder: str, commit: str) -> None:
    """Tell git that the commit's parents are not there on purpose (gitprotocol-pack(5): shallow)."""
    path = os.path.join(folder, "shallow")
    try:
        with open(path) as file:
            known = set(file.read().split())
    except FileNotFoundError:
        known = set()
    if commit in known:
        return
    with open(path + ".new", "w") as file:
        file.write("".join(f"{name}\n" for name in sorted(known | {commit})))
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".new", path)


def _set_ref(store: Git, ref: str, commit: str) -> None:
    unlock(store, ref)
    store.run("update-ref", "--stdin", stdin=f"update {ref} {commit}\n".encode())


def unlock(store: Git, ref: str) -> None:
    """Remove the lock files that a killed git left: whoever holds our lock is the only writer."""
    for name in (ref, "packed-refs"):
        try:
            os.unlink(os.path.join(store.cwd, f"{name}.lock"))
        except (FileNotFoundError, NotADirectoryError):
            pass


@contextmanager
def writing(folder: str) -> Iterator[None]:
    """Be the only writer."""
    os.makedirs(os.path.dirname(folder), exist_ok=True)
    lock = os.open(folder + ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _parts(store: Git, commit: str) -> list[files.Part]:
    """The tree of a preserved commit and its submodules, all of them read from the store."""
    import git

    if len(commit) == 40:  # GitPython reads SHA-1 repositories only
        repository = git.Repo(store.cwd, odbt=git.GitCmdObjectDB)
        repository.git.update_environment(**store.environment())
        try:
            return _read_parts(store, repository, commit, b"")
        except ValueError:
            pass  # a name that GitPython refuses and git may allow: `files.make_plan` decides
        finally:
            repository.close()
    return files.listing(store, commit, lambda _, inner: store if _is_stored(store, inner) else None)


def _read_parts(store: Git, repository: Any, commit: str, prefix: bytes) -> list[files.Part]:
    records = []
    modules: list[files.Part] = []
    for item in repository.commit(commit).tree.traverse():  # a folder before its content
        path = os.fsencode(item.path)
        records.append(b"%06o %s %s\t%s" % (item.mode, item.type.encode(), item.hexsha.encode(), path))
        if item.type == "submodule" and _is_stored(store, item.hexsha):
            modules += _read_parts(store, repository, item.hexsha, prefix + path + b"/")
    return [files.Part(store, commit, prefix, records), *modules]


def _is_stored(store: Git, commit: str) -> bool:
    try:
        store.run("cat-file", "-e", commit)
    except GitFailed:  # it was not checked out when the run was submitted
        return False
    return True
