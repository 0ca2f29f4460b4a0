"""What the supervisor has of the other nodes' agents, whichever side it is on."""

from __future__ import annotations

import abc
from typing import List, NamedTuple, Optional, Tuple

from mllaunch_agent import protocol

__all__ = ["AGAIN_S", "ARRIVAL_S", "Peers", "Verdict"]

AGAIN_S = 1.0
ARRIVAL_S = 60.0


class Verdict(NamedTuple):
    """Why every node is to stop. kind, detail: as outcome.Cause. node_rank: where it began."""

    kind: str
    detail: str
    node_rank: int


class Peers(abc.ABC):
    """What both sides have.

    has_turn: this node may go on, and take its GPUs. go: (address, port) of the first task, once all may begin.
    verdict: why all are to stop, once that is known.
    """

    def __init__(self, spec: protocol.TaskSpec, meeting: protocol.Meeting, queue: str) -> None:
        self._rank = spec["node_rank"]
        self._node = spec["node"]
        self._count = spec["nodes"]
        self._token = bytes.fromhex(meeting["token"])
        self._lease_s = meeting["lease_s"]
        self._queue = queue
        self.verdict: Optional[Verdict] = None
        self.go: Optional[Tuple[str, int]] = None
        self.has_turn = False
        self.is_over = False
        self.waiting_for: List[str] = []

    @abc.abstractmethod
    def tick(self, now_s: float) -> None:
        """Send and hear what is due. now_s: seconds since boot."""

    @abc.abstractmethod
    def say_code(self, code: str) -> None:
        """What the code is here, which must be the same on all nodes."""

    @abc.abstractmethod
    def say_leased(self) -> None:
        """The GPUs of this node are taken."""

    @abc.abstractmethod
    def say_ready(self) -> None:
        """Everything is ready to start here."""

    @abc.abstractmethod
    def say_stop(self, kind: str, detail: str) -> None:
        """All are to stop; kind and detail as in Verdict."""

    @abc.abstractmethod
    def say_ended(self) -> None:
        """No task lives here any more."""

    @property
    @abc.abstractmethod
    def others_go_on(self) -> bool:
        """Whether somebody still needs this agent."""

    @property
    @abc.abstractmethod
    def owes_word(self) -> bool:
        """Whether somebody has not heard yet that no task lives here any more, and may still come to hear it."""

    @abc.abstractmethod
    def filenos(self) -> List[int]:
        """Descriptors that no child may keep: the other end must see when this process is gone."""

    @abc.abstractmethod
    def close(self) -> None:
        """Leave."""
