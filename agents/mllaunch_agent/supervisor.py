"""One per node and attempt: waits for GPUs, starts the shims, watches, stops, and seals the record.

It may die at any moment. A shim then forks another, which finds everything on the disk: tasks by pid, start time
and boot id, exits by their records, history in the event stream. Where no shim lives, a launcher's next command
starts one the same way (``adopt``). The lock on supervisor.lock decides who is the one.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from typing import Any, Dict, List, NoReturn, Optional, Sequence, Tuple

from mllaunch_agent import (
    PROTOCOL_VERSION,
    __version__,
    diskguard,
    finishing,
    guarding,
    joining,
    node,
    outcome,
    peers,
    protocol,
    queueing,
    runtimes,
    shim,
    system,
    watchdog,
)
from mllaunch_agent.blobs import BlobLog
from mllaunch_agent.follower import Follower
from mllaunch_agent.leases import Lease
from mllaunch_agent.outcome import Cause, OomCounter
from mllaunch_agent.probes import processes
from mllaunch_agent.stopping import Stopping
from mllaunch_agent.streams import EventLog
from mllaunch_agent.watching import Watcher

_TICK_S = 0.1
_STARTING_TICK_S = 0.005  # so that a run is shown as running when its first output is
_SHORT_OF_ROOM_TICK_S = 0.02
_UNKILLABLE_S = 60.0
_VERDICT_S = 3.0
_LEAVING_TICK_S = 1.0


class Supervisor:
    def __init__(self, spec: protocol.TaskSpec, lock: int, lease: Optional[Lease] = None) -> None:
        self.spec = spec
        self.folder = spec["folder"]
        self.lock = lock
        self.lease = lease
        self.events = EventLog(self.folder)
        self.follower = Follower(self.folder, node.make_masker(spec["secrets"]))
        ranks = [place["rank"] for place in spec["tasks"]]
        self.guard = diskguard.DiskGuard(self.folder, ranks, self.events)
        self.watcher: Optional[Watcher] = None
        self.stopping: Optional[Stopping] = None
        self.exits: Dict[int, protocol.ExitRecord] = {}
        self.ooms = OomCounter()
        self.port = 0
        self._master_addr = spec["master_addr"]
        self.peers: Optional[peers.Peers] = None
        self._gpus: List[str] = []  # of the supervisor before this one
        self.tasks: Dict[int, protocol.TaskRecord] = {}  # by rank, as far as they have begun
        self.reviver: Optional[int] = None  # the process that guarding.ensure has made
        self._shims: Dict[int, int] = {}  # pid -> rank, of those that are this process's children
        self._started_s: Optional[float] = None
        self._wakeup = _wakeup_pipe()
        self.blobs = BlobLog(self.folder)
        self.runtime = runtimes.choose(self)
        system.become_subreaper()

    # --- lives ----------------------------------------------------------------------------------------------

    def first_life(self) -> None:
        self.events.write(
            protocol.ATTEMPT_STARTED,
            node=self.spec["node"],
            hostname=os.uname().nodename,
            boot_id=system.boot_id(),
            pid=os.getpid(),
            protocol=PROTOCOL_VERSION,
            version=__version__,
        )
        self.alive = watchdog.open_alive(self.folder)
        self._begin()

    def later_life(self, alive: Optional[Tuple[int, int]]) -> None:
        """Take over from a supervisor that died. alive: the FIFO's ends, where a shim handed the reader on."""
        past = self.events.past
        if not past:
            self.first_life()  # the one before died before it could say a word
            return
        self.events.write(
            protocol.RESTARTED,
            pid=os.getpid(),
            cut_bytes=self.events.cut_bytes,
            last_seen_boot_s=past[-1]["boot_s"] if past else None,
            same_boot=bool(past) and past[0].get("boot_id") == system.boot_id(),
        )
        has_begun = self.events.has(protocol.PEERS_READY)
        self._recall()
        if has_begun:
            try:
                joining.meet(self)
            except OSError:
                _print_error()  # the tasks here go on, and are looked after, all the same
        self.runtime.take_over()
        self.alive = alive or watchdog.open_alive(self.folder)
        if self.events.has(protocol.ATTEMPT_ENDED):
            finishing.finish(self, [e for e in past if e["kind"] == protocol.ATTEMPT_ENDED][-1])
            self._leave_peers()
        elif has_begun or (self.events.has(protocol.WORKDIR_READY) and self.spec.get("meeting") is None):
            self._watch()
        else:
            self._begin()

    def _recall(self) -> None:
        """What the supervisor before us had decided, and had put on record before it acted."""
        for event in self.events.past:
            cause = None
            if event["kind"] == protocol.STOP_REQUESTED:
                cause = Cause("stopped", event["by"])
            elif event["kind"] == protocol.TIMED_OUT:
                cause = Cause("timeout", "%g s" % event["timeout_s"])
            elif event["kind"] in (protocol.WORKDIR_READY, protocol.PEERS_READY):
                self.port = event.get("master_port") or self.port
                self._master_addr = event.get("master_addr") or self._master_addr
            elif event["kind"] == protocol.GPUS_LEASED:
                self._gpus = list(event["gpus"])
            if cause:
                self.stop(cause, min(system.boot_s(), event["boot_s"]))

    @property
    def master(self) -> Tuple[str, int]:
        """Where the first task can be reached."""
        return self._master_addr, self.port

    def begin_with_peers(self, master: Tuple[str, int]) -> None:
        """All nodes are ready: from now on tasks may start."""
        self._master_addr, self.port = master
        self.events.write(protocol.PEERS_READY, master_addr=master[0], master_port=master[1])

    # --- phases ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        try:
            is_ready = self._make_ready()
        except OSError as e:
            self._fail_to_start(
                "%s: %s" % (os.path.basename(e.filename), e.strerror) if e.filename else str(e)
            )
            return
        finally:
            guarding.dismiss(self)
        if is_ready:
            self._start_tasks()
            self._watch()
        else:
            self._end()

    def _make_ready(self) -> bool:
        """All that comes before the start; False if the attempt is to stop."""
        joining.meet(self)
        if not joining.await_turn(self):
            return False
        if self.lease is None and self.spec["gpus"]:
            self.lease = queueing.take(self)
            if self.lease is None:
                return False
        if self.peers is None:
            self.port = system.free_port()
        else:
            self.peers.say_leased()
        if not self.runtime.prepare():
            return False
        self.guard.prepare()
        self.tick()  # a stop may have come already, with the attempt or meanwhile
        return self.stopping is None and joining.await_go(self)

    def _fail_to_start(self, why: str) -> None:
        for place in self.spec["tasks"]:
            shim.write_exit(self.folder, place["rank"], None, None, error=why)
        self._end()

    def _start_tasks(self) -> None:
        for place in self.spec["tasks"]:
            self.fork_shim(place["rank"])

    def fork_shim(self, rank: int) -> None:
        """Start a rank, or look after one that has started already, where the runtime can do that."""
        place = next(place for place in self.spec["tasks"] if place["rank"] == rank)
        become_shim = self.runtime.shim(place)
        reader, writer = self.alive
        close = (self.lock, writer, *self._wakeup, self.events.stream.fileno(), *self.peer_fds())
        pid = os.fork()
        if pid == 0:
            become_shim(lambda: revive(self.spec, self.lease, reader), reader, close)
        self._shims[pid] = rank

    def peer_fds(self) -> List[int]:
        """Descriptors that no child may keep."""
        return self.peers.filenos() if self.peers else []

    def gpus(self) -> Sequence[str]:
        """The GPUs that the tasks use."""
        return self.lease.uuids if self.lease else self._gpus

    def has_shim(self, rank: int) -> bool:
        """Whether a child of ours is the shim of this rank."""
        return rank in self._shims.values()

    def start_late(self, rank: int) -> None:
        """Start a rank that the supervisor before us did not come to."""
        if self.spec["gpus"] and self.lease is None:
            if self.tasks:  # they hold the GPUs that this one would wait for
                error = "the agent was killed while it started the tasks"
                shim.write_exit(self.folder, rank, None, None, error=error)
                return
            try:
                self.lease = queueing.take(self)  # with the supervisor before us went its lease
            except OSError as e:
                shim.write_exit(self.folder, rank, None, None, error=str(e))
                return
            if self.lease is None:
                shim.write_exit(self.folder, rank, None, None, error="stopped before it started")
                return
        self.port = self.port or system.free_port()
        self.fork_shim(rank)

    def _watch(self) -> None:
        """Until every rank has its exit record."""
        if self._started_s is None:
            self._started_s = self._first_event_s()
        while True:
            self._notice_tasks()
            self._start_watcher()
            self._notice_exits()
            if len(self.exits) == len(self.spec["tasks"]):
                break  # before requests are heeded: what has ended by itself cannot be timed out by a late restart
            self.tick()
            self.sleep(self._pause_s())
        self.follower.tick()
        self._end()

    def _pause_s(self) -> float:
        if len(self.tasks) < len(self.spec["tasks"]):
            return _STARTING_TICK_S
        return _SHORT_OF_ROOM_TICK_S if self.guard.is_short else _TICK_S

    def _start_watcher(self) -> None:
        """Begin to observe once every task has begun, and no shim may be needed any more: a process forked beside
        threads can never take the locks that one of them held, such as that of a module being imported."""
        if self.watcher is None and len(self.tasks) == len(self.spec["tasks"]):
            self.watcher = Watcher(
                self.spec, self.folder, self.follower, self.gpus(), self.runtime, self.blobs
            )
            for record in self.tasks.values():
                self.watcher.add_task(self.runtime.observed(record))

    def _end(self) -> None:
        """The tasks are over (or never began): say how, then put the record in order."""
        self._notice_exits()
        self._end_leftovers()
        ended_path = os.path.join(self.folder, "ended")
        finishing.when_there_is_room(lambda: system.write_atomic(ended_path, b""))
        self._part_from_peers()
        cause = self.stopping.cause if self.stopping else None
        result = outcome.decide(list(self.exits.values()), cause, self.spec["node"], self.ooms.ranks)
        ended = {"state": result.state, "exit_code": result.exit_code, "reason": result.reason}
        self.events.write(protocol.ATTEMPT_ENDED, **ended)
        finishing.finish(self, ended)
        self._leave_peers()

    def _part_from_peers(self) -> None:
        """Hear what ended the attempt, if it was another node; and be there for the others until they have ended."""
        if self.peers is None:
            return
        finishing.give_gpus_back(self)
        self.peers.say_ended()
        failed = any(outcome.exit_code(record) != 0 for record in self.exits.values())
        patience_s = system.boot_s() + _VERDICT_S
        while True:
            now_s = system.boot_s()
            self.peers.tick(now_s)
            verdict = self.peers.verdict
            waits_for_verdict = failed and verdict is None and now_s < patience_s
            if not waits_for_verdict and not self.peers.others_go_on:
                break
            self._heed_requests(now_s)
            self.sleep(_TICK_S)
        cause = self._cause_elsewhere()
        if cause is not None and failed and (self.stopping is None or self.stopping.cause.kind == "peer"):
            self.stopping = Stopping(cause, 0.0, system.boot_s())

    def _leave_peers(self) -> None:
        """Once the record is sealed. Where the link to the first node is down, it is told when that is there again:
        else it would wait for us until its lease ends."""
        if self.peers is None:
            return
        self.peers.say_ended()
        while self.peers.owes_word:
            self.peers.tick(system.boot_s())
            self.sleep(_TICK_S if self.peers.others_go_on else _LEAVING_TICK_S)
        self.peers.close()

    # --- the loop's parts -----------------------------------------------------------------------------------

    def sleep(self, seconds: float, also: Sequence[int] = ()) -> None:
        """Wait, but no longer than until a child ends, or something comes on one of these descriptors."""
        reader = self._wakeup[0]
        if reader in select.select([reader, *also], [], [], seconds)[0]:
            os.read(reader, 4096)
        self._reap()

    def tick(self) -> None:
        """What is due every tenth of a second."""
        self.follower.tick()
        self.guard.tick()
        self.events.flush()
        if self.watcher:
            self.watcher.drain(self.events)
        now_s = system.boot_s()
        self._heed_requests(now_s)
        self._heed_peers(now_s)
        if self.stopping:
            self.stopping.tick(now_s, self.runtime.mains(), self.runtime.living, self.runtime.send)

    def _heed_requests(self, now_s: float) -> None:
        self._heed_stop_request(now_s)
        timeout_s = self.spec["timeout_s"]
        if timeout_s is None or self._started_s is None or self.stopping:
            return
        if now_s - self._started_s > timeout_s:
            self.events.write(protocol.TIMED_OUT, timeout_s=timeout_s)
            self.stop_all(Cause("timeout", "%g s" % timeout_s))

    def _heed_stop_request(self, now_s: float) -> None:
        request = node.AttemptFolder(self.folder).stop_request()
        if request:
            if self.stopping is None or self.stopping.cause.kind == "peer":
                self.events.write(protocol.STOP_REQUESTED, by=request["by"], now=request["now"])
                self.stop_all(Cause("stopped", request["by"]))
            if request["now"] and self.stopping:
                self.stopping.hurry(now_s)

    def _heed_peers(self, now_s: float) -> None:
        if self.peers is None:
            return
        self.peers.tick(now_s)
        cause = self._cause_elsewhere()
        if cause is not None and not self.stopping:
            self.stopping = Stopping(cause, outcome.grace_s(cause, self.spec["grace_s"]), now_s)

    def _cause_elsewhere(self) -> Optional[Cause]:
        """What ends the attempt on all of its nodes, if this is not a task's failure here."""
        verdict = self.peers.verdict if self.peers else None
        if verdict is None or verdict.kind != "failed":
            return verdict and Cause(verdict.kind, verdict.detail)
        return None if verdict.node_rank == self.spec["node_rank"] else Cause("elsewhere", verdict.detail)

    def tell_peers(self, kind: str, detail: str) -> None:
        if self.peers is not None:
            self.peers.say_stop(kind, detail)
            self.peers.tick(system.boot_s())  # at once: it may take a while to clear up here

    def stop(self, cause: Cause, now_s: float) -> None:
        self.stopping = Stopping(cause, self.spec["grace_s"], now_s)

    def stop_all(self, cause: Cause) -> None:
        """Stop here and on the other nodes, where there are any."""
        self.stop(cause, system.boot_s())
        self.tell_peers(cause.kind, cause.detail)

    def _notice_tasks(self) -> None:
        for place in self.spec["tasks"]:
            rank = place["rank"]
            if rank in self.tasks:
                continue
            record = node.read_json(shim.task_path(self.folder, rank))
            if record:
                self.tasks[rank] = record
                self.runtime.noticed(record)
                if not any(
                    e["kind"] == protocol.TASK_STARTED and e["rank"] == rank for e in self.events.past
                ):
                    self.events.write(
                        protocol.TASK_STARTED, rank=rank, pid=record["pid"], **_of_container(record)
                    )

    def _notice_exits(self) -> None:
        for place in self.spec["tasks"]:
            rank = place["rank"]
            if rank in self.exits:
                continue
            record: Optional[protocol.ExitRecord] = node.read_json(shim.exit_path(self.folder, rank))
            if record is None:
                self.runtime.find_exit(rank, self.tasks.get(rank))
                continue
            self.exits[rank] = record
            oom = self.ooms.check(rank, record)
            if not any(e["kind"] == protocol.TASK_EXITED and e["rank"] == rank for e in self.events.past):
                self.events.write(protocol.TASK_EXITED, **{**record, "out_of_memory": oom})
            if outcome.exit_code(record) != 0 and not self._is_stopping():
                self.tell_peers("failed", self._words_of(record, oom))
                if len(self.exits) < len(self.spec["tasks"]):
                    self.stop(Cause("peer", "rank %d" % rank), system.boot_s())

    def _is_stopping(self) -> bool:
        """Whether the tasks are to end, as of now: what a stop has ended is not to be told as a failure."""
        if self.peers is not None:
            now_s = system.boot_s()
            self._heed_stop_request(now_s)
            self._heed_peers(now_s)
        return self.stopping is not None

    def _words_of(self, record: protocol.ExitRecord, oom: bool) -> str:
        """How a task failed, for the other nodes."""
        oom_ranks = [record["rank"]] if oom else []
        reason = outcome.decide([record], None, self.spec["node"], oom_ranks).reason or {}
        return "rank %d on %s %s" % (record["rank"], self.spec["node"], reason.get("message"))

    def _reap(self) -> None:
        """Collect our own children by name; any other child (a probe's interpreter) belongs to who started it."""
        self._notice_tasks()
        running = {rank: record for rank, record in self.tasks.items() if rank not in self.exits}
        # A container is the engine's child.
        tasks = {record["pid"]: rank for rank, record in running.items() if not record.get("container")}
        for pid in [*tasks, *self._shims]:
            try:
                if pid in tasks and not shim.write_down(self.folder, tasks[pid], pid, "supervisor"):
                    continue  # its shim died, and the kernel gave the living task to us
                if os.waitpid(pid, os.WNOHANG)[0] and pid in self._shims:
                    self.runtime.shim_died(self._shims.pop(pid))
            except ChildProcessError:
                continue  # the task's shim lives, and is the one to collect it

    # --- processes ------------------------------------------------------------------------------------------

    def _end_leftovers(self) -> None:
        """Processes that outlived their main process get the grace period to end by themselves, then no more."""
        left = self.runtime.living()
        if not left:
            return
        self.events.write(protocol.LEFTOVERS, processes=finishing.describe(left, self.spec["secrets"]))
        patience_s = system.boot_s() + self.spec["grace_s"]
        ending: Optional[Stopping] = None
        while self.runtime.living():
            now_s = system.boot_s()
            self._heed_requests(now_s)
            self._heed_peers(now_s)
            if self.stopping:
                ending = self.stopping
            elif ending is None and now_s >= patience_s:
                ending = Stopping(Cause("leftover", ""), min(5.0, self.spec["grace_s"]), now_s)
            if ending:
                if now_s > ending.kill_at_s + _UNKILLABLE_S:
                    break  # another user's, or asleep in a driver: on record, and no reason to keep the run open
                ending.tick(now_s, (), self.runtime.living, self.runtime.send)
            self.follower.tick()
            self.guard.tick()
            self.sleep(_TICK_S)

    def dismiss_shims(self) -> None:
        """Shims have nothing left to do; one that still adopts another run's agent would linger."""
        for record in self.tasks.values():
            if processes.is_same(record["shim_pid"], record["shim_start_ticks"]):
                os.kill(record["shim_pid"], signal.SIGKILL)

    def dropped(self) -> Dict[str, int]:
        """Records that streams of ours have lost to a full disk."""
        counts = {protocol.MARKS: self.follower.dropped}
        if self.watcher:
            counts[protocol.SAMPLES] = self.watcher.dropped
        return {stream: count for stream, count in counts.items() if count}

    def started_ns(self) -> int:
        """When this attempt's folder was made, by the clock that file times are taken from."""
        return os.stat(os.path.join(self.folder, "spec.json")).st_mtime_ns

    def _first_event_s(self) -> float:
        for event in self.events.past:
            if event["kind"] == protocol.TASK_STARTED:
                return float(event["boot_s"])
        return system.boot_s()


