"""Where the objects of submodules are on this machine. Nothing is ever fetched."""

from __future__ import annotations

import os
from collections.abc import Callable

from mllaunch.capture.git import Git, GitFailed
from mllaunch.domain.snapshot import Snapshot

__all__ = ["Locate", "locator"]

Locate = Callable[[bytes, str], "Git | None"]


def locator(snapshot: Snapshot) -> Locate:
    """Finds, by path from the root and commit, the repository that holds a submodule's commit, if any does.

    Looked at: the submodule's folder in the user's working tree, then where git keeps those it has absorbed.
    """

    def locate(path: bytes, commit: str) -> Git | None:
        name = os.fsdecode(path)
        folder = os.path.join(snapshot.repository, name)
        # Without its own .git, git would find the outer repository from inside the folder.
        if os.path.lexists(os.path.join(folder, ".git")):
            try:
                found = Git(folder).run("rev-parse", "--path-format=absolute", "--git-common-dir")
            except GitFailed:
                return None
            git_dir = os.fsdecode(found)[:-1]
        else:
            git_dir = os.path.join(snapshot.git_dir, "modules", name)
            if not os.path.isdir(git_dir):
                return None
        git = Git(git_dir, git_dir=git_dir)
        try:
            git.run("cat-file", "-e", f"{commit}^{{tree}}")
        except GitFailed:
            return None
        return git

    return locate
