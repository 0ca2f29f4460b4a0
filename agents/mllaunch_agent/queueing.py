"""Waiting for GPUs: the leases' tickets are the queue."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Dict, List, Optional

from mllaunch_agent import guarding, protocol
from mllaunch_agent.leases import Lease, Queue, Waiting, take_back
from mllaunch_agent.outcome import Cause
from mllaunch_agent.probes.gpu import Gpus

if TYPE_CHECKING:
    from mllaunch_agent.supervisor import Supervisor

_ASK_S = 0.2


def wait(supervisor: Supervisor) -> Optional[Lease]:
    """Until the GPUs are ours; None if the run was stopped before. Why it waits goes on record when it changes."""
    spec = supervisor.spec
    gpus = Gpus(spec["import_path"])
    ticket = Queue(spec["lease_dir"]).enter(holder(supervisor), spec["gpus"])
    said: Optional[Dict[str, Any]] = None
    try:
        while True:
            present = {gpu["uuid"]: gpu["index"] for gpu in gpus.list()}
            answer = ticket.try_take(list(present), lambda uuid: _users(gpus, uuid, spec["secrets"]))
            if isinstance(answer, Lease):
                taken = list(answer.uuids)
                indices = [present[uuid] for uuid in taken]
                supervisor.events.write(protocol.GPUS_LEASED, gpus=taken, indices=indices)
                return answer
            why = _why(answer)
            if why != said:
                supervisor.events.write(protocol.WAITING, **why)
                said = why
            guarding.ensure(supervisor)
            supervisor.tick()
            if supervisor.stopping:
                return None
            supervisor.sleep(_ASK_S)
    finally:
        ticket.leave()
        guarding.dismiss(supervisor)


def take(supervisor: Supervisor) -> Optional[Lease]:
    """The GPUs of this node; None if the attempt is to stop.

    Of an attempt on several nodes an agent that takes over takes back what the one before it had, or gives up: it must
    not wait while nodes that come later in the order hold theirs, or two attempts may wait for each other.
    """
    guarding.dismiss(
        supervisor
    )  # one that is forked from now on has the ticket in memory, and then the lease
    spec = supervisor.spec
    had = supervisor.gpus()
    if supervisor.peers is None or not had:
        return wait(supervisor)
    lease = take_back(spec["lease_dir"], had, holder(supervisor))
    if lease is None:
        words = "the agent on %s was killed before the start, and others have taken its GPUs" % spec["node"]
        supervisor.stop_all(Cause("incomplete", words))
    return lease


def _users(gpus: Gpus, uuid: str, secrets: List[str]) -> List[Dict[str, Any]]:
    """Who uses a GPU. One that does not answer counts as used: a task would only fail on it."""
    found = gpus.processes(uuid, secrets)
    return [{"pid": None, "user": None, "command": "the GPU does not answer"}] if found is None else found


def _why(waiting: Waiting) -> Dict[str, Any]:
    return {
        "wanted": waiting.wanted,
        "free": waiting.free,
        "holders": [dict(h) for h in waiting.holders],
        "ahead": [dict(a) for a in waiting.ahead],
        "foreign": [dict(f) for f in waiting.foreign],
    }


def holder(supervisor: Supervisor) -> Dict[str, Any]:
    """What a ticket and a lease say of who has them."""
    spec = supervisor.spec
    return {
        "run": spec["run_name"],
        "run_id": spec["run_id"],
        "attempt": spec["attempt"],
        "user": spec["user"],
        "pid": os.getpid(),
    }
