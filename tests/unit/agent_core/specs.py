"""A TaskSpec to vary."""

from __future__ import annotations

from typing import Any

from mllaunch_agent import PROTOCOL_VERSION
from mllaunch_agent.protocol import TaskSpec


def spec(**changes: Any) -> TaskSpec:
    made: Any = {
        "protocol": PROTOCOL_VERSION,
        "run_id": "01a1fda8-4fdf-7b40-87d1-8265aab3f1cc",
        "run_name": "brave-otter-17",
        "attempt": 1,
        "node": "n",
        "node_rank": 0,
        "nodes": 1,
        "folder": "/attempt",
        "argv": ["python", "train.py"],
        "workdir": "",
        "tree": "/tree",
        "in_place": None,
        "data": [],
        "output": "outputs",
        "environment": {},
        "secrets": [],
        "named": [],
        "tasks": [{"rank": 0, "local_rank": 0}],
        "world_size": 1,
        "gpus": 0,
        "timeout_s": None,
        "grace_s": 30.0,
        "python": None,
        "import_path": [],
        "master_addr": "127.0.0.1",
        "user": "someone",
        "lease_dir": None,
    }
    return {**made, **changes}
