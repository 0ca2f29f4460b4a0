"""The nodes that a run goes to, and what they are given before it starts: image, checkpoint, environment."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, cast

from mllaunch.errors import NotFound
from mllaunch.schedulers.ssh import checkpoints, environments
from mllaunch.schedulers.ssh.calls import Calls
from mllaunch.schedulers.ssh.checkpoints import Copy, Original
from mllaunch.schedulers.ssh.fleet import Fleet, raise_first
from mllaunch.schedulers.ssh.transport import Address

if TYPE_CHECKING:
    from mllaunch_agent.protocol import TaskSpec
    from mllaunch_containers.spec import Dependencies

__all__ = ["Chosen", "Told"]

Told = Callable[[str, int, int], None]  # takes a node, and how many bytes it has of how many


class Chosen:
    """addresses: in the order of ranks. engines: by node what the call "engine" answered, where it was asked.

    own_python: whether the interpreter that the configuration names for a node goes before the run's.
    """

    def __init__(
        self,
        fleet: Fleet,
        addresses: Sequence[Address],
        engines: Mapping[str, dict[str, Any]],
        own_python: bool = True,
    ) -> None:
        self._fleet = fleet
        self.addresses = list(addresses)
        self.engines = dict(engines)
        self._own = {address.name: address.python if own_python else None for address in self.addresses}
        self._lacking: set[str] = set()  # nodes that fetch the image themselves, if nobody brings it
        self._copies: dict[str, Copy] = {}  # of the checkpoint that the run starts from
        self._environments: dict[str, str] = {}  # by node
        self._interpreters: dict[str, str] = {}  # by node

    @property
    def nodes(self) -> list[str]:
        """Their names, in the order of ranks."""
        return [address.name for address in self.addresses]

    @property
    def needs_python(self) -> bool:
        """Whether one of them has no interpreter of its own for the run."""
        return None in self._own.values()

    @property
    def python(self) -> str | None:
        """The first interpreter that one of them has of its own for the run, if any has."""
        return next((python for python in self._own.values() if python is not None), None)

    def check_data(self, paths: Sequence[str]) -> None:
        """NotFound if one of them lacks any of the paths, which are absolute."""
        answers = self._fleet.each(self.addresses, lambda calls: calls.call("missing", paths=list(paths)))
        raise_first(answers)
        missing = cast("dict[str, list[str]]", answers)
        lacks = [f"{node} has no {path}" for node, gone in missing.items() for path in gone]
        if lacks:
            raise NotFound(
                "data",
                lacks[0],
                evidence=tuple(lacks[1:]),
                hint="data lie on a node under the same absolute path as here, or a symbolic link to them does",
            )

    def engine(self, node: str) -> AbstractContextManager[str]:
        """A node's container engine, as the path of a unix socket here."""
        return self._fleet.engine(self._fleet.address(node), self.engines[node]["socket"])

    def lacking(self, image: str) -> list[str]:
        """Those whose engine has not got an image."""
        answers = self._fleet.each(
            self.addresses,
            lambda calls: bool(
                calls.call("has_image", socket=self.engines[calls.address.name]["socket"], image=image)
            ),
        )
        raise_first(answers)
        self._lacking = {name for name, has in answers.items() if not has}
        return [name for name in answers if name in self._lacking]

    def shared(self, node: str, layers: Sequence[str]) -> int:
        """How many of an image's layers, from the lowest on, a node's engine has."""
        calls = self._fleet.calls(self._fleet.address(node))
        return int(calls.call_patiently("shared_layers", socket=self.engines[node]["socket"], layers=layers))

    def bring_checkpoint(
        self, origin: Address, original: Original, sha256: str, name: str, told: Told
    ) -> None:
        """See to it that each has what origin has. told: see Told."""
        whole = sum(size for _, size in original.files)

        def bring(calls: Calls) -> Copy:
            if calls.address[:4] == origin[:4]:  # name, host, user and port: the rest says how it is reached
                return Copy(original.place, original.keys)
            came = 0

            def progress(size: int) -> None:
                nonlocal came
                came += size
                told(calls.address.name, came, whole)

            return checkpoints.bring(self._fleet.calls(origin), original, sha256, name, calls, progress)

        answers = self._fleet.each(self.addresses, bring)
        raise_first(answers)
        self._copies = cast("dict[str, Copy]", answers)

    def install(self, wanted: Dependencies, say: Callable[[str, str], None]) -> list[tuple[str, bool]]:
        """Have each that has no interpreter of its own make an environment, all at once: (node, whether it is new).

        say: takes a node and a line of progress. Raises MllaunchError if a node cannot.
        """
        nodes = [address for address in self.addresses if self._own[address.name] is None]
        answers = self._fleet.each(
            nodes,
            lambda calls: environments.make(calls, wanted, lambda line: say(calls.address.name, line)),
        )
        raise_first(answers)
        made = cast("dict[str, environments.Made]", answers)
        self._environments = {node: found.path for node, found in made.items()}
        return [(node, found.is_new) for node, found in made.items()]

    def find_interpreters(self, wanted: str, origin: str | None) -> None:
        """Find the interpreter of the script on each. wanted: where a node has neither one of its own nor an
        environment; origin: what names that, such as ``--python``. NotFound if one is not there."""

        def find(calls: Calls) -> str:
            name = calls.address.name
            own, venv = self._own[name], self._environments.get(name)
            python = own or (wanted if venv is None else os.path.join(venv, "bin", "python"))
            found = calls.call("which", programs=[python])
            if found is not None:
                return str(found)
            hint = f"nodes: [{{name: {name}, python: /PATH/TO/python}}]   in mllaunch.yaml"
            if own is None and venv is None and origin is not None:
                hint = f"{origin} names it: name one that is there, or nodes that have it (--node)"
            raise NotFound("python", f"{name} has no {python}", hint=hint)

        answers = self._fleet.each(self.addresses, find)
        raise_first(answers)
        self._interpreters = cast("dict[str, str]", answers)

    def specification(
        self, calls: Calls, spec: TaskSpec, tree: str | None
    ) -> tuple[dict[str, Any], str | None]:
        """What a node is told in place of what all are told; and its environment. tree: where it has the code."""
        name = calls.address.name
        rank = self.addresses.index(calls.address)
        count = len(spec["tasks"])
        places = [
            {"rank": rank * count + place["local_rank"], "local_rank": place["local_rank"]}
            for place in spec["tasks"]
        ]
        own: dict[str, Any] = {**spec, "node": name, "node_rank": rank, "tasks": places, "lease_dir": None}
        own["tree"] = tree
        venv = self._environments.get(name)
        if spec["container"] is not None:
            credentials = spec["container"]["credentials"] if name in self._lacking else None
            own["container"] = {**spec["container"], "credentials": credentials}
            own["container"]["engine"] = self.engines[name]["socket"]
        elif spec["python"] is not None:
            own["python"] = self._interpreters[name]
            own["argv"] = [own["python"], *spec["argv"][1:]]
        if spec["checkpoint"] is not None:
            copy = self._copies[name]
            own["checkpoint"] = {**spec["checkpoint"], "source": copy.place, "verified": copy.keys}
        return own, venv
