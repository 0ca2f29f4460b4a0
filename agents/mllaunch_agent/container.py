"""What a task's container is given: the engine's create request, from a TaskSpec; pure.

stdout and stderr are files of the node here too, opened inside by a shell that then becomes the task: so neither the
death of the agent nor that of the engine can lose or hold up a byte. An image without a shell prints to the engine.
"""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from mllaunch_agent import tracing
from mllaunch_agent.protocol import ContainerSpec, TaskPlace, TaskSpec

__all__ = [
    "CHECKPOINT",
    "C_LAYER",
    "ENGINE",
    "FILES",
    "HOOK",
    "NO_GPU",
    "PODMAN_LOG",
    "PROBE_LABEL",
    "SHELL",
    "TRACE",
    "Host",
    "Manner",
    "checkpoint",
    "labels",
    "mounts",
    "name",
    "request",
    "workdir",
]

SHELL = "/bin/sh"
PODMAN_LOG = "k8s-file"
PROBE_LABEL = "mllaunch.probe"  # of containers that only ask an image something
FILES, ENGINE = "files", "engine"  # where a container prints to
_OURS = "/.mllaunch"
TRACE = _OURS + "/trace"  # where the task's processes leave their notes
CHECKPOINT = _OURS + "/checkpoint"  # the folder of the checkpoint that it starts from
HOOK = _OURS + "/hook"  # what rides inside of them
C_LAYER = _OURS + "/c-layer"  # of the image: preload.so, or why there is none
NO_GPU = (
    "GPUs were asked for, and the container has none: is the NVIDIA container toolkit installed on this node?"
)

# Until the last but one line the shell prints to the engine, and so says why it could not begin. It sets no variable
# of its own but in a subshell: what is set here and was in the environment would reach the task.
_SCRIPT = """\
if [ "$MLLAUNCH_GPUS_WANTED" ]; then
    unset MLLAUNCH_GPUS_WANTED
    (for gpu in /dev/nvidia[0-9]* /dev/dxg /dev/nvhost-gpu; do [ -e "$gpu" ] && exit; done; exit 1) ||
        { echo "%s" >&2; exit 125; }
fi
command -v -- "$1" >/dev/null || { echo "No such file or directory: $1" >&2; exit 127; }
exec >>%s/stdout 2>>%s/stderr || exit 125
""" % (NO_GPU, _OURS, _OURS)
_BEGIN = 'exec "$@"\n'
# Only the shell knows what the image preloads; and itself it is none of the task's programs.
_PRELOAD = 'export LD_PRELOAD="${LD_PRELOAD:+$LD_PRELOAD }%s/preload.so"\n' % C_LAYER

# The engine keeps what it is told to keep; its own default would drop old output.
_UNLIMITED_LOG = {"Type": "local", "Config": {"max-size": "100g", "max-file": "2", "compress": "false"}}
_LITTLE_LOG = {"Type": "local", "Config": {"max-size": "1m", "max-file": "2", "compress": "false"}}
_LIMITS = [
    {"Name": "memlock", "Soft": -1, "Hard": -1},  # for pinned memory and RDMA
    {"Name": "stack", "Soft": 64 << 20, "Hard": 64 << 20},  # what NVIDIA's images ask for
]


class Manner(NamedTuple):
    """What depends on the image and the engine, and is found out at the first start. prints: FILES or ENGINE.
    limits: whether the engine may raise limits (one that is itself in a container may not). log: the driver that keeps
    what is printed to the engine, byte for byte; Podman has not got Docker's."""

    prints: str = FILES
    limits: bool = True
    log: str = "local"


class Host(NamedTuple):
    """What of the node matters: who the tasks are to be (those of the agent), and its memory.

    user: ``UID:GID``. groups: further group ids. account: the user's name.
    """

    user: str
    groups: Sequence[int]
    account: str
    memory_bytes: int


def name(spec: TaskSpec, rank: int) -> str:
    """The container's name. Which attempt and rank it is decides it, so the engine lets only one be made."""
    return "mllaunch-%s-%s-%d-%d" % (spec["run_name"], spec["run_id"][-12:], spec["attempt"], rank)


def labels(spec: TaskSpec, rank: int, gpus: Sequence[str], output: str) -> Dict[str, str]:
    """What tells a container of ours, and whose it is."""
    return {
        "mllaunch.run": spec["run_id"],
        "mllaunch.run-name": spec["run_name"],
        "mllaunch.attempt": str(spec["attempt"]),
        "mllaunch.rank": str(rank),
        "mllaunch.node": spec["node"],
        "mllaunch.gpus": ",".join(gpus),
        "mllaunch.folder": spec["folder"],
        "mllaunch.output": output,
    }


def workdir(spec: TaskSpec, container: ContainerSpec) -> str:
    """The folder that the task starts in, as it sees it."""
    return container["workspace"] + ("/" + spec["workdir"] if spec["workdir"] else "")


