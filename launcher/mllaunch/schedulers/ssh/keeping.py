"""What runs and their code take of the nodes' disks, and how it is freed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mllaunch.errors import MllaunchError, NotFound
from mllaunch.ports import AttemptRef
from mllaunch.schedulers.ssh.calls import Calls
from mllaunch.schedulers.ssh.fleet import Fleet
from mllaunch.schedulers.ssh.placements import Placements
from mllaunch.schedulers.ssh.transport import Address

__all__ = ["Disks", "NodeKeeper", "UnusedCode"]


class UnusedCode(NamedTuple):
    """Code on a node that nothing there uses any more: how many trees, contents and agents; what they take."""

    trees: int
    contents: int
    agents: int
    size_bytes: int


class NodeKeeper:
    """What one node keeps of attempts. held: by attempt, bytes of (our copies of its streams, what its tasks wrote)."""

    def __init__(
        self, node: str, calls: Calls, held: Mapping[AttemptRef, tuple[int, int]], unused: UnusedCode
    ) -> None:
        self.node = node
        self.unused = unused
        self._calls = calls
        self._held = held

    def held_bytes(self, attempt: AttemptRef) -> tuple[int, int] | None:
        return self._held.get(attempt)

    def release_streams(self, attempt: AttemptRef) -> None:
        self._do("release_streams", attempt)

    def discard(self, attempt: AttemptRef) -> None:
        self._do("discard", attempt)

    def _do(self, call: str, attempt: AttemptRef) -> None:
        if attempt in self._held:
            try:
                self._calls.call(call, **attempt._asdict())
            except MllaunchError as error:
                raise OSError(error.message) from error

    def sweep(self, unused_for_s: float) -> UnusedCode | None:
        """Free unused code; None if somebody is sending code there now. MllaunchError."""
        found = self._calls.call_patiently("sweep", for_s=unused_for_s, seldom=False)
        return None if found is None else UnusedCode(**found)


class Disks:
    """Those of all nodes that runs of this home were ever placed on."""

    def __init__(self, placements: Placements, fleet: Fleet) -> None:
        self._placements = placements
        self._fleet = fleet

    def runs(self) -> list[str]:
        """Ids of the runs of which something may lie on nodes."""
        return self._placements.runs()

    def look(
        self, run_ids: Sequence[str], unused_for_s: float
    ) -> tuple[dict[str, NodeKeeper], dict[str, MllaunchError]]:
        """By name, what each node has of the runs, and those that could not be asked. All are asked at once."""
        attempts: dict[Address, list[AttemptRef]] = {}
        for run_id in run_ids:
            for attempt in self._placements.attempts(run_id):
                for address in self._placements.nodes(attempt):
                    attempts.setdefault(address, []).append(attempt)

        def ask(calls: Calls) -> NodeKeeper:
            wanted = attempts[calls.address]
            answers = calls.call_patiently("held", attempts=[list(attempt) for attempt in wanted])
            held = {
                attempt: (answer[0], answer[1])
                for attempt, answer in zip(wanted, answers, strict=True)
                if answer is not None
            }
            unused = UnusedCode(**calls.call_patiently("unused", for_s=unused_for_s))
            return NodeKeeper(calls.address.name, calls, held, unused)

        answers = self._fleet.each(attempts, ask)
        keepers = {name: answer for name, answer in answers.items() if isinstance(answer, NodeKeeper)}
        silent = {name: answer for name, answer in answers.items() if isinstance(answer, MllaunchError)}
        return keepers, silent

    def to_free(self) -> dict[str, list[str]]:
        """The nodes that have not freed their copies of streams yet, by run."""
        waiting = {}
        for run_id in self._placements.runs():
            nodes = self._nodes_of(run_id)
            freed = self._placements.freed(run_id) if nodes else []
            left = [node for node in nodes if node not in freed]
            if left:
                waiting[run_id] = left
        return waiting

    def _nodes_of(self, run_id: str) -> list[str]:
        try:
            return [address.name for address in self._placements.nodes(AttemptRef(run_id, 1))]
        except (
            NotFound,
            ValueError,
            TypeError,
        ):  # it came not so far; or the record is damaged, or of a newer version
            return []

    def free(self, run_id: str, node: str) -> None:
        """Have a node free its copies of a run's streams, all of which are in the run log, and code that nothing there
        has used for as long as such is to be kept. MllaunchError.
        """
        for attempt in self._placements.attempts(run_id):
            for address in self._placements.nodes(attempt):
                if address.name == node:
                    calls = self._fleet.calls(address)
                    calls.call_patiently("release_streams", **attempt._asdict())
                    keep_s = self._placements.read(attempt).get("keep_s")
                    if keep_s is not None:
                        calls.call_patiently("sweep", for_s=keep_s, seldom=True)
        self._placements.note_freed(run_id, node)

    def forget(self, run_id: str) -> None:
        self._placements.forget(run_id)
