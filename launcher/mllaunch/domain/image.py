"""The container image of a run, and what decides which packages its environment has."""

from __future__ import annotations

from typing import NamedTuple


class Lock(NamedTuple):
    """What decided the versions of the packages in an image, or in an environment on nodes.

    path: of the file in the repository. digest: ``sha256:...``. resolved: whether that file left versions open; the
    digest is then that of the resolution, which is kept in the home's folder ``locks``.
    """

    path: str
    digest: str
    resolved: bool


class Image(NamedTuple):
    """A container image that holds the code of a run.

    reference: what to call it; with a registry ``NAME@DIGEST``. digest: ``sha256:...``, of the manifest where it is in
    a registry, else what the engine identifies it by, which is id. environment: names what the code runs in. base:
    what the environment was built on. size_bytes: on the engine, all layers together.
    """

    reference: str
    digest: str
    id: str
    environment: str
    base: str
    lock: Lock | None
    size_bytes: int
