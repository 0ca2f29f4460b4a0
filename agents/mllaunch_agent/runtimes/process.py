"""Tasks as processes on the node itself, each attempt in a checkout of its own."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from mllaunch_agent import guarding, pidfd, protocol, shim, system, tracing, workdir
from mllaunch_agent.environment import AGENT_MARK, Inside, task_environment
from mllaunch_agent.family import Family, is_running, make_cgroup
from mllaunch_agent.probes import NotCaptured, processes
from mllaunch_agent.runtimes import Say, ShimMain
from mllaunch_agent.stopping import send

if TYPE_CHECKING:
    from mllaunch_agent.blobs import BlobLog
    from mllaunch_agent.process_code import ProcessCode
    from mllaunch_agent.supervisor import Supervisor
    from mllaunch_agent.tracing.places import Places

_SHIM_RESTARTS = 3
_START_S = 1.0  # after a supervisor's death, how long a shim may be about to start its task
_UNSEEN_EXIT_S = (
    3.0  # after the task and its shim are both gone, how long the exit record may still be under way
)


def root_path(spec: protocol.TaskSpec) -> str:
    """The root of the code that the tasks work with."""
    return spec["in_place"] or os.path.join(spec["folder"], "work")


def work_path(spec: protocol.TaskSpec) -> str:
    """The folder that the tasks start in."""
    return os.path.join(root_path(spec), spec["workdir"]) if spec["workdir"] else root_path(spec)


def _make_ready(spec: protocol.TaskSpec) -> str:
    """Make what the tasks start in; how. With many files, or a large checkpoint, it may take long."""
    if spec["in_place"] or spec["tree"] is None:
        method = "in-place"
    else:
        method = workdir.make(spec["tree"], spec["folder"])
        workdir.link_data(os.path.join(spec["folder"], "work"), spec["data"])
    os.makedirs(os.path.join(work_path(spec), spec["output"]), exist_ok=True)
    tracing.prepare(spec["folder"])
    wanted = spec.get("checkpoint")
    if wanted is not None:
        from mllaunch_agent import checkpoint

        checkpoint.bring(spec["folder"], wanted)
    return method


class ProcessRuntime:
    def __init__(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor
        self._spec = supervisor.spec
        self._folder = supervisor.folder
        trace = tracing.folder_of(self._folder)
        self._family = Family(self._spec["run_id"], self._spec["attempt"], trace, None)
        self._pidfds: Dict[int, int] = {}  # rank -> descriptor of its task
        self._gone_since: Dict[int, float] = {}
        self._restarts = 0
        self._thorough = False
        self._code_part: Optional[ProcessCode] = None
        self._preload: Optional[str] = None  # the C layer

    def prepare(self) -> str:
        method: List[str] = []
        if not guarding.with_peers(self._supervisor, lambda: method.append(_make_ready(self._spec))):
            return ""
        self._load_preload()
        cwd, port = work_path(self._spec), self._supervisor.port
        self._supervisor.events.write(protocol.WORKDIR_READY, path=cwd, method=method[0], master_port=port)
        self._join_cgroup()
        return cwd

    def _load_preload(self) -> None:
        """Compile the C layer, if it is wanted and not there yet; what keeps it away is on record."""
        if not self._spec.get("c_layer"):
            return
        from mllaunch_agent import preload

        self._preload, why = preload.build(self._spec["cache"])
        if why is not None:
            what = "inputs, outputs: files that programs other than Python opened"
            self._supervisor.events.write(protocol.NOT_CAPTURED, what=what, why="no C layer: " + why)

    def take_over(self) -> None:
        self._thorough = True
        self._load_preload()
        self._join_cgroup()

    def _join_cgroup(self) -> None:
        spec = self._spec
        self._family.cgroup = make_cgroup(spec["run_id"], spec["attempt"], spec["node_rank"])

    def shim(self, place: protocol.TaskPlace) -> ShimMain:
        supervisor = self._supervisor
        cwd = work_path(self._spec)
        checkpoint = self._spec.get("checkpoint")
        argv = self._spec["argv"]
        given = None
        if checkpoint is not None:
            path = os.path.join(self._folder, "checkpoint", checkpoint["name"])
            given = (checkpoint["kind"], path)
            argv = [word.replace(checkpoint["path"], path) for word in argv]
        inside = Inside(
            tracing.folder_of(self._folder), tracing.HOOK, root_path(self._spec), None, given, self._preload
        )
        gpus = supervisor.lease.uuids if supervisor.lease else ()
        launch = shim.Launch(
            self._folder,
            place["rank"],
            argv,
            cwd,
            task_environment(self._spec, place, gpus, supervisor.master, cwd, inside),
            tuple(supervisor.lease.fds) if supervisor.lease else (),
            self._family.cgroup,
        )
        return lambda revive, alive, close: shim.run(launch, revive, alive, close)

    def noticed(self, record: protocol.TaskRecord) -> None:
        fd = pidfd.watch(record["pid"], record["start_ticks"])
        if fd is not None:
            self._pidfds[record["rank"]] = fd

    def find_exit(self, rank: int, record: Optional[protocol.TaskRecord]) -> None:
        """A task that ended while neither shim nor supervisor lived has an unknown exit, and only then."""
        if record is None:
            if self._thorough and not self._supervisor.has_shim(rank):
                self._start_unstarted(rank)
            return
        same_boot = record["boot_id"] == system.boot_id()
        if same_boot and (
            processes.is_same(record["pid"], record["start_ticks"])
            or processes.is_same(record["shim_pid"], record["shim_start_ticks"])
            or (is_running(record["pid"]) and record["pid"] in processes.children(os.getpid()))
        ):
            self._gone_since.pop(rank, None)
            return
        status = pidfd.exit_status(self._pidfds[rank]) if rank in self._pidfds else None
        if status is not None:
            shim.write_exit(self._folder, rank, status, "pidfd")
            return
        since = self._gone_since.setdefault(rank, system.boot_s())
        if system.boot_s() - since > _UNSEEN_EXIT_S or not same_boot:
            shim.write_exit(self._folder, rank, None, None)

    def _start_unstarted(self, rank: int) -> None:
        """The supervisor before us died between making the work folder and starting this rank."""
        since = self._gone_since.setdefault(rank, system.boot_s())
        if system.boot_s() - since >= _START_S:
            self._supervisor.start_late(rank)

    def shim_died(self, rank: int) -> None:
        if os.path.exists(shim.exit_path(self._folder, rank)):
            return
        self._thorough = True
        if os.path.exists(shim.task_path(self._folder, rank)):
            return  # the task lives on as our child
        self._restarts += 1
        if self._restarts <= _SHIM_RESTARTS and not self._supervisor.stopping:
            self._supervisor.fork_shim(rank)
        else:
            error = "the process that starts it was killed"
            shim.write_exit(self._folder, rank, None, None, error=error)

    def mains(self) -> List[int]:
        records = self._supervisor.tasks.values()
        return [r["pid"] for r in records if processes.is_same(r["pid"], r["start_ticks"])]

    def living(self) -> List[int]:
        guardians = [
            r["shim_pid"]
            for r in self._supervisor.tasks.values()
            if processes.is_same(r["shim_pid"], r["shim_start_ticks"])
        ]
        return self._family.living(self.mains(), guardians, self._thorough)

    def send(self, pid: int, number: int) -> None:
        send(pid, number)

    def observed(self, record: protocol.TaskRecord) -> int:
        return record["pid"]

    def python(self) -> Tuple[Dict[str, Any], List[NotCaptured]]:
        interpreter = self._spec["python"]
        if not interpreter:
            return {}, []
        from mllaunch_agent.probes import python

        # A probe of ours, not a process of the task.
        return python.facts(interpreter, {**self._spec["environment"], AGENT_MARK: "1"})

    def places(self) -> "Places":
        return self._code.places()

    def watch_code(self, say: Say, blobs: "BlobLog", ending: threading.Event) -> None:
        self._code.watch(say, blobs, ending)

    @property
    def _code(self) -> "ProcessCode":
        """What concerns the code in the checkout; imported when it is needed, which is after the start."""
        if self._code_part is None:
            from mllaunch_agent.process_code import ProcessCode

            self._code_part = ProcessCode(self._supervisor, root_path(self._spec))
        return self._code_part

    def release(self) -> Optional[List[str]]:
        if self._spec["in_place"]:
            return []
        if not os.path.exists(os.path.join(self._folder, "work")):
            return None
        deleted: List[str] = workdir.release(self._folder)["deleted"]
        self._code.say_added()
        return deleted

    def close(self) -> None:
        self._family.close()
