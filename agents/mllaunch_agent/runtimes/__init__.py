"""How tasks are started on a node, found again, asked to end, and cleared away: one module for each way.

A runtime starts every task through a *shim* (a fork of the supervisor that lives as long as its task) and answers
the supervisor's questions. Everything it knows it finds again after a death, on the disk or at the engine.
Every implementation passes tests/conformance/test_runtime.py.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NoReturn, Optional, Protocol, Tuple

from mllaunch_agent import protocol
from mllaunch_agent.probes import NotCaptured

if TYPE_CHECKING:
    from mllaunch_agent.blobs import BlobLog
    from mllaunch_agent.supervisor import Supervisor
    from mllaunch_agent.tracing.places import Places

__all__ = ["Runtime", "Say", "ShimMain", "choose"]

Say = Callable[..., Any]  # takes an event: its kind, and fields by name

# What a fresh fork of the supervisor becomes: (revive, alive, close), see shim.run. It never returns.
ShimMain = Callable[[Callable[[], None], int, Tuple[int, ...]], NoReturn]


class Runtime(Protocol):
    def prepare(self) -> str:
        """Make what the tasks start in; the folder of their code, as they see it. OSError if that is impossible.

        May wait, calling the supervisor's tick(), and then returns "" once the attempt is to stop.
        """

    def take_over(self) -> None:
        """The supervisor before this one has died: from now on trust nothing that only it knew."""

    def shim(self, place: protocol.TaskPlace) -> ShimMain:
        """What the shim of this rank does."""

    def noticed(self, record: protocol.TaskRecord) -> None:
        """A task has started, or was found to run."""

    def find_exit(self, rank: int, record: Optional[protocol.TaskRecord]) -> None:
        """Called again and again while a rank has no exit record: see to it that it gets one, sooner or later."""

    def shim_died(self, rank: int) -> None:
        """A shim that was our child has ended."""

    def mains(self) -> List[int]:
        """The living main processes: those that are asked first to end."""

    def living(self) -> List[int]:
        """Every living process of the tasks."""

    def send(self, pid: int, number: int) -> None:
        """Send a signal to one of them; harmless if it is gone."""

    def observed(self, record: protocol.TaskRecord) -> int:
        """The process whose tree is the task, for telemetry."""

    def python(self) -> Tuple[Dict[str, Any], List[NotCaptured]]:
        """Facts of the tasks' interpreter, as probes.python.facts; ({}, []) if they have none."""

    def places(self) -> "Places":
        """Where the tasks' files are on this node."""

    def watch_code(self, say: Say, blobs: "BlobLog", ending: threading.Event) -> None:
        """Compare the code that the tasks work with to the commit; then, until ``ending`` is set, tell of every
        change to it. What it holds then is kept in ``blobs``."""

    def release(self) -> Optional[List[str]]:
        """After the end: reduce ``work`` to what the tasks wrote; the paths of the code that they deleted.

        None if nothing was ever made there. Can be repeated, also after a crash.
        """

    def close(self) -> None:
        """The record is complete: leave nothing behind."""


def choose(supervisor: "Supervisor") -> Runtime:
    """The runtime that the specification asks for."""
    spec = supervisor.spec.get("container")
    if spec is not None:
        from mllaunch_agent.runtimes.docker import DockerRuntime

        return DockerRuntime(supervisor, spec)
    from mllaunch_agent.runtimes.process import ProcessRuntime

    return ProcessRuntime(supervisor)
