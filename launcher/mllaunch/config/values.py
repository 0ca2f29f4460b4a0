"""What the configuration says once it is read: immutable values with units in their names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from mllaunch.domain.job import Container, Resources


class Image(NamedTuple):
    """The container image: what to build on, or a finished image by reference."""

    base: str
    system: tuple[str, ...]
    reference: str | None
    dockerfile: str | None
    dependencies: str | None
    registry: str | None


class NodeAddress(NamedTuple):
    """One machine for the ssh backend. host, user, port: None leaves it to the user's ssh configuration.

    python: the interpreter there, for the agent and the tasks; None is the one on its PATH. groups, labels: by which
    it can be chosen; labels are (name, value) pairs.
    """

    name: str
    host: str | None = None
    user: str | None = None
    port: int | None = None
    python: str | None = None
    groups: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()


class Ssh(NamedTuple):
    """How nodes are reached. lease_s: how long a node may be silent before its run is given up."""

    known_hosts: str | None
    config: str | None
    lease_s: float


class Ray(NamedTuple):
    address: str | None


class Config(NamedTuple):
    """The effective configuration.

    env: (NAME, VALUE) pairs; VALUE None takes the submitter's own. output: relative to the work folder, never
    outside of it. python: None is the one on PATH. keep_s: how long nodes keep a run's files after its end.
    origins: for every key (``resources.gpus``; ``env.NAME`` for each variable), where its value came from.
    """

    project: str
    backend: str
    runtime: str
    dirty: str
    resources: Resources
    image: Image
    container: Container
    python: str | None
    env: tuple[tuple[str, str | None], ...]
    data: tuple[str, ...]
    output: str
    resume_args: tuple[str, ...]
    weights_args: tuple[str, ...]
    c_layer: str
    nodes: tuple[NodeAddress, ...]
    ssh: Ssh
    keep_s: float
    server: str | None
    ray: Ray
    origins: Mapping[str, str]

    @property
    def python_is_typed(self) -> bool:
        """Whether a flag or a variable names the interpreter: it goes before those of nodes."""
        return self.origins["python"] in ("--python", "MLLAUNCH_PYTHON")

    def interpreter(self, base: str) -> str | None:
        """The interpreter as runs are told it: a relative path starts at ``base``; ``~`` is for the machine that has it
        to read.
        """
        python = self.python
        if python is None or os.sep not in python or python.startswith("~"):
            return python
        return os.path.join(base, python)
