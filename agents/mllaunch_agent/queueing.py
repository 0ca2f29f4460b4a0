"""Waiting for GPUs: the leases' tickets are the queue."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional

from mllaunch_agent import protocol, shim, system
from mllaunch_agent.leases import Lease, Queue, Waiting
from mllaunch_agent.outcome import Cause
from mllaunch_agent.probes.bounded import Bounded, Overdue
from mllaunch_agent.probes.gpu import TIMEOUT_S, Gpus, connect

if TYPE_CHECKING:
    from mllaunch_agent.supervisor import Supervisor

_ASK_S = 0.2


def wait(supervisor: Supervisor) -> Optional[Lease]:
    """Until the GPUs are ours; None if the run was stopped before. Why it waits goes on record when it changes."""
    spec = supervisor.spec
    gpus = NodeGpus(spec["import_path"])
    info = {
        "run": spec["run_name"],
        "run_id": spec["run_id"],
        "attempt": spec["attempt"],
        "user": spec["user"],
        "pid": os.getpid(),
    }
    ticket = Queue(spec["lease_dir"]).enter(info, spec["gpus"])
    guard: Optional[int] = None
    said: Optional[Dict[str, Any]] = None
    try:
        while True:
            answer = ticket.try_take(gpus.uuids(), gpus.processes)
            if isinstance(answer, Lease):
                supervisor.events.write(protocol.GPUS_LEASED, gpus=list(answer.uuids))
                return answer
            why = _why(answer)
            if why != said:
                supervisor.events.write(protocol.WAITING, **why)
                said = why
            if guard is None:
                guard = _fork_guard(supervisor)
            supervisor.tick()
            if supervisor.stopping:
                return None
            supervisor.sleep(_ASK_S)
    finally:
        ticket.leave()
        if guard is not None:
            os.kill(guard, 9)


class NodeGpus:
    """What leases need to know of the node's GPUs, from a driver that may not answer: then there are none for now."""

    def __init__(self, import_path: List[str]) -> None:
        self._import_path = import_path
        self._bounded = Bounded(TIMEOUT_S)
        self._gpus: Optional[Gpus] = None

    def uuids(self) -> List[str]:
        """The GPUs that answer."""
        return [gpu["uuid"] for gpu in self._ask(lambda gpus: gpus.list()[0]) or ()]

    def processes(self, uuid: str) -> List[Dict[str, Any]]:
        """Who uses a GPU. One that does not say counts as used."""
        found: Optional[List[Dict[str, Any]]] = self._ask(lambda gpus: gpus.processes(uuid)[0])
        return [{"pid": None, "user": None, "command": "the GPU does not answer"}] if found is None else found

    def _ask(self, question: Callable[[Gpus], Any]) -> Any:
        def ask() -> Any:
            if self._gpus is None:
                self._gpus = connect(self._import_path)[0]
            return question(self._gpus) if self._gpus else None

        try:
            return self._bounded.call(ask)
        except Overdue:
            return None


def _why(waiting: Waiting) -> Dict[str, Any]:
    return {
        "wanted": waiting.wanted,
        "free": waiting.free,
        "holders": [dict(h) for h in waiting.holders],
        "ahead": [dict(a) for a in waiting.ahead],
        "foreign": [dict(f) for f in waiting.foreign],
    }


def _fork_guard(supervisor: Supervisor) -> int:
    """While there is no shim yet, a process that does only the other half of a shim's work: revive the supervisor."""
    from mllaunch_agent.supervisor import revive

    reader, writer = supervisor.alive
    pid = os.fork()
    if pid:
        return pid
    try:
        os.close(supervisor.lock)
        os.close(writer)
        poll = select.poll()
        poll.register(reader, 0)
        poll.poll()
        revive(supervisor.spec, None, reader)
    finally:
        os._exit(0)
    return 0  # not reached
