"""The one thing that launcher and agent share: names, files and wire types. Described in docs/protocol.md.

An attempt on a node is a folder:

    spec.json            the TaskSpec (0600: it holds the task's environment)
    supervisor.lock      locked by the living supervisor; a free lock means that none lives
    fenced               written by a launcher that gave this attempt up: nothing may start here any more
    stop.json            a StopRequest; its presence is the request
    task-RANK.json       TaskRecord: written by the task's own process just before it becomes the user's program
    exit-RANK.json       ExitRecord: written once, atomically and durably
    ended                no process of the tasks lives any more: their output is final
    streams/NAME         append-only byte streams
    seal.json            the Seal, written once, last
    work/                the task's checkout; after the end, what the tasks wrote there
"""

from __future__ import annotations

import json
from typing import Any, Dict, List, Optional, Tuple, TypedDict

# Streams. stdout and stderr exist once per rank.
EVENTS = "events"  # JSON lines, one Event each
SAMPLES = "samples"  # JSON lines: a header, then one array per reading
MARKS = "marks"  # text lines "BOOT_MS STREAM OFFSET": how long STREAM was at that time
FILES = "files"  # JSON lines: what the tasks wrote, found after the end
TRACE = "trace"  # JSON lines: what the tasks' processes executed, read and wrote; see docs/trace.md
BLOBS = "blobs"  # JSON lines: what code that was changed, or is not of the commit, held
AGENT = "agent"  # what the agent itself had to say


def stdout_stream(rank: int) -> str:
    return "stdout.%d" % rank


def stderr_stream(rank: int) -> str:
    return "stderr.%d" % rank


def manifest_stream(number: int) -> str:
    """The manifest of the number-th data path; its rows are described in docs/fingerprint.md."""
    return "manifest.%d" % number


class TaskPlace(TypedDict):
    """One task of an attempt on this node."""

    rank: int
    local_rank: int


class DataLink(TypedDict):
    """Data outside the commit that must appear at ``path`` (relative to the work folder's root)."""

    path: str
    source: str


class Mount(TypedDict):
    """A folder or file of the node that a container sees."""

    source: str  # absolute
    target: str  # absolute, in the container
    writable: bool


class ContainerSpec(TypedDict):
    """What the containers of an attempt are made from, where it runs in containers."""

    engine: str  # the engine's unix socket
    image: str  # what the engine knows the image by: "sha256:..."
    reference: Optional[str]  # NAME@DIGEST to pull it by where it is missing
    credentials: Optional[str]  # for that registry, as the X-Registry-Auth header
    environment: str  # names what is installed in the image: its interpreter is asked once for each
    workspace: str  # where the code is in the image, absolute
    network: str  # "host", "bridge", "none" or the name of a network of the engine's
    mounts: List[Mount]
    shm_bytes: Optional[int]  # size of /dev/shm; None: half of the memory
    memory_bytes: Optional[int]  # limit for all tasks together
    cpus: Optional[int]  # likewise


class Checkpoint(TypedDict):
    """A checkpoint that a run starts from."""

    kind: str  # "resume" or "weights"
    name: str  # of the file or folder
    source: str  # where it lies, absolute
    path: str  # what stands for it in argv, if anything
    sha256: str  # of the file; of a folder as weights.folder_digest
    verified: Optional[
        List[List[int]]
    ]  # checkpoint.keys of the source when its digest was verified; None: it was not


class Meeting(TypedDict):
    """How the agents of one attempt on several nodes find each other, see peers/."""

    token: str  # 64 hexadecimal digits, known to them alone
    addresses: List[str]  # where the agent of node rank 0 may be reached; empty in its own specification
    port: int  # likewise 0
    lease_s: float  # how long one may be silent before the others go on without it


class TaskSpec(TypedDict):
    """Everything a node needs to run its share of one attempt; one JSON line on the agent's stdin."""

    protocol: int
    run_id: str
    run_name: str
    attempt: int
    node: str
    node_rank: int
    nodes: int
    folder: str  # the attempt's folder, absolute
    argv: List[str]
    workdir: str  # where the task starts, relative to the checkout's root; "" is the root
    tree: Optional[str]  # folder that holds the frozen code, never written to; None in containers
    in_place: Optional[str]  # run in this folder instead of a checkout
    data: List[DataLink]
    output: str  # MLLAUNCH_OUTPUT_DIR, relative to workdir
    environment: Dict[str, str]  # the task's, complete but for what the agent itself (and the image) sets
    secrets: List[str]  # values to mask in all that is shipped
    named: List[str]  # variables that the user asked to have recorded
    tasks: List[TaskPlace]
    world_size: int
    gpus: int  # whole GPUs on this node for all tasks together
    timeout_s: Optional[float]
    grace_s: float
    python: Optional[str]  # the tasks' interpreter, whose packages are recorded; None: not a Python run
    import_path: List[str]  # where psutil and pynvml may be found
    master_addr: str
    user: str  # who submitted
    cache: str  # folder of this user for what may be forgotten
    lease_dir: Optional[str]  # None: the node's own
    container: Optional[ContainerSpec]  # None: tasks are processes on the node
    checkpoint: Optional[Checkpoint]  # what the run starts from; None: from nothing
    c_layer: bool  # see also what programs open that are not Python
    meeting: Optional[Meeting]  # None: the attempt is on this node alone


