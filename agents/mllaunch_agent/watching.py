"""What is observed beside the tasks, in threads of low priority: telemetry, facts, digests, data.

Threads hand events to the main loop (drain), the only one that writes the event stream. A driver that hangs
hangs a thread, never the loop. Nothing here starts before the tasks have, so nothing here delays them.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Callable, Deque, Dict, List, Optional, Sequence, Tuple

from mllaunch_agent import protocol, system
from mllaunch_agent.follower import Follower
from mllaunch_agent.probes import processes
from mllaunch_agent.runtimes import Runtime
from mllaunch_agent.streams import EventLog, Stream

if TYPE_CHECKING:
    from mllaunch_agent.blobs import BlobLog
    from mllaunch_agent.tracing.tracer import Tracer

_SAMPLE_S = 1.0
_FACTS_DELAY_S = 2.0  # the task's own start, with all its imports, has the processor first
_TRACE_DELAY_S = 1.0
_READING_PATIENCE_S = 6 * 3600.0  # large data and checkpoints on a slow disk are read to their end
_TRACE_S = 0.5
_NICE = 10
_REPLACED = (
    "what was read, written and used in energy was counted by a supervisor that died;"
    " the GPUs' utilisation and memory are those after it"
)


class Watcher:
    def __init__(
        self,
        spec: protocol.TaskSpec,
        folder: str,
        follower: Follower,
        gpus: Sequence[str],
        runtime: Runtime,
        blobs: "BlobLog",
    ) -> None:
        self._spec = spec
        self._folder = folder
        self._follower = follower
        self._gpus = list(gpus)
        self._runtime = runtime
        self._blobs = blobs
        self.tracer: Optional["Tracer"] = None
        self._pids: List[int] = []
        self._inbox: Deque[Tuple[str, Dict[str, Any]]] = deque()
        self._ending = threading.Event()
        self._usage: Dict[str, Any] = {}
        self.dropped = 0  # samples lost to a full disk
        self._started_s = system.boot_s()
        works = (self._sample, self._collect_facts, self._fingerprint, self._watch_code, self._trace)
        self._threads = [self._start(work) for work in works]

    def add_task(self, pid: int) -> None:
        """Take a task's process tree into the telemetry."""
        self._pids.append(pid)

    def drain(self, events: EventLog) -> None:
        """Write what the threads have found. Called by the main loop."""
        while self._inbox:
            kind, fields = self._inbox.popleft()
            if not _is_on_record(kind, fields, events):
                events.write(kind, **fields)

    def finish(self, events: EventLog, exits: Sequence[protocol.ExitRecord], patience_s: float) -> None:
        """The tasks are over: last sample, usage, and whatever facts are still on their way, within limits."""
        self._ending.set()
        deadline_s = time.monotonic() + patience_s
        for thread in self._threads:
            is_reading = thread.name in ("fingerprint", "trace")
            thread.join(_READING_PATIENCE_S if is_reading else max(0.0, deadline_s - time.monotonic()))
            if thread.is_alive():
                self._say(protocol.NOT_CAPTURED, what=thread.name, why="it took too long")
        self.drain(events)
        if self._usage:
            self._write_usage(events, _at_least(self._usage, exits))

    def _write_usage(self, events: EventLog, usage: Dict[str, Any]) -> None:
        wall_s: Optional[float] = system.boot_s() - self._started_s
        began = _began_before(events.past)
        if began is not None:
            same_boot = events.past[0].get("boot_id") == system.boot_id()
            wall_s = system.boot_s() - began["boot_s"] if same_boot else None
            usage = _without_sums(usage)
            events.write(
                protocol.NOT_CAPTURED, what="usage before the supervisor was replaced", why=_REPLACED
            )
        events.write(protocol.USAGE, wall_s=None if wall_s is None else round(wall_s, 3), **usage)

    def _say(self, kind: str, **fields: Any) -> None:
        self._inbox.append((kind, fields))

    def _start(self, work: Callable[[], None]) -> threading.Thread:
        name = work.__name__.strip("_").replace("_", " ")

        def guarded() -> None:
            try:
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
                system.lower_io_priority()
                work()
            except Exception as e:  # noqa: BLE001  a probe must not take the others along
                import traceback  # seldom needed, and large

                traceback.print_exc()
                self._say(protocol.NOT_CAPTURED, what=name, why="%s: %s" % (type(e).__name__, e))

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def _sample(self) -> None:
        from mllaunch_agent.probes.sampler import Sampler

        in_containers = self._spec.get("container") is not None
        sampler = Sampler((), self._gpus, self._spec["import_path"], containers=in_containers)
        added = 0
        stream = Stream(self._folder, protocol.SAMPLES)
        stream.write(sampler.header().encode() + b"\n")
        while True:
            ending = self._ending.is_set()
            for pid in self._pids[added:]:  # tasks start while we sample
                sampler.add(pid)
                added += 1
            stream.write(sampler.sample(system.boot_s()).encode() + b"\n")
            for missing in sampler.not_captured():
                self._say(protocol.NOT_CAPTURED, **missing)
            self._usage = sampler.usage()
            self.dropped = stream.dropped
            if ending:
                break
            self._follower.digest()
            self._ending.wait(_SAMPLE_S)
        stream.close()

    def _collect_facts(self) -> None:
        from mllaunch_agent.probes import host
        from mllaunch_agent.variables import variables

        self._ending.wait(_FACTS_DELAY_S)
        facts, missing = host.facts(self._spec["import_path"])
        recorded, redacted = variables(self._spec["environment"], self._spec["named"])
        self._say(protocol.HOST, facts=facts, variables=recorded, redacted=redacted)
        for entry in missing:
            self._say(protocol.NOT_CAPTURED, **entry)
        facts, missing = self._runtime.python()
        if facts:
            self._say(protocol.PYTHON, facts=facts)
        for entry in missing:
            self._say(protocol.NOT_CAPTURED, **entry)

    def _watch_code(self) -> None:
        self._runtime.watch_code(self._say, self._blobs, self._ending)

    def _trace(self) -> None:
        self._ending.wait(_TRACE_DELAY_S)
        self.tracer = make_tracer(self._spec, self._runtime, self._blobs)
        while not self._ending.wait(_TRACE_S):
            self.tracer.look(self._say)
        self.tracer.finish(self._say)

    def _fingerprint(self) -> None:
        if not self._spec["data"]:
            return
        from mllaunch_agent import dataset

        for kind, fields in dataset.fingerprints(self._spec):
            self._say(kind, **fields)
        self._ending.wait()
        for kind, fields in dataset.changes(self._spec):
            self._say(kind, **fields)


