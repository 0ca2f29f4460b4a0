"""Runs on this machine: the agent is a detached process, and its files are read where they lie."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from mllaunch.domain.job import Resources
from mllaunch.errors import InternalError, NotFound, UsageError
from mllaunch.ports import AttemptRef, NodeFiles, Way
from mllaunch.schedulers.agent_process import AgentProcess

if TYPE_CHECKING:
    from mllaunch_agent.attempts import Attempts
    from mllaunch_agent.node import AttemptFolder
    from mllaunch_agent.protocol import StopRequest, TaskSpec


def import_path() -> list[str]:
    """Where the agent finds psutil and nvidia-ml-py: our own site-packages."""
    return [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]


def _attempt(folder: str) -> AttemptFolder:
    from mllaunch_agent.node import AttemptFolder  # to start a run, nothing of it needs to be read

    return AttemptFolder(folder)


class LocalScheduler:
    """The Scheduler of this machine.

    home: the folder that holds everything mllaunch keeps for this user. agent: one that was started ahead of time.
    """

    name = "local"

    def __init__(self, home: str, node: str, agent: AgentProcess | None = None) -> None:
        self._home = home
        self._node = node
        self._agent = agent

    @cached_property
    def _attempts(self) -> Attempts:
        from mllaunch_agent.attempts import Attempts  # to start a run, nothing of it needs to be read

        return Attempts(self._home)

    def folder(self, attempt: AttemptRef) -> str:
        return os.path.join(self._home, "runs", attempt.run_id, str(attempt.number))

    def check(self, resources: Resources, runtime: str = "") -> None:
        if resources.nodes > 1:
            raise UsageError(
                "nodes",
                f"--nodes {resources.nodes}: this machine is one node",
                hint="choose another --backend",
            )
        cpus = os.cpu_count() or 1
        if resources.cpus is not None and resources.cpus > cpus:
            raise UsageError("cpus", f"--cpus {resources.cpus}: this machine has {cpus}")
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if resources.memory_bytes is not None and resources.memory_bytes > memory_bytes:
            raise UsageError(
                "memory",
                f"--memory {resources.memory_bytes} bytes: this machine has {memory_bytes}",
            )
        if resources.gpus:
            self._check_gpus(resources.gpus)

    def _check_gpus(self, wanted: int) -> None:
        from mllaunch_agent.node import gpus

        found, problems = gpus(import_path())
        if wanted > len(found):
            have = f"{len(found)} GPU{'s' if len(found) != 1 else ''}" if found else "no GPU that can be used"
            raise UsageError(
                "gpus",
                f"--gpus {wanted}: this machine has {have}",
                evidence=tuple(f"{p['what']}: {p['why']}" for p in problems),
            )

    @contextmanager
    def submitting(self, attempt: AttemptRef) -> Iterator[None]:
        """While a submission is being made, others can see that it still is."""
        from mllaunch_agent import system

        folder = self.folder(attempt)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        path = os.path.join(folder, "submit.lock")
        lock = system.try_lock(path)
        try:
            yield
        finally:
            if lock is not None:
                os.close(lock)
            try:
                os.unlink(path)
                os.removedirs(folder)
            except OSError:
                pass  # not empty: it has started

    def start(self, spec: TaskSpec) -> None:
        agent = self._agent or AgentProcess()
        self._agent = None
        agent.give(spec)

    def retry(self, failed: AttemptRef) -> None:
        """Start the attempt after ``failed`` with the same specification. Harmless when it has started already."""
        try:
            spec = self._attempts.following(*failed)
        except FileNotFoundError as error:
            raise NotFound("spec", str(error), hint="submit it again") from error
        try:
            if spec is not None:
                self.start(spec)
        except InternalError:
            if not self._attempts.has_begun(failed.run_id, failed.number + 1):
                raise
            # Else another command started it in the same moment, and its agent was first.

    def stop(self, attempt: AttemptRef, request: StopRequest) -> None:
        _attempt(self.folder(attempt)).request_stop(request)

    def not_told(self, attempt: AttemptRef) -> list[str]:
        return []

    def files(self, attempt: AttemptRef, node: str | None = None) -> dict[str, NodeFiles]:
        found = self._attempts.find(*attempt)
        return {} if found is None else {self._node_of(found.folder): found}

    def outputs(self, attempt: AttemptRef, node: str | None = None) -> dict[str, AttemptFolder]:
        """By node, where what the tasks wrote can be looked at; empty once nothing is left of the attempt."""
        folder = self.folder(attempt)
        return {self._node_of(folder): _attempt(folder)} if os.path.isdir(folder) else {}

    def way_to(
        self, attempt: AttemptRef, node: str, rank: int, words: Sequence[str], *, terminal: bool
    ) -> Way:
        """How to run a command where a task runs, or a shell without words. terminal: this machine's is used anyway."""
        from mllaunch_agent import entering

        found = entering.look(self.folder(attempt), rank)
        return Way(found["state"], [*found["argv"], *words])

    def _node_of(self, folder: str) -> str:
        """The name this machine had when the attempt was started: under it everything of the attempt is stored."""
        spec = _attempt(folder).spec()
        return self._node if spec is None else spec["node"]

    def kept(self) -> list[str]:
        """Ids of the runs of which something lies here."""
        return self._attempts.kept()

    def held_bytes(self, attempt: AttemptRef) -> tuple[int, int] | None:
        """How much disk an attempt takes: (our copies of its streams, what its tasks wrote); None: nothing is left."""
        return self._attempts.held_bytes(*attempt)

    def release_streams(self, attempt: AttemptRef) -> None:
        """Free our copies of a sealed attempt's streams; repeatable. OSError while somebody is at it."""
        self._attempts.release_streams(*attempt)

    def discard(self, attempt: AttemptRef) -> None:
        """Remove all that lies here of an attempt; repeatable. OSError while somebody is at it."""
        self._attempts.discard(*attempt)

    def nodes_of(self, attempt: AttemptRef) -> list[str]:
        return list(self.files(attempt)) or [self._node]

    def lease_s(self, attempt: AttemptRef) -> float:
        return float("inf")  # this machine is never silent

    def revive(self, attempt: AttemptRef, node: str) -> None:
        self._attempts.revive(*attempt)

    def abandon(self, attempt: AttemptRef) -> bool:
        """Rule out that a submission which broke off can still start; False if somebody is at it or it has started."""
        return self._attempts.abandon(*attempt)

    def withdraw(self, attempt: AttemptRef) -> bool:
        return self._attempts.withdraw(*attempt)
