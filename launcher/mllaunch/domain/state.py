"""The life of a run, as a table.

    packaging -> queued -> starting -> running -> stopping -> succeeded | failed | cancelled

A run moves only along the table. A node that does not answer is not a state: the job goes on, and the run is
shown as unreachable beside its state. After the node's lease it is shown as failed, which is a judgement without an
event: once the node answers, the run is where its events have brought it.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class State(str, Enum):
    PACKAGING = "packaging"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        return not TRANSITIONS[self]


_ENDS = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})

# From any living state a run may end, because the machine under it may fail at any time; `succeeded` needs a
# task that ran. A retry starts the next attempt, so an attempt that failed leads back to `queued` only in the
# run's state, never in the attempt's.
TRANSITIONS: dict[State, frozenset[State]] = {
    State.PACKAGING: frozenset({State.QUEUED, State.FAILED, State.CANCELLED}),
    State.QUEUED: frozenset({State.STARTING, State.STOPPING, State.FAILED, State.CANCELLED}),
    State.STARTING: frozenset({State.RUNNING, State.STOPPING, State.FAILED, State.CANCELLED}),
    State.RUNNING: frozenset({State.STOPPING}) | _ENDS,
    State.STOPPING: _ENDS,
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}


class Reason(NamedTuple):
    """Why a run is in its state.

    origin: "user", "infrastructure" or "launcher": whose doing it was. node, rank: where it was first seen.
    retryable: whether another attempt may go otherwise.
    """

    code: str
    message: str
    origin: str
    node: str | None = None
    rank: int | None = None
    retryable: bool = False

    def words(self, tasks: int) -> str:
        """The message; of a run with several tasks also which of them it was, if it was one."""
        if self.rank is None or tasks < 2:
            return self.message
        return f"{self.message} (rank {self.rank} on {self.node or '?'})"