def make_tracer(spec: protocol.TaskSpec, runtime: Runtime, blobs: "BlobLog") -> "Tracer":
    from mllaunch_agent.tracing.tracer import Tracer

    return Tracer(spec, runtime.places(), blobs, lambda: processes.open_for_writing(runtime.living()))


def _is_on_record(kind: str, fields: Dict[str, Any], events: EventLog) -> bool:
    """Whether a supervisor before this one has written the same already."""
    if kind == protocol.DATA:
        return any(e["kind"] == kind and e["path"] == fields["path"] for e in events.past)
    if kind in (protocol.NOT_CAPTURED, protocol.CODE_MIXED):
        return any(e["kind"] == kind and fields.items() <= e.items() for e in events.past)
    return False


def _began_before(past: Sequence[protocol.Event]) -> Optional[protocol.Event]:
    """What says that tasks began under a supervisor before this one, the first task's start if that is on record."""
    for kind in (protocol.TASK_STARTED, protocol.WORKDIR_READY):
        for event in past:
            if event["kind"] == kind:
                return event
    return None


def _without_sums(usage: Dict[str, Any]) -> Dict[str, Any]:
    """Usage without the sums over the samples, of which a supervisor before this one took a part with it."""
    gpu = dict(usage["gpu"], energy_j=None) if usage["gpu"] else usage["gpu"]
    return dict(usage, read_bytes=None, written_bytes=None, gpu=gpu)


def _at_least(usage: Dict[str, Any], exits: Sequence[protocol.ExitRecord]) -> Dict[str, Any]:
    """Usage as sampled, or what the kernel counted at the exits where that is more: short tasks end between samples."""
    cpu_s = sum(record["cpu_s"] or 0.0 for record in exits)
    rss_bytes = max((record["max_rss_bytes"] or 0 for record in exits), default=0)
    more = {
        "cpu_s": max(usage["cpu_s"] or 0.0, cpu_s),
        "max_rss_bytes": max(usage["max_rss_bytes"] or 0, rss_bytes),
    }
    return {**usage, **{key: value for key, value in more.items() if value}}
