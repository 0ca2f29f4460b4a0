"""Before the start of an attempt on several nodes: in touch with the other agents, in turn, and then all together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Callable, List

from mllaunch_agent import guarding, leases, peers, protocol, system
from mllaunch_agent.outcome import Cause

if TYPE_CHECKING:
    from mllaunch_agent.supervisor import Supervisor

_SOON_S = 0.1


def meet(supervisor: Supervisor) -> None:
    """Get in touch with the other nodes' agents, if there are any, and tell them what was decided here before.

    OSError if the folder of leases cannot be used.
    """
    spec = supervisor.spec
    if spec.get("meeting") is None:
        return
    has_begun = supervisor.events.has(protocol.PEERS_READY)
    queue = leases.queue_name(spec["lease_dir"]) if spec["gpus"] and not has_begun else ""
    supervisor.peers = peers.make(spec, queue, system.free_port)
    if supervisor.peers is not None and has_begun:
        supervisor.peers.go = supervisor.master
    if supervisor.stopping is not None:
        supervisor.tell_peers(*supervisor.stopping.cause)


def await_turn(supervisor: Supervisor) -> bool:
    """Until this node may go on: on several, one takes its GPUs after the other, and none does anything before all have
    come.

    False if the attempt is to stop.
    """
    if supervisor.peers is None:
        return True
    return (
        _keeps_its_turn(supervisor)
        and _say_code(supervisor, supervisor.peers)
        and _await(supervisor, supervisor.peers, lambda others: others.has_turn)
    )


def await_go(supervisor: Supervisor) -> bool:
    """Until every node is ready; False if the attempt is to stop."""
    others = supervisor.peers
    if others is None:
        return True
    others.say_ready()
    if not _await(supervisor, others, lambda others: others.go is not None):
        return False
    assert others.go is not None
    supervisor.begin_with_peers(others.go)
    return True


def _keeps_its_turn(supervisor: Supervisor) -> bool:
    """Queues for GPUs have other names after a boot, and the order among nodes depends on them: False then."""
    past = supervisor.events.past
    if not past or past[0].get("boot_id") == system.boot_id():
        return True
    words = "%s was booted anew before the start" % supervisor.spec["node"]
    supervisor.stop_all(Cause("incomplete", words))
    return False


def _say_code(supervisor: Supervisor, others: peers.Peers) -> bool:
    """Tell the other nodes what the code is here; False if the attempt is to stop."""
    found: List[str] = []
    if not guarding.beside(supervisor, lambda: found.append(_code_of(supervisor.spec)), may_leave=True):
        return False
    others.say_code(found[0])
    return True


def _code_of(spec: protocol.TaskSpec) -> str:
    """What the tasks' code is, by its content: read from the files that are there."""
    container = spec.get("container")
    if container is not None:
        return container["image"]
    if spec["tree"] is None:
        return ""
    from mllaunch_agent import codekeeping, codewatch

    return codekeeping.key_of(codewatch.format_tree(codewatch.listing(spec["tree"], None)))


def _await(supervisor: Supervisor, others: peers.Peers, has_come: Callable[[peers.Peers], bool]) -> bool:
    while True:
        supervisor.tick()
        if supervisor.stopping:
            return False
        if has_come(others):
            return True
        guarding.ensure(supervisor)
        supervisor.sleep(_SOON_S, others.filenos())