def _of_container(record: protocol.TaskRecord) -> Dict[str, Any]:
    if record.get("container") is None:
        return {}
    return {"container": record["container"], "output": record["prints"]}


def _wakeup_pipe() -> Tuple[int, int]:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader, writer


def supervise(spec: protocol.TaskSpec) -> NoReturn:
    """Run a new attempt to its end. Prints ``ok`` once the attempt needs nobody any more."""
    if spec["protocol"] != PROTOCOL_VERSION:
        _answer("protocol %s, not %d" % (spec["protocol"], PROTOCOL_VERSION))
        os._exit(1)
    folder = spec["folder"]
    os.makedirs(os.path.join(folder, "streams"), mode=0o700, exist_ok=True)
    lock = system.try_lock(node.lock_path(folder))
    # A specification that is there already belongs to an attempt that somebody else started: it is to be adopted.
    taken = lock is None or any(os.path.exists(os.path.join(folder, n)) for n in ("fenced", "spec.json"))
    if taken or lock is None:
        os._exit(0)
    try:
        system.write_atomic(os.path.join(folder, "spec.json"), json.dumps(spec).encode())
    except OSError as e:
        _answer("%s: %s" % (folder, os.strerror(e.errno or 0)))
        os._exit(1)
    _answer("ok")
    detach(folder)
    _live(lambda: Supervisor(spec, lock).first_life())


