"""What a task finds in its environment. A contract: see docs/environment.md."""

from __future__ import annotations

import os
from typing import Dict, NamedTuple, Optional, Sequence, Tuple

from mllaunch_agent.protocol import TaskPlace, TaskSpec

AGENT_MARK = (
    "MLLAUNCH_AGENT"  # in the environment of our own processes, never in a task's: sweeps spare who has it
)


_CHECKPOINTS = {"resume": "MLLAUNCH_RESUME_FROM", "weights": "MLLAUNCH_INIT_WEIGHTS"}


class Inside(NamedTuple):
    """What a task finds around it, as it sees it. trace: the folder for its processes' notes; hook: what goes on
    PYTHONPATH; code: the root of the checkout. python_path: what PYTHONPATH was without us, or None. checkpoint: what
    it starts from: ("resume" or "weights", path). preload: the C layer."""

    trace: str
    hook: str
    code: str
    python_path: Optional[str]
    checkpoint: Optional[Tuple[str, str]] = None
    preload: Optional[str] = None


def task_environment(
    spec: TaskSpec, place: TaskPlace, gpus: Sequence[str], master: Tuple[str, int], cwd: str, inside: Inside
) -> Dict[str, str]:
    """The complete environment of one task: what the submitter gave, then what mllaunch and torchrun define.

    master: where the first task can be reached, as (address, port).
    """
    local = len(spec["tasks"])
    master_addr, master_port = master
    environment = {k: v for k, v in spec["environment"].items() if k != AGENT_MARK}
    # A block-buffered stdout would hide an hour of training; no bytecode is left beside the user's code. A user
    # who sets these to something else has the last word.
    environment.setdefault("PYTHONUNBUFFERED", "1")
    environment.setdefault("PYTHONDONTWRITEBYTECODE", "1")
    python_path = environment.get("PYTHONPATH", inside.python_path)
    # First, because the first sitecustomize is the one that is run; it then runs the user's own.
    environment["PYTHONPATH"] = inside.hook + (os.pathsep + python_path if python_path else "")
    if inside.preload is not None:
        from mllaunch_agent import preload

        value = preload.environment(inside.preload, environment.get("LD_PRELOAD"))
        if value is not None:
            environment["LD_PRELOAD"] = value
    for name in _CHECKPOINTS.values():
        environment.pop(name, None)  # that of a run which has started this one
    if inside.checkpoint is not None:
        environment[_CHECKPOINTS[inside.checkpoint[0]]] = inside.checkpoint[1]
    environment.update(
        {
            "MLLAUNCH_RUN_ID": spec["run_id"],
            "MLLAUNCH_RUN_NAME": spec["run_name"],
            "MLLAUNCH_ATTEMPT": str(spec["attempt"]),
            "MLLAUNCH_OUTPUT_DIR": os.path.join(cwd, spec["output"]),
            "MLLAUNCH_TRACE": inside.trace,
            "MLLAUNCH_CODE": inside.code,
            "RANK": str(place["rank"]),
            "LOCAL_RANK": str(place["local_rank"]),
            "NODE_RANK": str(spec["node_rank"]),
            "WORLD_SIZE": str(spec["world_size"]),
            "LOCAL_WORLD_SIZE": str(local),
            "MASTER_ADDR": master_addr,
            "MASTER_PORT": str(master_port),
            "PET_NNODES": str(spec["nodes"]),
            "PET_NODE_RANK": str(spec["node_rank"]),
            # One task that leased several GPUs is most likely torchrun itself, which then starts one worker for each.
            "PET_NPROC_PER_NODE": str(local if local > 1 else max(1, len(gpus))),
            "PET_MASTER_ADDR": master_addr,
            "PET_MASTER_PORT": str(master_port),
            # An empty value hides every GPU: a run that leased none must not touch those that others lease.
            "CUDA_VISIBLE_DEVICES": ",".join(gpus),
            "PWD": cwd,
        }
    )
    return environment
