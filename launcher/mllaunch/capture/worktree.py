"""What the working tree of one repository, with its submodules, holds compared with HEAD. Changes nothing.

Three git processes: the configuration is listed first (its filters have to be switched off for the others),
then HEAD is resolved and the status computed at the same time. Submodules are inspected by ourselves, one
after the other: git's own recursion would run them with filters that were not switched off.
"""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from mllaunch.capture import lfs
from mllaunch.capture.git import Git, GitFailed, Process, explained, parse_config, shown
from mllaunch.domain.snapshot import FileChange
from mllaunch.errors import UsageError

__all__ = [
    "ADD",
    "KEEP",
    "LINK",
    "REMOVE",
    "Entry",
    "Inspection",
    "Submodule",
    "Worktree",
    "begin",
    "parse_status",
]

_PATIENCE_S = 5.0  # before looking for what git may be waiting for; a slow disk may well take longer
_LINK_MODE = b"\x00\x00\xe0\x00"


# What has to be done to an entry of a copy of the index to make it hold the working tree.
KEEP, ADD, REMOVE, LINK = "keep", "add", "remove", "link"


class Entry(NamedTuple):
    """A changed path of one working tree.

    path: relative to that tree's root. kind: as in FileChange. action: KEEP, ADD, REMOVE or LINK.
    blob: the object which the index holds for the path, if it is a tracked file. staged: HEAD has another.
    """

    path: str
    kind: str
    action: str
    blob: str | None = None
    staged: bool = False


class Submodule(NamedTuple):
    """A repository inside the working tree, by its path from the root. Registered in .gitmodules or not."""

    path: str
    worktree: Worktree


class Worktree(NamedTuple):
    """One inspected working tree. root, git_dir (common), private_git_dir: absolute. remote: as configured.

    submodules: those that are checked out, changed or not.
    """

    git: Git
    root: str
    git_dir: str
    private_git_dir: str
    commit: str
    tree: str
    branch: str | None
    remote: str | None
    entries: tuple[Entry, ...]
    submodules: tuple[Submodule, ...]

    @property
    def is_dirty(self) -> bool:
        return bool(self.entries) or any(module.worktree.is_dirty for module in self.submodules)

    def changes(self) -> tuple[FileChange, ...]:
        """Everything that differs from HEAD; files of submodules by their path from this root."""
        found = [FileChange(entry.path, entry.kind) for entry in self.entries]
        for module in self.submodules:
            found += [c._replace(path=f"{module.path}/{c.path}") for c in module.worktree.changes()]
        return tuple(found)


class Inspection(NamedTuple):
    """An inspection under way; ``finish`` must be called once."""

    git: Git
    config: dict[str, list[str]]
    heads: Process
    status: Process

    def finish(self) -> Worktree:
        """Raises UsageError for what cannot be a run's code, NotPermitted for somebody else's repository."""
        head_error: GitFailed | None = None
        try:
            heads = self.heads.finish()
        except GitFailed as error:
            heads, head_error = b"", error
        try:
            status = finish_reading(self.status, heads.split(b"\n")[0] if heads else b"")
        except GitFailed as error:
            raise explained(head_error or error, self.git.cwd) from error
        if b"# branch.oid (initial)\0" in status:
            raise UsageError(
                "no-commit", f"{shown(self.git.cwd)} has no commit yet", hint="git add -A && git commit"
            )
        if head_error is not None:
            raise explained(head_error, self.git.cwd)
        return self._read(os.fsdecode(heads).split("\n")[:-1], os.fsdecode(status).split("\0")[:-1])

    def _read(self, heads: list[str], records: list[str]) -> Worktree:
        if len(heads) != 5:
            raise UsageError("odd-path", f"the path of {shown(self.git.cwd)} contains a line break")
        root, git_dir, private_git_dir, commit, tree = heads
        if records[0] != f"# branch.oid {commit}":
            return begin(self.git.cwd).finish()  # somebody committed between the two processes: look again
        branch = records[1][len("# branch.head ") :]
        git = self.git._replace(cwd=root)
        entries = _without_smudged(git, root, parse_status(records))
        modules = {e.path for e in entries if e.action == LINK} | _links_in_index(git, private_git_dir)
        return Worktree(
            git=git,
            root=root,
            git_dir=git_dir,
            private_git_dir=private_git_dir,
            commit=commit,
            tree=tree,
            branch=None if branch == "(detached)" else branch,
            remote=self.config.get("remote.origin.url", [None])[0],
            entries=tuple(entries),
            submodules=tuple(
                Submodule(path, begin(os.path.join(root, path)).finish())
                for path in sorted(modules)
                if _is_checked_out(root, path)
            ),
        )


