"""Tasks as containers of an engine on this node, made from an image that holds the code.

The code of each attempt is the container's own copy of the image's; the output folder and the streams are the node's.
"""

from __future__ import annotations

import os
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

from mllaunch_agent import (
    container,
    container_shim,
    guarding,
    leases,
    protocol,
    queueing,
    shim,
    system,
    tracing,
)
from mllaunch_agent.engine import Engine, EngineError, EngineGone
from mllaunch_agent.environment import Inside, task_environment
from mllaunch_agent.family import is_running
from mllaunch_agent.probes import NotCaptured, processes
from mllaunch_agent.runtimes import Say, ShimMain

if TYPE_CHECKING:
    from mllaunch_agent.blobs import BlobLog
    from mllaunch_agent.container_code import ContainerCode
    from mllaunch_agent.supervisor import Supervisor
    from mllaunch_agent.tracing.places import Places

_LOOK_PAUSES_S = (0.2, 0.5, 2.0, 10.0)  # between attempts to look after a container whose shim has died
_ENGINE_PATIENCE_S = 60.0  # after the end, for an engine that is away
_ENGINE_PAUSE_S = 0.5
_STALE_S = 3600.0  # a probe's container lives for half a minute, unless its agent is killed


class DockerRuntime:
    def __init__(self, supervisor: "Supervisor", spec: protocol.ContainerSpec) -> None:
        self._supervisor = supervisor
        self._spec = supervisor.spec
        self._container = spec
        self._engine = Engine(spec["engine"])
        self._looks: Dict[
            int, Tuple[int, float]
        ] = {}  # rank -> how often we had to look after it, when again
        self._code_part: Optional[ContainerCode] = None
        self._python_path: Optional[str] = None  # that of the image
        self._has_c_layer = False

    # --- before the start -----------------------------------------------------------------------------------

    def prepare(self) -> str:
        supervisor, spec = self._supervisor, self._spec
        version = self._engine.version()
        name = self._container["image"]
        image = self._engine.image(name)
        pulled = image is None
        if image is None:
            if not self._pull():
                return ""
            image = self._engine.image(name)
            if image is None:
                raise EngineError(404, "what was pulled is not the image %s" % name)
        _refuse_foreign(version, image)
        os.makedirs(os.path.join(spec["folder"], "work", spec["workdir"], spec["output"]), exist_ok=True)
        tracing.prepare(spec["folder"])
        wanted = spec.get("checkpoint")
        if wanted is not None:
            from mllaunch_agent import checkpoint

            if not guarding.with_peers(supervisor, partial(checkpoint.bring, spec["folder"], wanted)):
                return ""
        self._python_path = _variable(image, "PYTHONPATH")
        why = self._look_for_c_layer()
        if why is not None:
            what = "inputs, outputs: files that programs other than Python opened"
            supervisor.events.write(protocol.NOT_CAPTURED, what=what, why="no C layer: " + why)
        parts: List[Dict[str, Any]] = version.get("Components") or [{}]
        supervisor.events.write(
            protocol.ENGINE,
            name=parts[0].get("Name") or "Engine",
            version=version.get("Version"),
            image=name,
            pulled=pulled,
        )
        cwd = container.workdir(spec, self._container)
        port = supervisor.port
        supervisor.events.write(protocol.WORKDIR_READY, path=cwd, method="image", master_port=port)
        return cwd

    def _pull(self) -> bool:
        """Fetch the image while the supervisor goes on with its duties; False if the run was stopped meanwhile."""
        reference = self._container["reference"]
        if reference is None:
            raise EngineError(404, "the image %s is not on this node any more" % self._container["image"])

        def pull() -> None:
            try:
                self._engine.pull(reference, self._container["credentials"])
            except OSError as e:
                raise EngineError(0, "the image cannot be pulled: %s" % e) from e

        return guarding.beside(self._supervisor, pull, may_leave=True)

    def _look_for_c_layer(self) -> Optional[str]:
        """Whether it is wanted, and in the image; why not, if it is wanted."""
        if not self._spec.get("c_layer"):
            return None
        from mllaunch_agent.probes import container as image_probe

        why = image_probe.why_no_c_layer(self._engine, self._container["image"])
        self._has_c_layer = why is None
        return why

    def shim(self, place: protocol.TaskPlace) -> ShimMain:
        launch = self._launch(place)
        return lambda revive, alive, close: container_shim.run(launch, revive, alive, close)

    def _launch(self, place: protocol.TaskPlace) -> container_shim.Launch:
        supervisor, spec = self._supervisor, self._spec
        gpus = supervisor.gpus()
        cwd = container.workdir(spec, self._container)
        inside = Inside(
            container.TRACE,
            container.HOOK,
            self._container["workspace"],
            self._python_path,
            container.checkpoint(spec),
        )
        environment = task_environment(spec, place, gpus, supervisor.master, cwd, inside)
        host = self._host()

        def request(manner: container.Manner) -> Dict[str, Any]:
            has_c_layer = self._has_c_layer
            return container.request(
                spec, self._container, place, environment, gpus, host, manner, has_c_layer
            )

        os.makedirs(spec["cache"], exist_ok=True)
        manner = os.path.join(spec["cache"], "manner-%s.json" % self._container["environment"][:32])
        rank = place["rank"]
        return container_shim.Launch(
            spec["folder"], rank, self._container["engine"], container.name(spec, rank), request, manner
        )

    def _host(self) -> container.Host:
        # To a rootless engine, its own user is root inside, and nobody else exists.
        uid = os.getuid()
        rootless = uid != 0 and os.stat(self._container["engine"]).st_uid == uid
        return container.Host(
            "0:0" if rootless else "%d:%d" % (uid, os.getgid()),
            () if rootless else os.getgroups(),
            self._spec["user"],
            os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
        )

    # --- while it runs --------------------------------------------------------------------------------------

    def take_over(self) -> None:
        """Ask again what the image sets; and since a container does not hold its GPUs' lease as a process does, take
        it again before another can."""
        supervisor = self._supervisor
        try:
            self._python_path = _variable(self._engine.image(self._container["image"]) or {}, "PYTHONPATH")
        except OSError:
            pass  # the engine is away, and cannot start a container either
        self._look_for_c_layer()
        if supervisor.lease is None and supervisor.gpus():
            info = queueing.holder(supervisor)
            supervisor.lease = leases.take_back(self._spec["lease_dir"], supervisor.gpus(), info)
            if supervisor.lease is None:
                why = "the agent was killed with all its helpers, and another took the lease while the task ran on"
                supervisor.events.write(protocol.NOT_CAPTURED, what="GPU lease", why=why)

    def noticed(self, record: protocol.TaskRecord) -> None:
        pass  # whoever looks after it has an eye on the process

    def find_exit(self, rank: int, record: Optional[protocol.TaskRecord]) -> None:
        """See to it that somebody looks after the container: its shim, or else a thread of ours."""
        count, again_s = self._looks.get(rank, (0, 0.0))
        if self._supervisor.has_shim(rank) or system.boot_s() < again_s:
            return
        pause_s = _LOOK_PAUSES_S[min(count, len(_LOOK_PAUSES_S) - 1)]
        self._looks[rank] = (count + 1, system.boot_s() + pause_s)
        folder = self._spec["folder"]
        if system.is_locked(container_shim.lock_path(folder, rank)) or os.path.exists(
            shim.exit_path(folder, rank)
        ):
            return
        if self._is_unstarted(rank):
            if self._supervisor.stopping:
                shim.write_exit(folder, rank, None, None, error="stopped before it started")
            else:
                self._supervisor.start_late(rank)
            return
        if any(self._is_unstarted(place["rank"]) for place in self._spec["tasks"]):
            return  # no thread of ours runs before every task has started: one that is to be forked might hang
        place = next(place for place in self._spec["tasks"] if place["rank"] == rank)
        thread = threading.Thread(target=container_shim.look_after, args=(self._launch(place),), daemon=True)
        thread.start()

    def _is_unstarted(self, rank: int) -> bool:
        folder = self._spec["folder"]
        traces = [shim.task_path(folder, rank), shim.exit_path(folder, rank)]
        traces.append(os.path.join(folder, "starting-%d" % rank))
        return not self._supervisor.has_shim(rank) and not any(map(os.path.exists, traces))

    def shim_died(self, rank: int) -> None:
        pass  # find_exit sees to it

    def mains(self) -> List[int]:
        """The user's own main process: the first child of each container's init, which would pass a signal on to it."""
        found = self._unseen()
        for record in self._supervisor.tasks.values():
            if record["pid"] and processes.is_same(record["pid"], record["start_ticks"]):
                begun = [(processes.start_ticks(pid), pid) for pid in processes.children(record["pid"])]
                found += [pid for _, pid in sorted((t, pid) for t, pid in begun if t is not None)[:1]]
        return found

    def living(self) -> List[int]:
        roots = {r["pid"]: r["start_ticks"] for r in self._supervisor.tasks.values() if r["pid"]}
        return sorted(pid for pid in processes.tree(roots) if is_running(pid)) + self._unseen()

    def _unseen(self) -> List[int]:
        """Stand-ins below zero for tasks whose process is not to be seen from here: only the engine can signal them."""
        tasks, exits = self._supervisor.tasks, self._supervisor.exits
        return [-1 - rank for rank, record in tasks.items() if not record["pid"] and rank not in exits]

    def send(self, pid: int, number: int) -> None:
        if pid < 0:
            self._ask_engine(self._supervisor.tasks[-1 - pid]["container"], number)
            return
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:  # the engine maps users to others
            for record in self._supervisor.tasks.values():
                if pid in (record["pid"], *processes.children(record["pid"])):
                    self._ask_engine(record["container"], number)

    def _ask_engine(self, container_id: Optional[str], number: int) -> None:
        assert container_id is not None
        try:
            self._engine.kill(container_id, str(int(number)))
        except OSError:
            pass  # the next tick tries again

    def observed(self, record: protocol.TaskRecord) -> int:
        return record["pid"]

    def python(self) -> Tuple[Dict[str, Any], List[NotCaptured]]:
        interpreter = self._spec["python"]
        if not interpreter:
            return {}, []
        cached = os.path.join(self._spec["cache"], "python-%s.json" % self._container["environment"][:32])
        image = self._container["image"]
        from mllaunch_agent.probes import container as image_probe

        return image_probe.python(self._engine, image, self._spec["environment"], interpreter, cached)

    def places(self) -> "Places":
        return self._code.places()

    def watch_code(self, say: Say, blobs: "BlobLog", ending: threading.Event) -> None:
        self._code.watch(say, blobs, ending)

    @property
    def _code(self) -> "ContainerCode":
        """What concerns the code in the containers; imported when it is needed, which is after the start."""
        if self._code_part is None:
            from mllaunch_agent.container_code import ContainerCode

            self._code_part = ContainerCode(self._supervisor, self._container, self._engine)
        return self._code_part

    # --- after the end --------------------------------------------------------------------------------------

    def release(self) -> Optional[List[str]]:
        folder = self._spec["folder"]
        work = os.path.join(folder, "work")
        if not os.path.isdir(work):
            return None
        deleted: List[str] = []
        for rank, record in sorted(self._supervisor.tasks.items()):
            try:
                deleted += self._bring_out_patiently(rank, record, work)
            except (EngineGone, EngineError) as e:
                why = "the container engine did not give them: %s" % e
                what = "files that rank %d wrote outside of the output folder, and changes to the code" % rank
                self._supervisor.events.write(protocol.NOT_CAPTURED, what=what, why=why)
        return sorted(set(deleted), key=os.fsencode)

    def _bring_out_patiently(self, rank: int, record: protocol.TaskRecord, work: str) -> List[str]:
        """What the container holds goes with it: so an engine that is just away is waited for."""
        deadline_s = system.boot_s() + _ENGINE_PATIENCE_S
        while True:
            try:
                return self._code.bring_out(rank, record, work)
            except EngineGone:
                if system.boot_s() > deadline_s:
                    raise
            time.sleep(_ENGINE_PAUSE_S)

    def close(self) -> None:
        """Remove our containers, and those that earlier attempts could not remove because the engine was away."""
        try:
            for record in self._supervisor.tasks.values():
                if record["container"]:
                    self._engine.remove(record["container"])
            for place in self._spec["tasks"]:  # those that were made and never started have no record
                self._engine.remove(container.name(self._spec, place["rank"]))
            for found in self._engine.containers(["mllaunch.folder"]):
                if _is_leftover(found):
                    self._engine.remove(found["Id"])
            for found in self._engine.containers([container.PROBE_LABEL]):
                if time.time() - found["Created"] > _STALE_S:
                    self._engine.remove(found["Id"])
        except OSError as e:
            why = "the container engine did not answer: %s" % e
            what = "the removal of the container, which the next run makes up for"
            self._supervisor.events.write(protocol.NOT_CAPTURED, what=what, why=why)


def _is_leftover(found: Dict[str, Any]) -> bool:
    """Whether nobody will ever ask for this container of ours again."""
    folder = found["Labels"]["mllaunch.folder"]
    if os.path.exists(os.path.join(folder, "seal.json")):
        return True  # also one that runs: the engine came back when its run had been given up
    if found.get("State") not in ("exited", "created", "dead"):
        return False
    if not os.path.isdir(os.path.dirname(os.path.dirname(os.path.dirname(folder)))):
        return False  # another machine's, or a home that is not mounted just now: not ours to judge
    return not os.path.isdir(folder)


def _variable(image: Dict[str, Any], name: str) -> Optional[str]:
    """A variable that an image sets."""
    for entry in (image.get("Config") or {}).get("Env") or ():
        if entry.startswith(name + "="):
            return str(entry[len(name) + 1 :])
    return None


def _refuse_foreign(version: Dict[str, Any], image: Dict[str, Any]) -> None:
    ours, its = _architecture(str(version.get("Arch"))), _architecture(str(image.get("Architecture")))
    if ours != its:
        raise EngineError(0, "the image is for %s, and this node is %s" % (its, ours))


def _architecture(name: str) -> str:
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}.get(name, name)
