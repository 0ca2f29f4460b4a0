"""After the last task: what was written, and the seal.

Each step can be repeated after a crash, and none may keep the seal from being written: a step that fails is
itself put on record.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, List, TypeVar

from mllaunch_agent import PROTOCOL_VERSION, protocol, system
from mllaunch_agent.probes import processes
from mllaunch_agent.probes.gpu import Gpus
from mllaunch_agent.shim import release_ballast
from mllaunch_agent.tracing import folder_of

if TYPE_CHECKING:
    from mllaunch_agent.supervisor import Supervisor

T = TypeVar("T")

_FULL_DISK_PAUSE_S = 0.5
_FACTS_PATIENCE_S = 20.0  # a package listing on a slow network file system takes this long, not longer


def finish(supervisor: Supervisor, ended: Dict[str, Any]) -> None:
    """Put the record in order and seal it."""
    os.setpriority(os.PRIO_PROCESS, 0, 10)
    supervisor.dismiss_shims()
    _attempt(supervisor, "GPUs after the end", lambda: give_gpus_back(supervisor))
    _attempt(supervisor, "room for output", supervisor.guard.release)
    _attempt(supervisor, "usage", lambda: _finish_watching(supervisor))
    _attempt(supervisor, "files written", lambda: _record_outputs(supervisor))
    _attempt(supervisor, "samples", lambda: _say_dropped(supervisor))
    _attempt(supervisor, "removal of what the tasks ran in", supervisor.runtime.close)
    seal(supervisor, ended)


def _attempt(supervisor: Supervisor, what: str, step: Callable[[], None]) -> None:
    try:
        when_there_is_room(step)
    except Exception as e:  # noqa: BLE001  whatever it is, the seal must still be written
        import traceback

        traceback.print_exc()
        supervisor.events.write(protocol.NOT_CAPTURED, what=what, why="%s: %s" % (type(e).__name__, e))


def when_there_is_room(step: Callable[[], T]) -> T:
    """Do it, again and again while the disk is full: the tasks are over, so there is time, and nothing is lost."""
    while True:
        try:
            return step()
        except OSError as e:
            if not system.is_full(e):
                raise
        time.sleep(_FULL_DISK_PAUSE_S)


def _say_dropped(supervisor: Supervisor) -> None:
    for stream, dropped in supervisor.dropped().items():
        why = "the disk was full; %d records are missing" % dropped
        supervisor.events.write(protocol.NOT_CAPTURED, what=stream, why=why)


def _finish_watching(supervisor: Supervisor) -> None:
    if supervisor.watcher:
        supervisor.watcher.finish(supervisor.events, list(supervisor.exits.values()), _FACTS_PATIENCE_S)
        return
    if supervisor.events.has(protocol.WORKDIR_READY):
        _finish_tracing(supervisor)
    if not supervisor.events.has(protocol.USAGE):
        why = "the agent was killed at the run's end, or the tasks never began"
        supervisor.events.write(protocol.NOT_CAPTURED, what="usage", why=why)


def _finish_tracing(supervisor: Supervisor) -> None:
    """What the supervisor before this one would have done after the tasks' end."""
    from mllaunch_agent.watching import make_tracer

    def say(kind: str, **fields: Any) -> None:
        if not any(e["kind"] == kind and fields.items() <= e.items() for e in supervisor.events.past):
            supervisor.events.write(kind, **fields)

    make_tracer(supervisor.spec, supervisor.runtime, supervisor.blobs).finish(say)


def give_gpus_back(supervisor: Supervisor) -> None:
    """Free the lease, once; a process that is on the GPUs even now is named, for it is in the next run's way."""
    if supervisor.lease is None:
        return
    spec = supervisor.spec
    try:
        gpus = Gpus(spec["import_path"])
        used = [
            dict(user, gpu=uuid)
            for uuid in supervisor.lease.uuids
            for user in gpus.processes(uuid, spec["secrets"]) or ()
        ]
        if used:
            supervisor.events.write(protocol.GPUS_STILL_USED, gpus=used)
    finally:
        supervisor.lease.release()
        supervisor.lease = None


def _record_outputs(supervisor: Supervisor) -> None:
    spec = supervisor.spec
    listing = os.path.join(spec["folder"], "streams", protocol.FILES)
    if os.path.exists(listing):
        return  # by a supervisor that died before the seal; it may have been shipped already
    deleted = supervisor.runtime.release()
    if deleted is None:
        return

    from mllaunch_agent import outputs

    tracer = supervisor.watcher.tracer if supervisor.watcher else None
    digests = tracer.digests if tracer else None
    if spec["in_place"]:
        lines = outputs.scan(spec["in_place"], since_ns=supervisor.started_ns(), digests=digests)
    else:
        lines = outputs.scan(os.path.join(spec["folder"], "work"), deleted, digests=digests)
    # Only a finished scan becomes a stream: one begun by a supervisor that dies must not have been shipped.
    temporary = os.path.join(spec["folder"], "files.tmp")
    with open(temporary, "wb") as f:
        for line in lines:
            f.write(json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n")
    os.rename(temporary, listing)


def seal(supervisor: Supervisor, ended: Dict[str, Any]) -> None:
    """The last word: length and digest of every stream. Nothing is written to any of them afterwards."""
    spec = supervisor.spec
    gaps = supervisor.guard.gaps()
    while not supervisor.events.flush():
        time.sleep(_FULL_DISK_PAUSE_S)
    when_there_is_room(supervisor.events.stream.sync)
    supervisor.events.stream.close()
    streams = supervisor.follower.seal(gaps)
    document: protocol.Seal = {
        "protocol": PROTOCOL_VERSION,
        "run_id": spec["run_id"],
        "attempt": spec["attempt"],
        "node": spec["node"],
        "status": "sealed-with-gaps" if gaps else "sealed-complete",
        "state": ended["state"],
        "exit_code": ended["exit_code"],
        "at": system.now(),
        "streams": streams,
    }
    release_ballast(spec["folder"])
    path = os.path.join(spec["folder"], "seal.json")
    when_there_is_room(lambda: system.write_atomic(path, json.dumps(document).encode(), durable=True))
    shutil.rmtree(folder_of(spec["folder"]), ignore_errors=True)  # the streams tell what was in it


def describe(pids: List[int], secrets: List[str]) -> List[Dict[str, Any]]:
    """Up to 20 processes for the record."""
    return [{"pid": pid, "command": processes.command(pid, secrets) or ""} for pid in pids[:20]]
