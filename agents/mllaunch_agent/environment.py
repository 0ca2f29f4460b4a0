"""What a task finds in its environment. A contract: see docs/environment.md."""

from __future__ import annotations

import os
from typing import Dict, NamedTuple, Optional, Sequence

from mllaunch_agent.protocol import TaskPlace, TaskSpec

AGENT_MARK = (
    "MLLAUNCH_AGENT"  # in the environment of our own processes, never in a task's: sweeps spare who has it
)


class Tracing(NamedTuple):
    """How a task's processes note what they do. trace: the folder for the notes; hook: what goes on PYTHONPATH; code:
    the root of the checkout; all as the task sees them. python_path: what PYTHONPATH was without us, or None."""

    trace: str
    hook: str
    code: str
    python_path: Optional[str]


def task_environment(
    spec: TaskSpec, place: TaskPlace, gpus: Sequence[str], master_port: int, cwd: str, tracing: Tracing
) -> Dict[str, str]:
    """The complete environment of one task: what the submitter gave, then what mllaunch and torchrun define."""
    local = len(spec["tasks"])
    environment = {k: v for k, v in spec["environment"].items() if k != AGENT_MARK}
    # A block-buffered stdout would hide an hour of training; no bytecode is left beside the user's code. A user
    # who sets these to something else has the last word.
    environment.setdefault("PYTHONUNBUFFERED", "1")
    environment.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    python_path = environment.get("PYTHONPATH", tracing.python_path)
    # First, because the first sitecustomize is the one that is run; it then runs the user's own.
    environment["PYTHONPATH"] = tracing.hook + (os.pathsep + python_path if python_path else "")
    environment.update(
        {
            "MLLAUNCH_RUN_ID": spec["run_id"],
            "MLLAUNCH_RUN_NAME": spec["run_name"],
            "MLLAUNCH_ATTEMPT": str(spec["attempt"]),
            "MLLAUNCH_OUTPUT_DIR": os.path.join(cwd, spec["output"]),
            "MLLAUNCH_TRACE": tracing.trace,
            "MLLAUNCH_CODE": tracing.code,
            "RANK": str(place["rank"]),
            "LOCAL_RANK": str(place["local_rank"]),
            "NODE_RANK": str(spec["node_rank"]),
            "WORLD_SIZE": str(spec["world_size"]),
            "LOCAL_WORLD_SIZE": str(local),
            "MASTER_ADDR": spec["master_addr"],
            "MASTER_PORT": str(master_port),
            "PET_NNODES": str(spec["nodes"]),
            "PET_NODE_RANK": str(spec["node_rank"]),
            # One task that leased several GPUs is most likely torchrun itself, which then starts one worker for each.
            "PET_NPROC_PER_NODE": str(local if local > 1 else max(1, len(gpus))),
            "PET_MASTER_ADDR": spec["master_addr"],
            "PET_MASTER_PORT": str(master_port),
            # An empty value hides every GPU: a run that leased none must not touch those that others lease.
            "CUDA_VISIBLE_DEVICES": ",".join(gpus),
            "PWD": cwd,
        }
    )
    return environment
