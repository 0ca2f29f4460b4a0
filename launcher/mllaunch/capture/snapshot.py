"""From a working tree to the commit that a run is made of, without altering anything of the user's.

A clean tree is its HEAD commit. A dirty one is refused, or becomes a commit made through a copy of the index:
new objects are all that the repository gains. ``pin`` adds the ref that keeps a commit from being pruned; it
may wait until the job has started: git keeps unreferenced new objects for two weeks (gc.pruneExpire).
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from mllaunch.capture import worktree
from mllaunch.capture.git import Git, GitFailed, batch, explained, shown, temporary_index
from mllaunch.capture.worktree import Inspection, Worktree
from mllaunch.domain.snapshot import FileChange, Snapshot
from mllaunch.errors import MllaunchError, NotFound, UsageError

__all__ = ["Pending", "begin", "decide", "listed", "mask_credentials", "pin", "take", "unpin"]

_LISTED = 20
_COUNTED_BYTES = 1 << 20  # an untracked file larger than this is listed without its number of lines
_IDENTITY = "mllaunch"


class Pending(NamedTuple):
    """A snapshot being taken; git works while the caller does something else."""

    inspection: Inspection

    def finish(self, *, allow_dirty: bool, now: str | None = None) -> Snapshot:
        """As ``take``."""
        return decide(self.inspection.finish(), allow_dirty=allow_dirty, now=now)


def begin(cwd: str) -> Pending:
    """Start taking a snapshot; ``Pending.finish`` gives it."""
    return Pending(worktree.begin(cwd))


def take(cwd: str, *, allow_dirty: bool, now: str | None = None) -> Snapshot:
    """The exact code of the repository that ``cwd`` is in.

    now: the date of a commit made of a dirty tree, RFC 3339; None leaves it to git's clock.
    Index, working tree, HEAD, stash and reflogs stay byte for byte as they are. The commit has no ref yet:
    see ``pin``. Raises UsageError: "dirty" (unless allow_dirty), "conflicted", "special-file",
    "no-repository", "bare-repository", "broken-repository", "no-commit"; NotPermitted: "not-your-repository";
    MllaunchError: "git-missing", "git-too-old", "git-failed", "snapshot-failed".
    """
    return begin(cwd).finish(allow_dirty=allow_dirty, now=now)


def decide(found: Worktree, *, allow_dirty: bool, now: str | None = None) -> Snapshot:
    """The snapshot of a working tree that has been inspected; as ``take``."""
    changes = found.changes()
    _refuse_conflicts(changes)
    if not found.is_dirty:
        return _snapshot(found, found.commit, found.tree, ())
    if not allow_dirty:
        raise _refusal(found, changes)
    commit, tree = _commit(found, now)
    return _snapshot(found, commit, tree, tuple(change.path for change in changes))


def pin(snapshot: Snapshot) -> None:
    """Keep the snapshot's commit, and those of its submodules, reachable. Idempotent; each ref is atomic."""
    for git, commit in _repositories(snapshot):
        _update_ref(git, f"update refs/mllaunch/{commit} {commit}\n", snapshot)


def listed(cwd: str, revision: str) -> tuple[str, dict[str, str]]:
    """A commit of the repository that ``cwd`` is in, and its files: path -> SHA-1 blob id. NotFound.

    What processes executed is on record by these ids, also where the repository's own are SHA-256.
    """
    git = Git(cwd)
    try:
        name = f"{revision}^{{commit}}"
        commit = git.run("rev-parse", "--verify", "--quiet", "--end-of-options", name).decode().strip()
        output = git.run("ls-tree", "-r", "-z", "--full-tree", "--end-of-options", commit)
    except GitFailed as error:
        raise NotFound(
            "no_commit",
            f"there is no commit {shown(revision)} in the repository here",
            hint="git log --oneline",
        ) from error
    records = [record.partition(b"\t") for record in output.split(b"\0") if b" blob " in record[:12]]
    files = {os.fsdecode(path): meta.rpartition(b" ")[2].decode() for meta, _, path in records}
    return commit, files if len(commit) == 40 else _by_sha1(git, files)


def _by_sha1(git: Git, files: dict[str, str]) -> dict[str, str]:
    """The files of a SHA-256 repository, with the ids that they have in others."""
    import hashlib

    found = {}
    for path, (_, _, size, stream) in zip(files, batch(git, list(files.values())), strict=True):
        digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        digest.update(stream.read(size))
        found[path] = digest.hexdigest()
    return found


def unpin(snapshot: Snapshot) -> None:
    """Let git forget the snapshot again. Harmless when it was not pinned.

    Submodules' commits are let go as well: call it when no run needs it, then ``pin`` those that stay.
    """
    for git, commit in _repositories(snapshot):
        _update_ref(git, f"delete refs/mllaunch/{commit}\n", snapshot)


