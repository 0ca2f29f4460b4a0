"""Runs on machines reached by SSH.

Which nodes an attempt is on is recorded before anything starts (placements.py): so every later command finds them.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from mllaunch.domain.placement import Offer, Wish, check_count, choose
from mllaunch.errors import MllaunchError, NotFound, Unreachable, UsageError
from mllaunch.ports import AttemptRef, NodeFiles, Way
from mllaunch.schedulers.ssh import checkpoints, code, openssh
from mllaunch.schedulers.ssh.calls import Calls
from mllaunch.schedulers.ssh.checkpoints import Original
from mllaunch.schedulers.ssh.chosen import Chosen, Told
from mllaunch.schedulers.ssh.fleet import Fleet, raise_first
from mllaunch.schedulers.ssh.keeping import Disks
from mllaunch.schedulers.ssh.placements import Placements
from mllaunch.schedulers.ssh.remote import RemoteFiles, RemoteOutputs, SilentFiles, SilentOutputs, of, silent
from mllaunch.schedulers.ssh.transport import Address
from mllaunch.usecases.runtime import DOCKER, PROCESS
from mllaunch_agent import system

if TYPE_CHECKING:
    from mllaunch.domain.job import Resources
    from mllaunch_agent.protocol import Meeting, StopRequest, TaskSpec

__all__ = ["SshScheduler"]

_LEASE_S = 1800.0
_KEEP_S = 7 * 86400.0
_ANY = Wish()


class SshScheduler:
    """home: the folder that holds everything mllaunch keeps for this user. wish: the nodes that the user wants.

    own_python: as for Chosen. lease_s: how long a node of an attempt may be silent before it counts as lost. keep_s:
    how long code that nothing uses any more stays on the nodes.
    """

    name = "ssh"

    def __init__(
        self,
        home: str,
        fleet: Fleet,
        wish: Wish = _ANY,
        own_python: bool = True,
        lease_s: float = _LEASE_S,
        keep_s: float = _KEEP_S,
    ) -> None:
        self._placements = Placements(home)
        self.disks = Disks(self._placements, fleet)
        self._fleet = fleet
        self._wish = wish
        self._own_python = own_python
        self._terms = {"lease_s": lease_s, "keep_s": keep_s}  # recorded: who goes on needs no configuration
        self.chosen = Chosen(fleet, (), {})
        self._asked: set[str] = set()  # nodes that were asked to start
        self._is_withdrawn = False
        self._asking = threading.Lock()
        self._telling = threading.Lock()

    # --- where ---------------------------------------------------------------------------------------------------

    def check(self, resources: Resources, runtime: str = PROCESS) -> None:
        """Choose the nodes. UsageError if none could ever serve, MllaunchError if one that is needed is silent."""
        names = self._wish.names or self._fleet.names
        if not names:
            raise UsageError(
                "nodes", "the ssh backend has no nodes", hint="nodes: [{name: gpu01}]   in mllaunch.yaml"
            )
        check_count(resources.nodes, self._wish, len(names))
        addresses = [self._fleet.address(name) for name in names]

        def ask(calls: Calls) -> dict[str, Any]:
            engine = None if runtime == PROCESS else calls.call("engine")
            return {**calls.call("offer"), "engine": engine}

        answers = self._fleet.each(addresses, ask)
        if len(answers) == 1:
            raise_first(answers)
        offers = [_offer(address, answers[address.name], runtime == DOCKER) for address in addresses]
        chosen = choose(resources, offers, named=self._wish.exactly, preferred=self._wish.preferred)
        engines = {name: cast("dict[str, Any]", answers[name])["engine"] for name in chosen}
        nodes = [self._fleet.address(name) for name in chosen]
        self.chosen = Chosen(self._fleet, nodes, engines, self._own_python)

    # --- checkpoints ---------------------------------------------------------------------------------------------

    def examine_checkpoint(
        self, attempt: AttemptRef, node: str, path: str, sha256: str, size_bytes: int | None
    ) -> Original | str:
        """Read a checkpoint where an attempt wrote it; or what is wrong with it, in words."""
        try:
            source = self._fleet.calls(self._address_of(attempt, node))
            return checkpoints.examine(source, *attempt, path, sha256, size_bytes)
        except MllaunchError as error:
            return error.message  # an older checkpoint, on another node, may do

    def bring_checkpoint(
        self, attempt: AttemptRef, node: str, original: Original, sha256: str, name: str, told: Told
    ) -> None:
        """Bring what a node of an attempt has to the chosen nodes, as ``Chosen.bring_checkpoint``."""
        self.chosen.bring_checkpoint(self._address_of(attempt, node), original, sha256, name, told)

    def _address_of(self, attempt: AttemptRef, node: str) -> Address:
        """Where a node of an attempt is. NotFound if it has none of that name."""
        for address in self._nodes(attempt):
            if address.name == node:
                return address
        raise NotFound("node", f"attempt {attempt.number} was not on {node}")

    # --- starting ------------------------------------------------------------------------------------------------

    @contextmanager
    def submitting(self, attempt: AttemptRef) -> Iterator[None]:
        """While a submission is being made, others can see that it still is."""
        folder = self._folder(attempt.run_id)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        path = os.path.join(folder, "submit.lock")
        lock = system.try_lock(path)
        try:
            yield
        finally:
            if lock is not None:
                os.close(lock)
            os.unlink(path)

    def start(self, spec: TaskSpec) -> None:
        attempt = AttemptRef(spec["run_id"], spec["attempt"])
        nodes = self.chosen.addresses
        self._placements.record(attempt, {"nodes": [a._asdict() for a in nodes], **self._terms})
        listed = code.listing(spec["tree"], spec["cache"]) if spec["tree"] else None
        trees: dict[Calls, str] = {}  # where they are, and who keeps them from being removed

        def bring(calls: Calls) -> str | None:
            if listed is not None and calls not in trees:
                trees[calls] = code.bring(calls, str(spec["tree"]), listed)
            return trees.get(calls)

        def begin(calls: Calls, meeting: Meeting | None) -> None:
            tree = bring(calls)
            own, venv = self.chosen.specification(calls, spec, tree)
            self._note_asked(calls.address.name)
            calls.call("start", spec={**own, "meeting": meeting}, venv=venv)

        # The code goes to all at once, so that those who start later need not be waited for.
        if len(nodes) > 1 and listed is not None:
            raise_first(self._fleet.each(nodes, bring))
        self._meet(attempt, nodes, begin)

    def _note_asked(self, node: str) -> None:
        """MllaunchError if it is not to start any more: after Ctrl-C threads may still be on their way."""
        with self._asking:
            if self._is_withdrawn:
                raise MllaunchError("withdrawn", f"{node} is not to start it any more")
            self._asked.add(node)

    def _meet(
        self, attempt: AttemptRef, nodes: Sequence[Address], begin: Callable[[Calls, Meeting | None], None]
    ) -> None:
        """Start the first node, then, with what its agent says of where it is to be found, the others."""
        first, *others = nodes
        calls = self._fleet.calls(first)
        if not others:
            begin(calls, None)
            return
        meeting: Meeting = {
            "token": os.urandom(32).hex(),
            "addresses": [],
            "port": 0,
            "lease_s": self.lease_s(attempt),
        }
        begin(calls, meeting)
        there = calls.call("meeting", **of(attempt))
        # With the token of the agent that is there: it may have been started by an earlier try.
        known = cast("Meeting", {**meeting, **there})
        raise_first(self._fleet.each(others, lambda calls: begin(calls, known)))

    def retry(self, failed: AttemptRef) -> None:
        nodes = self._nodes(failed)
        following = failed._replace(number=failed.number + 1)
        self._placements.record(following, self._placements.read(failed))
        self._meet(
            following, nodes, lambda calls, meeting: calls.call("retry", **of(failed), meeting=meeting)
        )

    def abandon(self, attempt: AttemptRef) -> bool:
        """Rule out that a submission which broke off can still start; False if somebody is at it or it has started."""
        if system.is_locked(os.path.join(self._folder(attempt.run_id), "submit.lock")):
            return False
        return self._rule_out(attempt, never_asked=())

    def withdraw(self, attempt: AttemptRef) -> bool:
        with self._asking:
            self._is_withdrawn = True
            never_asked = [name for name in self.chosen.nodes if name not in self._asked]
        return self._rule_out(attempt, never_asked)

    def _rule_out(self, attempt: AttemptRef, never_asked: Sequence[str]) -> bool:
        """never_asked: nodes of which is known that nobody has asked them to start it."""
        try:
            nodes = self._nodes(attempt)
        except NotFound:
            return True  # it never came to choosing
        perhaps = [address for address in nodes if address.name not in never_asked]
        answers = self._fleet.each(perhaps, lambda calls: bool(calls.call("abandon", **of(attempt))))
        if not never_asked and not any(answer is True for answer in answers.values()):
            return False
        # Where one node cannot start none does. Those that wait for it need not; one that is silent gives up by itself.
        waiting = [address for address in perhaps if answers[address.name] is False]
        request: StopRequest = {"by": "mllaunch", "at": system.now(), "now": True}
        self._fleet.each(waiting, lambda calls: calls.call("stop", **of(attempt), request=request))
        return True

    # --- afterwards ----------------------------------------------------------------------------------------------

    def stop(self, attempt: AttemptRef, request: StopRequest) -> None:
        """Nodes that do not answer get the request when they do: whoever collects brings it."""
        self._write_stop(attempt.run_id, {"request": request, "told": []})
        self._fleet.each(self._nodes(attempt), lambda calls: self._bring_stop(attempt, calls))

    def not_told(self, attempt: AttemptRef) -> list[str]:
        """The nodes that do not know yet that they are to stop."""
        wanted = self._read_stop(attempt.run_id)
        if wanted is None:
            return []
        try:
            nodes = self.nodes_of(attempt)
        except NotFound:
            return []  # its submission had not come that far
        return [name for name in nodes if [attempt.number, name] not in wanted["told"]]

    def outputs(
        self, attempt: AttemptRef, node: str | None = None
    ) -> dict[str, RemoteOutputs | SilentOutputs]:
        """By node, where what the tasks wrote can be looked at. node: this one alone. Unreachable, if there is only one
        and it does not answer."""
        try:
            nodes = [address for address in self._nodes(attempt) if node in (None, address.name)]
        except NotFound:
            return {}
        answers = self._fleet.each(nodes, lambda calls: RemoteOutputs(calls, attempt))
        if len(answers) == 1:
            raise_first(answers)
        return {
            name: SilentOutputs(silent(answer)) if isinstance(answer, MllaunchError) else answer
            for name, answer in answers.items()
        }

    def way_to(
        self, attempt: AttemptRef, node: str, rank: int, words: Sequence[str], *, terminal: bool
    ) -> Way:
        """How to run a command where a task runs, or a shell without words. Unreachable, if it cannot be asked."""
        address = next(address for address in self._nodes(attempt) if address.name == node)
        found = self._fleet.calls(address).call("enter", **of(attempt), rank=rank)
        return Way(found["state"], openssh.command(address, [*found["argv"], *words], terminal=terminal))

    def _bring_stop(self, attempt: AttemptRef, calls: Calls) -> None:
        wanted = self._read_stop(attempt.run_id)
        told = [attempt.number, calls.address.name]
        if wanted is None or told in wanted["told"]:
            return
        if not calls.call("stop", **of(attempt), request=wanted["request"]):
            return  # it has not begun there yet
        with self._telling:
            newest = self._read_stop(attempt.run_id)
            if newest is not None and newest["request"] == wanted["request"]:
                self._write_stop(attempt.run_id, {**newest, "told": [*newest["told"], told]})

    # A stop is the run's, for it holds for an attempt that begins after it, too.

    def _read_stop(self, run_id: str) -> dict[str, Any] | None:
        data = system.read_file(self._stop_path(run_id))
        return None if data is None else dict(json.loads(data))

    def _write_stop(self, run_id: str, wanted: dict[str, Any]) -> None:
        system.write_atomic(self._stop_path(run_id), json.dumps(wanted).encode(), durable=True)

    def _stop_path(self, run_id: str) -> str:
        return os.path.join(self._folder(run_id), "stop.json")

    def revive(self, attempt: AttemptRef, node: str) -> None:
        for address in self._nodes(attempt):
            if address.name == node:
                self._fleet.calls(address).call("revive", **of(attempt))

    def lease_s(self, attempt: AttemptRef) -> float:
        return float(self._placements.read(attempt).get("lease_s", _LEASE_S))

    def files(self, attempt: AttemptRef, node: str | None = None) -> dict[str, NodeFiles | None]:
        try:
            nodes = [address for address in self._nodes(attempt) if node in (None, address.name)]
        except NotFound:
            return {}

        def look(calls: Calls) -> NodeFiles | None:
            try:
                self._bring_stop(attempt, calls)
            except Unreachable:
                raise
            except MllaunchError:
                pass  # tried again at the next look
            found = calls.call("look", **of(attempt))
            return RemoteFiles(calls, attempt, found) if found is not None else None

        answers = self._fleet.each(nodes, look)
        found: dict[str, NodeFiles | None] = {}
        for name, answer in answers.items():
            found[name] = SilentFiles(silent(answer)) if isinstance(answer, MllaunchError) else answer
        return found

    # --- placements ----------------------------------------------------------------------------------------------

    def _folder(self, run_id: str) -> str:
        return self._placements.folder(run_id)

    def _nodes(self, attempt: AttemptRef) -> list[Address]:
        """NotFound if it was placed nowhere."""
        return self._placements.nodes(attempt)

    def nodes_of(self, attempt: AttemptRef) -> list[str]:
        """The names of an attempt's nodes, in the order of ranks. NotFound if it was placed nowhere."""
        return [address.name for address in self._nodes(attempt)]


def _offer(address: Address, answer: Any, in_container: bool) -> Offer:
    name = address.name
    if isinstance(answer, MllaunchError):
        return Offer(name, problem=answer.message, host=address.host)
    if in_container and answer["engine"]["version"] is None:
        return Offer(name, lack=f"no container engine: {answer['engine']['problem']}")
    return Offer(
        name,
        gpus=len(answer["gpus"]),
        free=len(answer["free"]),
        waiting=len(answer["waiting"]),
        cpus=answer["cpus"],
        memory_bytes=answer["memory_bytes"],
        load=answer["load"],
    )
