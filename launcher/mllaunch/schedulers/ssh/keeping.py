"""What runs and their code take of the nodes' disks, and how it is freed."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from mllaunch.errors import MllaunchError
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
    """What one node keeps of attempts. runs: ids of those that are known to have been there. held: by attempt, bytes of
    (our copies of its streams, what its tasks wrote).
    """

    def __init__(
        self,
        calls: Calls,
        runs: Collection[str],
        held: Mapping[AttemptRef, tuple[int, int]],
        unused: UnusedCode,
    ) -> None:
        self.runs = runs
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


class _Machine(NamedTuple):
    """One machine, under the address by which it was reached last, and the attempts that were placed there."""

    address: Address
    attempts: list[AttemptRef]

    @property
    def name(self) -> str:
        return self.address.name


class Disks:
    """Those of all nodes that runs of this home were ever placed on."""

    def __init__(self, placements: Placements, fleet: Fleet) -> None:
        self._placements = placements
        self._fleet = fleet

    def runs(self) -> list[str]:
        """Ids of the runs of which something may lie on nodes."""
        return self._placements.runs()

    def look(
        self, run_ids: Iterable[str], unused_for_s: float, also: Iterable[Address] = ()
    ) -> tuple[dict[str, NodeKeeper], dict[str, MllaunchError]]:
        """By name, what each node has of the runs, and those that could not be asked. All are asked at once.

        also: nodes to be asked even if no run was there.
        """
        keepers: dict[str, NodeKeeper] = {}
        silent: dict[str, MllaunchError] = {}
        for number, machines in enumerate(_namesakes_apart(self._machines(run_ids, also))):
            for node, answer in self._look_at(machines, unused_for_s).items():
                name = node + " (before)" * number
                if isinstance(answer, NodeKeeper):
                    keepers[name] = answer
                else:
                    silent[name] = answer
        return keepers, silent

    def _look_at(
        self, machines: Sequence[_Machine], unused_for_s: float
    ) -> dict[str, NodeKeeper | MllaunchError]:
        attempts = {machine.address: machine.attempts for machine in machines}

        def ask(calls: Calls) -> NodeKeeper:
            wanted = attempts[calls.address]
            answers = calls.call_patiently("held", attempts=[list(attempt) for attempt in wanted])
            held = {
                attempt: (answer[0], answer[1])
                for attempt, answer in zip(wanted, answers, strict=True)
                if answer is not None
            }
            unused = UnusedCode(**calls.call_patiently("unused", for_s=unused_for_s))
            return NodeKeeper(calls, {attempt.run_id for attempt in wanted}, held, unused)

        return self._fleet.each(attempts, ask)

    def _machines(self, run_ids: Iterable[str], also: Iterable[Address]) -> list[_Machine]:
        """Those of the newest runs last, and then the others."""
        found: dict[tuple[object, ...], _Machine] = {}
        for run_id in sorted(run_ids):
            for attempt in self._placements.attempts(run_id):
                for address in self._nodes_of(attempt):
                    _add(found, address, attempt)
        for address in also:
            _add(found, address)
        return list(found.values())

    def to_free(self) -> dict[str, list[str]]:
        """The nodes that have not freed their copies of streams yet, by run."""
        waiting = {}
        for run_id in self._placements.runs():
            nodes = [address.name for address in self._nodes_of(AttemptRef(run_id, 1))]
            freed = self._placements.freed(run_id) if nodes else []
            left = [node for node in nodes if node not in freed]
            if left:
                waiting[run_id] = left
        return waiting

    def _nodes_of(self, attempt: AttemptRef) -> list[Address]:
        try:
            return self._placements.nodes(attempt)
        except MllaunchError:  # it came not so far; or the record is damaged, or of a newer version
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


def _add(machines: dict[tuple[object, ...], _Machine], address: Address, *attempts: AttemptRef) -> None:
    # Another interpreter, or other keys to get in with, make no other machine.
    key = (address.name, address.host, address.user, address.port)
    before = machines.pop(key, None)
    machines[key] = _Machine(address, [*(before.attempts if before else ()), *attempts])


def _namesakes_apart(machines: Sequence[_Machine]) -> list[list[_Machine]]:
    """The last machine of each name; then those before them that had the same name, and so on."""
    groups: list[list[_Machine]] = []
    left = list(machines)
    while left:
        newest = {machine.name: machine for machine in left}  # the last of each name
        groups.append(list(newest.values()))
        left = [machine for machine in left if machine is not newest[machine.name]]
    return groups