def mask_credentials(url: str) -> str:
    """The URL with user and password replaced by ``***``. ``git@host:path`` names no secret and stays."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        userinfo, at, path = url.partition("@")
        return f"***@{path}" if at and ":" in userinfo and "/" not in userinfo else url
    authority, slash, path = rest.partition("/")
    userinfo, at, host = authority.rpartition("@")
    if at and (":" in userinfo or scheme != "ssh"):
        authority = f"***@{host}"
    path, question, _ = path.partition("?")  # a query can carry a token as well
    return f"{scheme}://{authority}{slash}{path}{'?***' if question else ''}"


def _snapshot(found: Worktree, commit: str, tree: str, uncommitted: tuple[str, ...]) -> Snapshot:
    return Snapshot(
        commit=commit,
        tree=tree,
        base_commit=found.commit,
        dirty=found.is_dirty,
        uncommitted=uncommitted,
        branch=found.branch,
        repository=found.root,
        git_dir=found.git_dir,
        remote=None if found.remote is None else mask_credentials(found.remote),
        ref=f"refs/mllaunch/{commit}",
    )


def _repositories(snapshot: Snapshot) -> list[tuple[Git, str]]:
    """The user's repository and those of its submodules, each with its commit."""
    from mllaunch.capture.files import listing
    from mllaunch.capture.submodules import locator

    git = Git(snapshot.git_dir, git_dir=snapshot.git_dir)
    try:
        modules = listing(git, snapshot.tree, locator(snapshot))[1:]
    except GitFailed as error:
        raise explained(error, snapshot.repository) from error
    return [(git, snapshot.commit), *((module.git, module.tree) for module in modules)]


def _update_ref(git: Git, command: str, snapshot: Snapshot) -> None:
    try:
        git.run("update-ref", "--stdin", stdin=command.encode())
    except GitFailed as error:
        raise explained(error, snapshot.repository) from error


def _refuse_conflicts(changes: tuple[FileChange, ...]) -> None:
    conflicted = [change for change in changes if change.kind == "conflicted"]
    if conflicted:
        raise UsageError(
            "conflicted",
            f"{len(conflicted)} files have merge conflicts",
            evidence=_listing(conflicted),
            hint="resolve them and git commit, or git merge --abort",
        )


def _refusal(found: Worktree, changes: tuple[FileChange, ...]) -> UsageError:
    counted = _with_counts(found, changes[:_LISTED])
    number = "1 uncommitted change" if len(changes) == 1 else f"{len(changes)} uncommitted changes"
    return UsageError(
        "dirty",
        f"{shown(found.root)} has {number}",
        evidence=_listing([*counted, *changes[_LISTED:]]),
        hint="git commit them, or submit with --allow-dirty to run the working tree as it is",
    )


def _listing(changes: list[FileChange]) -> tuple[str, ...]:
    lines = [_line(change) for change in changes[:_LISTED]]
    if len(changes) > _LISTED:
        lines.append(f"... and {len(changes) - _LISTED} more")
    return tuple(lines)


def _line(change: FileChange) -> str:
    counts = "" if change.added is None else f"  +{change.added} -{change.removed or 0}"
    return f"{change.kind:<10} {shown(change.path)}{counts}"


def _with_counts(found: Worktree, changes: tuple[FileChange, ...]) -> list[FileChange]:
    """The changes with their numbers of lines, where lines mean something."""
    counts: dict[str, tuple[int, int]] = {}
    for prefix, tree in [("", found), *_nested(found, "")]:
        own = [c.path[len(prefix) :] for c in changes if c.path.startswith(prefix)]
        tracked = [path for path in own if path in {e.path for e in tree.entries if e.kind != "untracked"}]
        counts.update({prefix + path: count for path, count in _tracked_counts(tree, tracked).items()})
    counted = []
    for change in changes:
        if change.kind == "untracked":
            added = _lines_of(os.path.join(found.root, change.path))
            counted.append(change._replace(added=added, removed=None if added is None else 0))
        else:
            added, removed = counts.get(change.path, (None, None))
            # Content changed beside the mode: the lines are what the reader wants to know.
            kind = "modified" if change.kind == "mode" and (added or removed) else change.kind
            counted.append(change._replace(kind=kind, added=added, removed=removed))
    return counted


def _nested(found: Worktree, prefix: str) -> list[tuple[str, Worktree]]:
    trees = []
    for module in found.submodules:
        inner = f"{prefix}{module.path}/"
        trees += [(inner, module.worktree), *_nested(module.worktree, inner)]
    return trees