class TaskRecord(TypedDict):
    rank: int
    pid: int
    start_ticks: int  # field 22 of /proc/PID/stat: with pid and boot_id it names a process for good
    boot_id: str
    shim_pid: int
    shim_start_ticks: int
    container: Optional[str]  # its id, where the task is one; pid is then that of its init
    prints: Optional[str]  # where the container prints to: "files", or "engine" where the image has no shell


class ExitRecord(TypedDict):
    """How a task's main process ended. What could not be read is None, never a guess."""

    rank: int
    exit_code: Optional[int]  # None: killed by a signal, or not known
    signal: Optional[int]
    error: Optional[str]  # why the program could not be started at all
    at: str  # RFC 3339, UTC
    observed_by: Optional[str]  # "shim", "supervisor", "pidfd", "engine"; None: nobody saw it end
    cpu_s: Optional[float]
    max_rss_bytes: Optional[int]
    out_of_memory: Optional[bool]  # the engine's word that the kernel killed for memory; None: ask the kernel
    by_engine: bool  # it was the engine that ended it: by hand (docker stop), or going down


class StopRequest(TypedDict):
    by: str
    at: str
    now: bool  # True: SIGKILL at once


class StreamSeal(TypedDict):
    """Final length and digest of a stream as it is shipped (that is: with secrets masked)."""

    size_bytes: int
    sha256: str
    masked: int  # how many ranges were masked
    gaps: List[Dict[str, Any]]  # {"offset", "size_bytes", "reason"}


class Seal(TypedDict):
    protocol: int
    run_id: str
    attempt: int
    node: str
    status: str  # "sealed-complete" or "sealed-with-gaps"
    state: str
    exit_code: Optional[int]
    at: str
    streams: Dict[str, StreamSeal]


# An event is a JSON object {"seq", "at", "boot_s", "kind", ...}. seq counts from 1 without a hole; at is wall
# time (RFC 3339, UTC); boot_s is seconds since boot, which no clock change moves. Order is by seq alone.
Event = Dict[str, Any]

# The kinds, and what each carries besides. docs/protocol.md describes them.
ATTEMPT_STARTED = "attempt_started"  # node, hostname, boot_id, pid, protocol, version
WAITING = "waiting"  # wanted, free, holders: [{gpu, run, user, pid}], ahead: [{run, user}]
GPUS_LEASED = "gpus_leased"  # gpus: [uuid], indices: their numbers on the node
PEERS_READY = "peers_ready"  # master_addr, master_port, nodes: all agents have begun
WORKDIR_READY = "workdir_ready"  # path, method: overlay | reflink | copy | in-place | image; master_port
ENGINE = "engine"  # name, version, image: its id on this node, pulled: bool
TASK_STARTED = "task_started"  # rank, pid; of a container also container: its id, output: "files" | "engine"
TASK_EXITED = "task_exited"  # an ExitRecord, and out_of_memory: bool
STOP_REQUESTED = "stop_requested"  # by, now
TIMED_OUT = "timed_out"  # timeout_s
LEFTOVERS = "leftovers"  # processes: [{pid, command}] that outlived their main process
HOST = "host"  # facts of the node, see probes/host.py
PYTHON = "python"  # facts of the tasks' interpreter, see probes/python.py
DATA = "data"  # path, manifest: stream, and a fingerprint.Fingerprint
CODE_CHANGED = "code_changed"  # path, before, after: git blob ids, null where there is no such file; rank
CODE_VERIFIED = (
    "code_verified"  # matches: bool, files: how many were compared, differing: up to 20 paths; rank
)
CODE_MIXED = "code_mixed"  # path, versions: [{blob, by: [{rank, pid}], processes}]
DATA_CHANGED = "data_changed"  # path, added, removed, modified: each {count, first: up to 20 names}
GPUS_STILL_USED = "gpus_still_used"  # gpus: [{gpu, pid, user, command}] after every task had ended
GAP = "gap"  # stream, offset, size_bytes, reason
RESTARTED = "restarted"  # a supervisor took over from one that died: last_seen_boot_s, cut_bytes
NOT_CAPTURED = "not_captured"  # what, why
USAGE = "usage"  # wall_s, cpu_s, max_rss_bytes, read_bytes, written_bytes, gpu
PEER_FAILED = "peer_failed"  # the code of the reason of a node whose tasks were stopped for another node's
ATTEMPT_ENDED = "attempt_ended"  # state, exit_code, reason: {code, message, origin, node, rank, retryable}


def whole_lines(data: bytes) -> bytes:
    """The part of ``data`` up to and including its last newline: a torn last line is not a record."""
    return data[: data.rfind(b"\n") + 1]


def parse_events(data: bytes) -> Tuple[List[Event], int]:
    """Events of a complete prefix of the stream, and how many of its bytes are sound.

    A line that is not a JSON object with the next ``seq`` ends the sound part: nothing after damage is believed.
    """
    events: List[Event] = []
    sound = 0
    for line in whole_lines(data).splitlines(True):
        try:
            event = json.loads(line.decode("utf-8"))
        except ValueError:
            break
        if not isinstance(event, dict) or not isinstance(event.get("kind"), str):
            break
        if events and event.get("seq") != events[-1]["seq"] + 1:
            break
        events.append(event)
        sound += len(line)
    return events, sound
