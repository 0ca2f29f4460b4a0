"""What a container image is made of: values and the names that are derived from them; no input or output.

An image has two parts. Its *environment* (base, system packages, dependencies) changes rarely and is built by the
engine. The *code* is one layer on top, made from a git tree. Arguments and variables of a run are in neither: a
hundred settings of one commit are one image.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

WORKSPACE = "/workspace"  # where the code is in an image
OURS = "/.mllaunch"  # where an image keeps what mllaunch wrote about it

# Labels. The first three are the OCI's, https://github.com/opencontainers/image-spec/blob/main/annotations.md
REVISION = "org.opencontainers.image.revision"
SOURCE = "org.opencontainers.image.source"
CREATED = "org.opencontainers.image.created"
TREE = "mllaunch.tree"
CODE = "mllaunch.code"
LOCK = "mllaunch.lock"
ENVIRONMENT = "mllaunch.environment"
VERSION = "mllaunch.version"

# Changes whenever the same values would give another image.
_FORMAT = 1


class ImageError(Exception):
    """An image could not be had. code: stable; message: one line; evidence: lines; hint: what to try."""

    def __init__(
        self, code: str, message: str, *, evidence: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.evidence = evidence
        self.hint = hint


class ImageRef(NamedTuple):
    """A container image. name: what to call it when asking an engine or a registry for it.

    digest: ``sha256:`` and 64 hexadecimal digits. Of an image in a registry it is the manifest's digest, and name is
    ``REGISTRY/REPOSITORY@DIGEST``; otherwise it is what the engine identifies the image by.
    """

    name: str
    digest: str


class Dependencies(NamedTuple):
    """Which packages the repository asks for, and in what form.

    kind: one of KINDS. path: of the file that says so, relative to the repository's root; None with kind "none".
    files: (path, content) of all that the installation reads, that file first; paths are relative to its folder,
    never outside of it. pinned: whether the files alone decide every version. notes: what the user should know.
    """

    kind: str
    path: str | None
    files: tuple[tuple[str, bytes], ...]
    pinned: bool
    notes: tuple[str, ...] = ()

    @property
    def lock_digest(self) -> str | None:
        """Digest of what decides the versions, ``sha256:...``; None where nothing does."""
        return digest_of_files(self.files) if self.pinned and self.files else None


KINDS = ("uv.lock", "pylock.toml", "poetry.lock", "requirements", "pyproject.toml", "environment.yml", "none")


class Environment(NamedTuple):
    """What the code runs in. Exactly one of three: a finished image, a Dockerfile of the user's, or our recipe.

    reference: a finished image. dockerfile: (path, text) in the repository; its build context is the tree.
    base, system, dependencies: our recipe. python: the command that is the tasks' interpreter in the image. c_layer:
    the C source of a library to preload, which our recipe compiles where the image has a compiler.
    """

    base: str
    system: tuple[str, ...] = ()
    dependencies: Dependencies = Dependencies("none", None, (), False)
    python: str = "python3"
    reference: str | None = None
    dockerfile: tuple[str, str] | None = None
    c_layer: bytes | None = None

    def key(self, platform: str, tree: str) -> str:
        """Names the environment: 64 hexadecimal digits. Equal for equal environments, on every machine.

        platform: such as ``linux/amd64``. tree: the git tree, which matters to a Dockerfile of the user's alone.
        """
        if self.reference is not None:
            parts: tuple[object, ...] = ("reference", self.reference)
        elif self.dockerfile is not None:
            parts = ("dockerfile", *self.dockerfile, tree)
        else:
            asked = self.dependencies
            names = [path for path, _ in asked.files]  # the first is the one that is installed from
            packages = (asked.kind, asked.path, asked.pinned, names, digest_of_files(asked.files))
            parts = ("recipe", self.base, sorted(set(self.system)), self.python, *packages)
            if self.c_layer is not None:
                parts += ("c-layer", hashlib.sha256(self.c_layer).hexdigest())
        text = json.dumps([_FORMAT, platform, *parts], separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Code(NamedTuple):
    """The committed code. committed_at: RFC 3339 in UTC, whole seconds. source: where the repository is, or None."""

    commit: str
    tree: str
    committed_at: str
    source: str | None


class ImageSpec(NamedTuple):
    """All that an image is made of. project: names the image, and nothing else. version: mllaunch's."""

    project: str
    environment: Environment
    code: Code
    version: str


def digest_of_files(files: tuple[tuple[str, bytes], ...]) -> str:
    """``sha256:`` over sorted ``path NUL size NUL content``: neither order nor place matters."""
    total = hashlib.sha256()
    for path, content in sorted(files):
        total.update(b"%s\0%d\0" % (path.encode("utf-8", "surrogateescape"), len(content)))
        total.update(content)
    return "sha256:" + total.hexdigest()
