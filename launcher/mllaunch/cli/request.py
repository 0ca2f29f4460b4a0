"""What is asked for on the command line, in the words of the configuration and of the domain.

Without click: a submission that gives no options (``submit train.py --lr 3``) needs no option parser.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mllaunch.domain.job import LOCAL, SSH
from mllaunch.errors import UsageError

if TYPE_CHECKING:
    from mllaunch.config import Config
    from mllaunch.domain.job import Resources
    from mllaunch.domain.placement import Wish
    from mllaunch.usecases.runtime import Choice

# The options by what they hold when they are not given.
_WITH_VALUE = (
    *("gpus", "nodes", "procs_per_node", "cpus", "memory", "backend", "runtime", "image", "python", "output"),
    *("name", "note", "project", "timeout", "grace"),
)
_REPEATED = ("env", "data", "tags", "node")
_FLAGS = ("allow_dirty", "in_place", "dry_run", "as_json")


def is_plain(arguments: list[str]) -> bool:
    """Whether the arguments of `submit` or `run` are a script and what belongs to it, without any option."""
    return bool(arguments) and not arguments[0].startswith("-")


def plain(words: list[str]) -> dict[str, Any]:
    """What is asked when no option is given: the same as the option parser makes of it."""
    asked: dict[str, Any] = dict.fromkeys(_WITH_VALUE)
    asked.update(dict.fromkeys(_REPEATED, ()))
    asked.update(dict.fromkeys(_FLAGS, False))
    asked.update(max_retries=0, words=tuple(words), is_command=False)
    return asked


def flags(asked: dict[str, Any]) -> dict[str, object]:
    """Flags in the configuration's own words; what was not given is left out."""
    names = {
        "project": "project",
        "backend": "backend",
        "runtime": "runtime",
        "image.reference": "image",
        "python": "python",
        "output": "output",
        "resources.gpus": "gpus",
        "resources.cpus": "cpus",
        "resources.memory": "memory",
        "resources.nodes": "nodes",
        "resources.procs_per_node": "procs_per_node",
    }
    found: dict[str, object] = {
        key: asked[option] for key, option in names.items() if asked[option] is not None
    }
    for key in ("env", "data"):
        if asked[key]:
            found[key] = list(asked[key])
    return found


def resources(asked: dict[str, Any], config: Config, wanted: Wish) -> Resources:
    from mllaunch.domain.job import Resources

    given = config.resources
    return Resources(
        given.gpus,
        given.cpus,
        given.memory_bytes,
        # Who names three nodes wants three.
        len(wanted.names) if wanted.exactly and asked["nodes"] is None else given.nodes,
        given.procs_per_node,
    )


def request(
    asked: dict[str, Any], config: Config, choice: Choice, resources: Resources, root: str, cwd: str
) -> Any:
    from mllaunch.config.units import parse_duration
    from mllaunch.domain.job import GRACE_S
    from mllaunch.usecases.plan import Request

    if asked["tags"] or asked["note"]:
        from mllaunch.domain.annotations import check_note, check_tags

        check_tags(asked["tags"])
        check_note(asked["note"] or "")

    def duration_s(option: str) -> float | None:
        try:
            return parse_duration(asked[option]) if asked[option] else None
        except ValueError as e:
            raise UsageError(option, f"--{option} {asked[option]}: {e}") from e

    def base(option: str) -> str:
        """Paths on the command line start where it was typed, those in a configuration at the root."""
        return cwd if asked[option] else root

    grace_s = duration_s("grace")
    return Request(
        words=tuple(asked["words"]),
        is_command=asked["is_command"],
        resources=resources,
        project=config.project,
        backend=config.backend,
        runtime=choice.runtime,
        runtime_why=choice.why,
        in_place=asked["in_place"],
        python=config.interpreter(base("python")),
        environment=tuple(config.env),
        data=tuple(os.path.join(base("data"), path) for path in config.data),
        output=config.output,
        note=asked["note"],
        tags=tuple(asked["tags"]),
        max_retries=asked["max_retries"],
        timeout_s=duration_s("timeout"),
        grace_s=GRACE_S if grace_s is None else grace_s,
        c_layer=config.c_layer == "on",
    )


def check_backend(asked: dict[str, Any], config: Config) -> None:
    """What is accepted by the configuration's format but not by this version, or not together."""
    if config.backend not in (LOCAL, SSH):
        raise UsageError(
            "backend", f"backend {config.backend} is not in this version", hint="--backend local or ssh"
        )
    if config.server is not None:
        raise UsageError(
            "server",
            f"server {config.server}: servers are not in this version, so the record would stay here",
            hint="mllaunch config --show-origin   says where that is set; leave it out",
        )
    if config.backend == LOCAL and asked["node"]:
        raise UsageError(
            "node", f"--node {asked['node'][0]}: the local backend has no nodes", hint="--backend ssh"
        )
    if config.backend == SSH and asked["in_place"]:
        raise UsageError("in_place", "--in-place is for this machine, not for nodes", hint="--backend local")


def check_network(config: Config, choice: Choice, resources: Resources) -> None:
    """Tasks in containers find each other on their nodes' network alone."""
    if choice.engine is not None and resources.world_size > 1 and config.container.network != "host":
        raise UsageError(
            "network",
            f"several tasks find each other on the host's network, not on {config.container.network}",
            hint="container: {network: host}, or one task that starts the others, such as torchrun",
        )


def valid_name(name: str) -> str:
    import re

    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name):
        raise UsageError(
            "name",
            f"{name[:80]!r} cannot name a run",
            hint="up to 63 small letters, digits, '.', '_' and '-', beginning with a letter or digit",
        )
    return name