def _answer(words: str) -> None:
    os.write(1, words.encode("utf-8", "backslashreplace") + b"\n")


def adopt(folder: str) -> NoReturn:
    """Look after an attempt whose supervisor and shims are all gone."""
    spec = node.AttemptFolder(folder).spec()
    lock = system.try_lock(node.lock_path(folder)) if spec else None
    if spec is None or lock is None or os.path.exists(os.path.join(folder, "seal.json")):
        os._exit(0)
    detach(folder)
    _live(lambda: Supervisor(spec, lock).later_life(None))


def revive(spec: protocol.TaskSpec, lease: Optional[Lease], alive_reader: int) -> None:
    """In a fork of a shim: become the supervisor, unless another shim's fork was first."""
    os.setsid()
    lock = system.try_lock(node.lock_path(spec["folder"]))
    if lock is None or os.path.exists(os.path.join(spec["folder"], "seal.json")):
        os._exit(0)
    alive = (alive_reader, watchdog.hold_alive(spec["folder"]))
    _live(lambda: Supervisor(spec, lock, lease).later_life(alive))


def detach(folder: str) -> None:
    """Cut every tie to whoever started us; what the agent has to say goes to its own stream."""
    os.chdir("/")  # or the submitter's folder, which may be another run's checkout, could not be unmounted
    null = os.open(os.devnull, os.O_RDONLY)
    path = os.path.join(folder, "streams", protocol.AGENT)
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(null, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(null)
    os.close(log)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)


def _print_error() -> None:
    import traceback  # seldom needed, and large

    traceback.print_exc()
    sys.stderr.flush()


def _live(life: Any) -> NoReturn:
    """Run one life to its end. An error of ours is written down and ends this life alone: a shim brings the next."""
    status = 0
    try:
        life()
    except BaseException:  # noqa: BLE001  this life ends; a shim brings the next
        status = 1
        try:
            _print_error()
        except OSError:
            pass  # nowhere left to write
    finally:
        os._exit(status)
