"""Specifications of attempts in containers, to vary."""

from __future__ import annotations

from typing import Any

from mllaunch_agent.protocol import ContainerSpec, TaskSpec
from tests.unit.agent_core import specs

WORKSPACE = "/workspace"
IMAGE = "sha256:" + "1" * 64


def container(**changes: Any) -> ContainerSpec:
    made: Any = {
        "engine": "/var/run/docker.sock",
        "image": IMAGE,
        "reference": None,
        "credentials": None,
        "environment": "2" * 64,
        "workspace": WORKSPACE,
        "network": "host",
        "mounts": [],
        "shm_bytes": None,
        "memory_bytes": None,
        "cpus": None,
    }
    return {**made, **changes}


def spec(**changes: Any) -> TaskSpec:
    return specs.spec(**{"tree": None, "cache": "/cache", "container": container(), **changes})


def places(count: int) -> Any:
    return [{"rank": rank, "local_rank": rank} for rank in range(count)]