def _tracked_counts(found: Worktree, paths: list[str]) -> dict[str, tuple[int, int]]:
    """Lines added and removed since HEAD, by path; binary files are absent."""
    if not paths:
        return {}
    process = found.git.start(
        "diff",
        "--numstat",
        "-z",
        "--no-ext-diff",
        "--no-textconv",
        "--no-renames",
        "--no-color",
        "--ignore-submodules=all",
        "HEAD",
        "--",
        *paths,
    )
    try:
        output = worktree.finish_reading(process, os.fsencode(found.root))
    except GitFailed:  # a FIFO in the place of a file, for one; the listing is good without numbers
        return {}
    records = [record.split("\t", 2) for record in os.fsdecode(output).split("\0")[:-1]]
    return {path: (int(added), int(removed)) for added, removed, path in records if added != "-"}


def _lines_of(path: str) -> int | None:
    """Lines of a regular text file of moderate size, else None."""
    try:
        # A FIFO must not block us, a symlink must not lead us out.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        content = os.read(fd, _COUNTED_BYTES + 1)
    finally:
        os.close(fd)
    if len(content) > _COUNTED_BYTES or b"\0" in content[:8000]:  # git's own test for binary
        return None
    return content.count(b"\n") + (content[-1:] not in (b"", b"\n"))


def _commit(found: Worktree, now: str | None) -> tuple[str, str]:
    """A commit and tree of the working tree as it is, submodules included."""
    links = {}
    for module in found.submodules:
        inner = module.worktree
        links[module.path] = _commit(inner, now)[0] if inner.is_dirty else inner.commit
    try:
        with temporary_index(found.git) as git:
            assert git.index_file is not None
            _copy_index(found.private_git_dir, git.index_file)
            tree = _write_tree(found, git, links)
    except GitFailed as error:
        raise _not_taken(error, found) from error
    return _commit_tree(found, tree, now), tree


def _write_tree(found: Worktree, git: Git, links: dict[str, str]) -> str:
    """The tree of the working tree; ``git`` works on a copy of the index."""
    _refuse_special_files(found)
    removed = [e.path for e in found.entries if e.action == worktree.REMOVE]
    added = [e.path for e in found.entries if e.action == worktree.ADD]
    # Deletions go first: what replaced a folder or a file must not stand in its way.
    if removed:
        git.run("update-index", "-z", "--force-remove", "--stdin", stdin=_paths(removed))
    if links:
        records = "".join(f"160000 {commit}\t{path}\0" for path, commit in sorted(links.items()))
        git.run("update-index", "-z", "--index-info", stdin=os.fsencode(records))
    if added:
        adding = git.start(
            "update-index", "-z", "--add", "--remove", "--replace", "--stdin", stdin=_paths(added)
        )
        worktree.finish_reading(adding, os.fsencode(found.root))
    return git.run("write-tree").decode().strip()


def _commit_tree(found: Worktree, tree: str, now: str | None) -> str:
    variables = {}
    for role in ("AUTHOR", "COMMITTER"):
        variables[f"GIT_{role}_NAME"] = _IDENTITY
        variables[f"GIT_{role}_EMAIL"] = _IDENTITY
        if now is not None:
            variables[f"GIT_{role}_DATE"] = now.partition(".")[0].rstrip("Z") + "Z"
    message = f"Working tree on top of {found.commit}"
    args = ("commit-tree", "--no-gpg-sign", "-p", found.commit, "-m", message, tree)
    return found.git.run(*args, variables=variables).decode().strip()


def _refuse_special_files(found: Worktree) -> None:
    """A FIFO, socket or device in the place of a tracked file is nothing that git can hold."""
    for entry in found.entries:
        if entry.action != worktree.ADD:
            continue
        try:
            mode = os.lstat(os.path.join(found.root, entry.path)).st_mode
        except OSError:
            continue
        if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
            raise UsageError(
                "special-file",
                f"{shown(entry.path)} was a file and is now a FIFO, socket or device",
                hint=f"git checkout -- {shown(entry.path)}",
            )


def _not_taken(error: GitFailed, found: Worktree) -> MllaunchError:
    return MllaunchError(
        "snapshot-failed",
        f"the working tree of {shown(found.root)} could not be recorded",
        evidence=tuple(shown(line) for line in error.message.splitlines()[:5]),
        hint="if files were changing meanwhile, try again; else git commit, and submit the commit",
    )


def _copy_index(private_git_dir: str, target: str) -> None:
    """With its time: git trusts an entry's size and times only if the index is younger than the file.

    Where a file was edited within a tick of the clock after it was added, a young copy would hide the edit
    (https://git-scm.com/docs/racy-git).
    """
    try:
        with open(os.path.join(private_git_dir, "index"), "rb") as source, open(target, "wb") as copy:
            info = os.fstat(source.fileno())
            copy.write(source.read())
        os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
    except FileNotFoundError:
        pass  # no index: everything is deleted and untracked at once, and git starts an empty one


def _paths(paths: list[str]) -> bytes:
    return b"".join(os.fsencode(path) + b"\0" for path in paths)
