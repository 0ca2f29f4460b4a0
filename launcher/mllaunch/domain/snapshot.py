"""The exact code of a run."""

from __future__ import annotations

from typing import NamedTuple


class FileChange(NamedTuple):
    """One way in which the working tree differs from HEAD.

    kind: "staged", "modified", "deleted", "untracked", "conflicted", "mode", "submodule".
    added, removed: lines, or None where lines mean nothing (binary, too large, a submodule).
    """

    path: str
    kind: str
    added: int | None = None
    removed: int | None = None


class Snapshot(NamedTuple):
    """A commit that holds all the code of a run, and the ref that keeps it alive.

    commit, tree: full hexadecimal object ids (SHA-1 or SHA-256 repositories). base_commit: what the user had
    checked out; equal to commit when the tree was clean. uncommitted: paths that commit adds to base_commit.
    ref: under ``refs/mllaunch/``. repository: the root folder of the user's working tree, absolute. git_dir: its
    common git folder, absolute.
    branch: None when HEAD is detached. remote: the URL of ``origin`` with any credentials masked, or None.
    """

    commit: str
    tree: str
    base_commit: str
    dirty: bool
    uncommitted: tuple[str, ...]
    branch: str | None
    repository: str
    git_dir: str
    remote: str | None
    ref: str
