"""Every key of the configuration, once: what it may be, what it is when nobody says, and what it means."""

from __future__ import annotations

from typing import Any, NamedTuple

from mllaunch.config import kinds
from mllaunch.config.kinds import Kind


class Setting(NamedTuple):
    """One key.

    default: the checked value when nobody sets the key; None also means that null may be written. flag: of
    submit and run.
    """

    key: str
    kind: Kind
    default: Any
    doc: str
    flag: str | None = None

    @property
    def variable(self) -> str:
        return "MLLAUNCH_" + self.key.upper().replace(".", "_")

    @property
    def field(self) -> str:
        """Where Config has the value: ``resources.memory_bytes``."""
        return self.key + self.kind.unit


SETTINGS = (
    Setting(
        "project", kinds.TEXT, None, "Groups runs; the repository's folder name if not set.", "--project"
    ),
    Setting(
        "backend", kinds.choice("local", "ssh", "ray"), "local", "What decides where tasks run.", "--backend"
    ),
    Setting(
        "runtime", kinds.choice("auto", "docker", "process"), "auto", "How a task is started.", "--runtime"
    ),
    Setting(
        "dirty",
        kinds.choice("refuse", "snapshot"),
        "refuse",
        "Uncommitted changes: refuse to submit, or run a commit made of them.",
        "--allow-dirty",
    ),
    Setting("resources.gpus", kinds.count(0, 1024), 0, "GPUs on each node.", "--gpus"),
    Setting("resources.cpus", kinds.count(1, 65536), None, "CPUs on each node.", "--cpus"),
    Setting("resources.memory", kinds.MEMORY, None, "Memory on each node.", "--memory"),
    Setting("resources.nodes", kinds.count(1, 65536), 1, "How many nodes.", "--nodes"),
    Setting(
        "resources.procs_per_node",
        kinds.PROCS,
        1,
        'Tasks on each node; "auto" is one for each GPU.',
        "--procs-per-node",
    ),
    Setting("image.base", kinds.TEXT, "python:3.11-slim", "The image to build on."),
    Setting("image.system", kinds.TEXTS, (), "System packages to add to the image."),
    Setting("image.reference", kinds.TEXT, None, "A finished image to use as it is.", "--image"),
    Setting("image.dockerfile", kinds.TEXT, None, "A Dockerfile of your own."),
    Setting(
        "image.dependencies",
        kinds.TEXT,
        None,
        "The file that says which packages to install; found by itself when not set.",
    ),
    Setting("image.registry", kinds.TEXT, None, "Where to push images, so that other nodes can pull them."),
    Setting(
        "container.network",
        kinds.TEXT,
        "host",
        "What a container can reach: host, bridge, none, or a network of the engine's.",
    ),
    Setting(
        "container.mounts",
        kinds.MOUNTS,
        (),
        "What else of the node a container sees: PATH or SOURCE:TARGET, read-only unless :rw follows.",
    ),
    Setting("container.shm_size", kinds.MEMORY, None, "Size of /dev/shm; half of the memory when not set."),
    Setting(
        "python",
        kinds.TEXT,
        None,
        "Interpreter of the process runtime; when not set the one on PATH, on nodes an environment made from the lock.",
        "--python",
    ),
    Setting(
        "env",
        kinds.VARIABLES,
        (),
        "Variables of the task: NAME passes yours on, NAME=VALUE sets one. Places add up, by name.",
        "--env",
    ),
    Setting("data", kinds.DATA, (), "Paths outside of git that the task reads; fingerprinted.", "--data"),
    Setting("output", kinds.OUTPUT, "outputs", "Where the task writes.", "--output"),
    Setting("resume_args", kinds.CHECKPOINT_ARGS, (), "Arguments that continue from a checkpoint."),
    Setting("weights_args", kinds.CHECKPOINT_ARGS, (), "Arguments that start from a checkpoint's weights."),
    Setting(
        "c_layer",
        kinds.choice("off", "on"),
        "off",
        "Also see which files programs open that are not Python; needs a C compiler, on the node or in the image.",
    ),
    Setting("nodes", kinds.ADDRESSES, (), "The machines of the ssh backend.", "--node"),
    Setting("ssh.known_hosts", kinds.TEXT, None, "Host keys to trust; the user's own file when not set."),
    Setting("ssh.config", kinds.TEXT, None, "ssh configuration; the user's own file when not set."),
    Setting(
        "ssh.lease", kinds.DURATION, 1800.0, "How long a node may be silent before its run counts as lost."
    ),
    Setting(
        "keep",
        kinds.DURATION,
        604800.0,
        "How long `prune` spares ended runs, and unused code stays on nodes.",
    ),
    Setting("server", kinds.URL, None, "Address of a mllaunch server."),
    Setting("ray.address", kinds.TEXT, None, "Address of a Ray cluster."),
)
BY_KEY = {setting.key: setting for setting in SETTINGS}
SECTIONS = frozenset(setting.key.partition(".")[0] for setting in SETTINGS if "." in setting.key)
