"""The agents of one attempt on several nodes, in touch with each other: docs/protocol.md, "Peers".

The agent of node rank 0 listens, the others come to it. Through it they take their GPUs one node after the other, in an
order that is the same for every run (so no two runs wait for each other), compare their code, begin together, and hear
of the first failure and of stops, whether or not a launcher is there. Everything here returns at once; the supervisor's
tick drives it.
"""

from __future__ import annotations

from typing import Callable, Optional

from mllaunch_agent import protocol
from mllaunch_agent.peers.interface import Peers, Verdict

__all__ = ["Peers", "Verdict", "make"]


def make(spec: protocol.TaskSpec, queue: str, free_port: Callable[[], int]) -> Optional[Peers]:
    """None for an attempt on one node."""
    meeting = spec["meeting"]
    if meeting is None:
        return None
    if spec["node_rank"] == 0:
        from mllaunch_agent.peers.first import First

        return First(spec, meeting, queue, free_port)
    from mllaunch_agent.peers.member import Member

    return Member(spec, meeting, queue)
