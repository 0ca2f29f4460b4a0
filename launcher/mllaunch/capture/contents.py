"""The files of a commit, read from git's objects: never from the working directory."""

from __future__ import annotations

import os
import posixpath

from mllaunch.capture.git import Git, GitFailed, Process, explained
from mllaunch.domain.snapshot import Snapshot
from mllaunch.errors import NotFound

__all__ = ["Contents"]

_LINKS = 16  # a chain of more is a loop


class Contents:
    """Paths are relative to the root, with slashes; names that are not UTF-8 hold lone surrogates (PEP 383)."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._git = Git(snapshot.git_dir, git_dir=snapshot.git_dir)
        self._repository = snapshot.repository
        # At once, since a submission waits for both.
        files = self._git.start("ls-tree", "-r", "-z", "--full-tree", snapshot.tree)
        made_at = self._git.start("show", "--no-patch", "--format=%ct", snapshot.commit)
        try:
            listing = files.finish()
        except GitFailed as error:
            made_at.discard()
            raise explained(error, self._repository) from error
        self._made_s = int(self._finished(made_at))
        self._objects: dict[str, tuple[str, str]] = {}
        for record in listing.split(b"\0")[:-1]:
            meta, _, path = record.partition(b"\t")
            mode, kind, oid = meta.decode().split(" ")
            if kind == "blob":
                self._objects[os.fsdecode(path)] = (mode, oid)

    @property
    def paths(self) -> frozenset[str]:
        """Of all files and symbolic links, those in submodules left out."""
        return frozenset(self._objects)

    def read(self, path: str) -> bytes:
        """The content of a file, also by way of links within the commit. NotFound."""
        place = path
        for _ in range(_LINKS):
            if place not in self._objects:
                break
            mode, oid = self._objects[place]
            content = self._run("cat-file", "blob", oid)
            if mode != "120000":
                return content
            place = posixpath.normpath(posixpath.join(posixpath.dirname(place), os.fsdecode(content)))
        raise NotFound("no_such_file", f"{path} is not a file of the commit")

    def committed_at(self) -> str:
        """When the commit was made: RFC 3339 in UTC, whole seconds; 1970 for a time before it."""
        import time

        seconds = min(max(0, self._made_s), 253402300799)  # 9999-12-31, the last that can be written
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))

    def _run(self, *args: str) -> bytes:
        return self._finished(self._git.start(*args))

    def _finished(self, process: Process) -> bytes:
        try:
            return process.finish()
        except GitFailed as error:
            raise explained(error, self._repository) from error
