"""Which packages a commit asks for; what was found out once about a commit is remembered."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from typing import NamedTuple, Protocol

from mllaunch_agent import system
from mllaunch_containers.spec import Dependencies

_FORMAT = 1
_NONE = Dependencies("none", None, (), False)


class Wanted(NamedTuple):
    """What an image needs to know of a commit. dockerfile: (path, text) of the configured one."""

    dependencies: Dependencies
    dockerfile: tuple[str, str] | None
    committed_at: str


class Commit(Protocol):
    """The files of a commit."""

    @property
    def paths(self) -> frozenset[str]:
        """Of all of them, relative to the root."""

    def read(self, path: str) -> bytes:
        """The content of one."""

    def committed_at(self) -> str:
        """RFC 3339 in UTC, whole seconds."""


def of_commit(
    name: str,
    commit: Callable[[], Commit],
    workdir: str,
    chosen: str | None,
    dockerfile: str | None,
    finished: bool,
    cache: str,
) -> Wanted:
    """Read what the commit of that name says. chosen, dockerfile: configured paths, relative to the root. finished: the
    packages are those of a finished image, whatever the commit says. MllaunchError."""
    import hashlib

    question = json.dumps([_FORMAT, name, workdir, chosen, dockerfile, finished])
    path = os.path.join(cache, f"dependencies-{hashlib.sha256(question.encode()).hexdigest()[:32]}.json")
    known = system.read_file(path)
    if known is not None:
        try:
            return _decode(known)
        except (ValueError, TypeError, KeyError):
            pass  # torn by a crash: found out anew
    found = _read(commit(), workdir, chosen, dockerfile, finished)
    system.write_atomic(path, _encode(found))
    return found


def _read(commit: Commit, workdir: str, chosen: str | None, dockerfile: str | None, finished: bool) -> Wanted:
    from mllaunch.errors import UsageError
    from mllaunch.images.builder import explained
    from mllaunch_containers.dependencies import choose
    from mllaunch_containers.spec import ImageError

    at = commit.committed_at()
    if finished:
        return Wanted(_NONE, None, at)
    if dockerfile is not None:
        if dockerfile not in commit.paths:
            raise UsageError(
                "no_dockerfile",
                f"image.dockerfile: there is no {dockerfile} in the commit",
                hint="its path starts at the repository's root, and it must be committed",
            )
        text = commit.read(dockerfile).decode("utf-8", "replace")
        return Wanted(_NONE, (dockerfile, text), at)
    try:
        return Wanted(choose(commit.paths, commit.read, workdir, chosen), None, at)
    except ImageError as error:
        raise explained(error) from error


def _encode(found: Wanted) -> bytes:
    asked = found.dependencies
    files = [[path, base64.b64encode(content).decode()] for path, content in asked.files]
    fields = {**asked._asdict(), "files": files}
    return json.dumps({**found._asdict(), "dependencies": fields}).encode("ascii")


def _decode(text: bytes) -> Wanted:
    document = json.loads(text)
    asked = document["dependencies"]
    files = tuple((path, base64.b64decode(content)) for path, content in asked["files"])
    dependencies = Dependencies(asked["kind"], asked["path"], files, asked["pinned"], tuple(asked["notes"]))
    dockerfile = document["dockerfile"]
    return Wanted(dependencies, dockerfile and (dockerfile[0], dockerfile[1]), document["committed_at"])