def checkpoint(spec: TaskSpec) -> Optional[Tuple[str, str]]:
    """What the task starts from, as it sees it: ("resume" or "weights", path)."""
    wanted = spec.get("checkpoint")
    return None if wanted is None else (wanted["kind"], "%s/%s" % (CHECKPOINT, wanted["name"]))


def request(
    spec: TaskSpec,
    container: ContainerSpec,
    place: TaskPlace,
    environment: Dict[str, str],
    gpus: Sequence[str],
    host: Host,
    manner: Manner,
    has_c_layer: bool = False,
) -> Dict[str, Any]:
    """The body of POST /containers/create. environment: as for a process of the node. has_c_layer: whether the image
    has the library; one that has it has a shell."""
    output = manner.prints
    tasks = len(spec["tasks"])
    variables = _variables(environment, gpus, host)
    argv = list(spec["argv"])
    if output == FILES:
        argv = [SHELL, "-c", _SCRIPT + (_PRELOAD if has_c_layer else "") + _BEGIN, "sh", *argv]
        if gpus:
            variables["MLLAUNCH_GPUS_WANTED"] = str(len(gpus))
    settings: Dict[str, Any] = {
        "Init": True,  # passes signals on and reaps: a task is not made to be the first process of a system
        "NetworkMode": container["network"],
        # Ranks of one node talk through shared memory; a single one has its own, which goes with it.
        "IpcMode": "host" if tasks > 1 else "private",
        "Ulimits": _LIMITS if manner.limits else [],
        "SecurityOpt": ["no-new-privileges"],
        "CapDrop": ["ALL"],
        "GroupAdd": [str(group) for group in host.groups],
        "Mounts": mounts(spec, container, place["rank"], output),
        "LogConfig": _log(manner),
        "RestartPolicy": {"Name": "no"},
    }
    if tasks == 1:
        settings["ShmSize"] = container["shm_bytes"] or (container["memory_bytes"] or host.memory_bytes) // 2
    if container["memory_bytes"]:
        # Swap is none of it: a task that swaps is as good as dead, and slower to say so.
        share = container["memory_bytes"] // tasks
        settings.update(Memory=share, MemorySwap=share)
    if container["cpus"]:
        settings["NanoCpus"] = container["cpus"] * 10**9 // tasks
    if gpus:
        settings["DeviceRequests"] = [{"DeviceIDs": list(gpus), "Capabilities": [["gpu"]]}]
    return {
        "Image": container["image"],
        "Entrypoint": argv[:1],
        "Cmd": argv[1:],
        "Env": ["%s=%s" % pair for pair in sorted(variables.items())],
        "User": host.user,
        "WorkingDir": workdir(spec, container),
        "Labels": labels(spec, place["rank"], gpus, output),
        "HostConfig": settings,
    }


def _log(manner: Manner) -> Dict[str, Any]:
    if manner.log != Manner().log:
        return {"Type": manner.log, "Config": {}}
    return _LITTLE_LOG if manner.prints == FILES else _UNLIMITED_LOG


def _variables(environment: Dict[str, str], gpus: Sequence[str], host: Host) -> Dict[str, str]:
    # Only the leased GPUs exist inside, numbered from 0: the node's names would hide them, or ask for others.
    hidden = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "PWD")
    variables = {name: value for name, value in environment.items() if name not in hidden}
    # A user without an entry in the image's passwd has neither a home nor a name, and libraries ask for both.
    if not host.user.startswith("0:"):
        variables.setdefault("HOME", "/tmp")
    variables.setdefault("USER", host.account)
    variables.setdefault("LOGNAME", host.account)
    if not gpus:
        # Images made for CUDA say "all", which a default runtime of NVIDIA's would obey.
        variables["NVIDIA_VISIBLE_DEVICES"] = "void"
    return variables


def mounts(spec: TaskSpec, container: ContainerSpec, rank: int, output: str) -> List[Dict[str, Any]]:
    """What of the node a container sees: the output folder, data, what is configured, and its streams."""
    written = "/".join(part for part in (spec["workdir"], spec["output"]) if part)
    found = [
        _mount("%s/work/%s" % (spec["folder"], written), "%s/%s" % (container["workspace"], written), True)
    ]
    found += [
        _mount(link["source"], "%s/%s" % (container["workspace"], link["path"]), False)
        for link in spec["data"]
    ]
    found += [_mount(mount["source"], mount["target"], mount["writable"]) for mount in container["mounts"]]
    if output == FILES:
        for stream in ("stdout", "stderr"):
            source = "%s/streams/%s.%d" % (spec["folder"], stream, rank)
            found.append(_mount(source, "%s/%s" % (_OURS, stream), True))
    wanted = spec.get("checkpoint")
    if wanted is not None:
        found.append(_mount("%s/checkpoint" % spec["folder"], CHECKPOINT, False))
    found.append(_mount("%s/trace" % spec["folder"], TRACE, True))
    found.append(_mount(tracing.HOOK, HOOK, False))
    return found


def _mount(source: str, target: str, writable: bool) -> Dict[str, Any]:
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": not writable}
