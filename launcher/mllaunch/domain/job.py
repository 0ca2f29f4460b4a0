"""What a user asks for: a value, made before anything starts."""

from __future__ import annotations

from typing import NamedTuple

GRACE_S = 30.0
LOCAL = "local"  # backends
SSH = "ssh"


class Resources(NamedTuple):
    """What one node's share of a run asks for.

    gpus: whole GPUs per node, >= 0. cpus: None asks for no particular number. memory_bytes: likewise.
    nodes: >= 1. procs_per_node: tasks per node, >= 1; 0 means "auto", one per GPU (and one if there is none).
    """

    gpus: int = 0
    cpus: int | None = None
    memory_bytes: int | None = None
    nodes: int = 1
    procs_per_node: int = 1

    @property
    def tasks_per_node(self) -> int:
        """How many tasks really start on each node."""
        return self.procs_per_node or max(1, self.gpus)

    @property
    def world_size(self) -> int:
        """How many tasks there are on all nodes."""
        return self.tasks_per_node * self.nodes


class Container(NamedTuple):
    """What a container is given besides its image. network: host, bridge, none, or a network of the engine's.
    mounts: (source, target, writable), absolute paths. shm_size_bytes: of /dev/shm; None is half of the memory."""

    network: str = "host"
    mounts: tuple[tuple[str, str, bool], ...] = ()
    shm_size_bytes: int | None = None


class JobSpec(NamedTuple):
    """One request: what to run, with what, where. Never changes once it is a run.

    argv: the command as the task will execute it. script: the user's script relative to the repository's
    root, or None for a bare command. args: what followed the script. workdir: the folder the task starts in,
    relative to the repository's root, "" for the root itself. data: paths relative to workdir.
    environment: what the user set or named for the task with --env (values included). timeout_s: None is no limit.
    grace_s: between SIGTERM and SIGKILL when it is stopped.
    c_layer: whether files that programs other than Python open are to be seen. runtime: "process" or "docker";
    runtime_why: why that one.
    """

    argv: tuple[str, ...]
    script: str | None
    args: tuple[str, ...]
    workdir: str
    resources: Resources
    project: str
    backend: str = LOCAL
    runtime: str = "process"
    runtime_why: str = "it was asked for"
    in_place: bool = False
    data: tuple[str, ...] = ()
    output: str = "outputs"
    environment: tuple[tuple[str, str], ...] = ()
    note: str | None = None
    tags: tuple[str, ...] = ()
    max_retries: int = 0
    timeout_s: float | None = None
    grace_s: float = GRACE_S
    c_layer: bool = False