def begin(cwd: str) -> Inspection:
    """Start looking at the working tree that ``cwd`` is in. Takes as long as listing git's configuration."""
    git = Git(cwd)
    heads = git.start(
        "rev-parse",
        "--path-format=absolute",
        "--show-toplevel",
        "--git-common-dir",
        "--git-dir",
        "HEAD",
        "HEAD^{tree}",
    )
    try:
        config = parse_config(git.run("config", "--list", "-z"))
    except GitFailed as error:
        heads.discard()
        raise explained(error, cwd) from error
    git = git.inspecting(config)
    status = git.start(
        "status",
        "--porcelain=v2",
        "-z",
        "--branch",
        "--no-ahead-behind",
        "--no-renames",
        "--untracked-files=all",
        "--ignore-submodules=dirty",
    )
    return Inspection(git, config, heads, status)


def finish_reading(process: Process, root: bytes) -> bytes:
    """Finish a command that reads the working tree at ``root``; UsageError if a FIFO keeps it from ending.

    git opens .gitignore and .gitattributes without looking at what they are, and waits for a FIFO for ever.
    """
    if root and not process.has_ended_within(_PATIENCE_S):
        for folder, _, names in os.walk(root):
            for name in {b".gitignore", b".gitattributes", b"exclude", b"attributes"}.intersection(names):
                path = os.path.join(folder, name)
                if stat.S_ISFIFO(os.lstat(path).st_mode):
                    process.kill()
                    raise UsageError(
                        "special-file",
                        f"{shown(os.fsdecode(path))} is a FIFO, which git would read for ever",
                        hint="remove it",
                    )
    return process.finish()


def parse_status(records: list[str]) -> list[Entry]:
    """Changed paths, from the records of git-status(1), "Porcelain Format Version 2". Pure."""
    entries: dict[str, Entry] = {}
    for record in records:
        if record.startswith("1 "):
            entry = _tracked(record)
        elif record.startswith("u "):
            entry = Entry(record.split(" ", 10)[10], "conflicted", ADD)
        elif record.startswith("? "):  # also after a staged deletion of the same path, which it replaces
            path = record[2:]
            # A trailing slash is how git shows a repository of its own inside the tree.
            entry = Entry(path.rstrip("/"), "untracked", LINK if path.endswith("/") else ADD)
        else:
            continue
        entries[entry.path] = entry
    return list(entries.values())


def _tracked(record: str) -> Entry:
    _, xy, sub, in_head, in_index, in_tree, head, index, path = record.split(" ", 8)
    staged, unstaged = xy[0], xy[1]
    if in_tree == "000000":
        return Entry(path, "deleted", REMOVE)
    if sub[0] == "S":
        return Entry(path, "submodule", LINK)
    regular = all(mode.startswith("100") for mode in (in_head, in_index, in_tree))
    only_mode = regular and head == index and in_tree != in_head
    if unstaged == ".":
        return Entry(path, "mode" if only_mode else "staged", KEEP, index, True)
    # Whether the content changed as well, status does not say; the line counts will.
    return Entry(path, "mode" if only_mode else "modified", ADD, index, staged != ".")


def _without_smudged(git: Git, root: str, entries: list[Entry]) -> list[Entry]:
    """Correct what only seems changed because an LFS file holds the bytes that its pointer stands for."""
    candidates = {entry.path: entry.blob for entry in entries if entry.action == ADD and entry.blob}
    if not candidates:
        return entries
    pointers = lfs.pointers(git, set(candidates.values()))
    kept = []
    for entry in entries:
        pointer = pointers.get(candidates.get(entry.path, ""))
        if pointer is None or not lfs.holds(os.path.join(root, entry.path), pointer):
            kept.append(entry)
        elif entry.staged:
            kept.append(entry._replace(action=KEEP, kind="staged"))
    return kept


def _links_in_index(git: Git, private_git_dir: str) -> set[str]:
    """Paths of the submodules in the index. Lists the index only if it can contain any."""
    try:
        with open(os.path.join(private_git_dir, "index"), "rb") as file:
            raw = file.read()
    except FileNotFoundError:
        return set()
    # All versions store an entry's mode as four plain bytes (gitformat-index(5)): their absence is proof.
    # A split index ("link") keeps most entries in another file.
    if _LINK_MODE not in raw and b"link" not in raw[-4096:]:
        return set()
    records = os.fsdecode(git.run("ls-files", "--stage", "-z")).split("\0")[:-1]
    return {record.split("\t", 1)[1] for record in records if record.startswith("160000 ")}


def _is_checked_out(root: str, path: str) -> bool:
    """Whether the folder is a repository of its own; if not, git would find the outer one again."""
    folder = os.path.join(root, path)
    return os.path.lexists(os.path.join(folder, ".git")) and not os.path.islink(folder)
