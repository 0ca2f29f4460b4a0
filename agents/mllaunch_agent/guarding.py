"""Before the start, while no shim lives yet: somebody who revives the supervisor, and who does its duties meanwhile."""

from __future__ import annotations

import os
import select
import threading
from typing import TYPE_CHECKING, Callable, List

if TYPE_CHECKING:
    from mllaunch_agent.supervisor import Supervisor

_TICK_S = 0.1


def ensure(supervisor: Supervisor) -> None:
    """See to it that a process lives which does only the other half of a shim's work: revive the supervisor.

    One stays until ``dismiss``: each fork costs its parent a copy of all memory that it goes on to write to.
    """
    if supervisor.reviver is None or os.waitpid(supervisor.reviver, os.WNOHANG)[0]:
        supervisor.reviver = _fork(supervisor)


def _fork(supervisor: Supervisor) -> int:
    from mllaunch_agent.supervisor import revive

    reader, writer = supervisor.alive
    pid = os.fork()
    if pid:
        return pid
    try:
        for fd in (supervisor.lock, writer, *supervisor.peer_fds()):
            os.close(fd)
        poll = select.poll()
        poll.register(reader, 0)
        poll.poll()
        revive(supervisor.spec, supervisor.lease, reader)
    finally:
        os._exit(0)
    return 0  # not reached


def dismiss(supervisor: Supervisor) -> None:
    if supervisor.reviver is not None:
        os.kill(supervisor.reviver, 9)
        os.waitpid(supervisor.reviver, 0)
        supervisor.reviver = None


def with_peers(supervisor: Supervisor, work: Callable[[], object]) -> bool:
    """``beside`` where other nodes would take this one for lost otherwise, and at once where there are none."""
    if supervisor.peers is not None:
        return beside(supervisor, work)
    work()
    return True


def beside(supervisor: Supervisor, work: Callable[[], object], *, may_leave: bool = False) -> bool:
    """Do what may take long while the supervisor goes on with its duties; False if the attempt is to stop.

    may_leave: then the work need not be waited for. Raises what the work raises.
    """
    failed: List[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as e:  # noqa: BLE001  it is raised where it is waited for
            failed.append(e)

    ensure(supervisor)  # before there is a thread, beside which none should be forked
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    while thread.is_alive():
        supervisor.tick()
        if supervisor.stopping and may_leave:
            return False
        thread.join(_TICK_S)
    if failed:
        raise failed[0]
    return supervisor.stopping is None
