"""Whether a container engine answers on this machine, and what it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple


class Answer(NamedTuple):
    """socket: where the engine listens, or would. version: what it says of itself, None if it does not answer;
    problem then says why, is_denied that it is there but not for this user, and remedy what to try, where that is not
    the usual."""

    socket: str
    version: dict[str, Any] | None
    problem: str | None = None
    is_denied: bool = False
    remedy: str | None = None

    @property
    def platform(self) -> str:
        """What it runs, such as ``linux/amd64``."""
        version = self.version or {}
        return f"{version.get('Os', 'linux')}/{version.get('Arch', 'amd64')}"

    @property
    def title(self) -> str:
        """Such as ``Docker 20.10.24``."""
        version = self.version or {}
        parts = version.get("Components") or [{}]
        name = "Podman" if "Podman" in str(parts[0].get("Name")) else "Docker"
        return f"{name} {version.get('Version', '')}".strip()


def ask(environ: Mapping[str, str]) -> Answer:
    """Ask the engine that the environment names. An engine on another machine counts as none: it has not our files."""
    from mllaunch_agent.engine import Engine, EngineGone, socket_path

    socket = socket_path(environ)
    if socket is None:
        host = environ.get("DOCKER_HOST", "")
        return Answer("", None, f"DOCKER_HOST={host} is no unix socket of this machine")
    if not os.path.exists(socket):
        return Answer(socket, None, f"no container engine answers at {socket}")
    try:
        return Answer(socket, Engine(socket).version())
    except EngineGone as error:
        if isinstance(error.__cause__, PermissionError):
            return Answer(socket, None, f"you may not use the container engine at {socket}", is_denied=True)
        return Answer(socket, None, f"no container engine answers at {socket} ({_cause(error)})")
    except OSError as error:
        return Answer(socket, None, f"the container engine at {socket} refuses: {error}")


def _cause(error: OSError) -> str:
    cause = error.__cause__
    return (cause.strerror or str(cause)) if isinstance(cause, OSError) else str(error)
