"""A submission that broke off half-way: once one of its nodes cannot start, no other is kept waiting for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from mllaunch.errors import MllaunchError, Unreachable
from mllaunch.ports import AttemptRef
from mllaunch.schedulers.ssh.chosen import Chosen
from mllaunch.schedulers.ssh.scheduler import SshScheduler
from mllaunch.schedulers.ssh.transport import Address

ATTEMPT = AttemptRef("run", 1)
SILENT = Unreachable("unreachable", "b cannot be reached")


class Node:
    """What a node was asked. can_abandon: its answer to that."""

    def __init__(self, can_abandon: bool | MllaunchError) -> None:
        self._can_abandon = can_abandon
        self.asked: list[str] = []

    def call(self, name: str, **given: Any) -> Any:
        self.asked.append(name)
        if isinstance(self._can_abandon, MllaunchError):
            raise self._can_abandon
        return self._can_abandon if name == "abandon" else True


class Fleet:
    def __init__(self, **answers: bool | MllaunchError) -> None:
        self.nodes = {name: Node(answer) for name, answer in answers.items()}

    def each(self, addresses: Iterable[Address], act: Callable[[Any], Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for address in addresses:
            try:
                found[address.name] = act(self.nodes[address.name])
            except MllaunchError as error:
                found[address.name] = error
        return found


@pytest.mark.parametrize(
    ("answers", "is_ruled_out", "stopped"),
    [
        ({"a": True, "b": True}, True, []),
        ({"a": False, "b": False}, False, []),
        ({"a": False, "b": True}, True, ["a"]),
        ({"a": False, "b": True, "c": SILENT}, True, ["a"]),
        ({"a": False, "b": SILENT}, False, []),
        ({"a": SILENT}, False, []),
    ],
)
def test_no_node_waits_for_one_that_can_never_come(
    tmp_path: Path, answers: dict[str, bool | MllaunchError], is_ruled_out: bool, stopped: list[str]
) -> None:
    fleet = Fleet(**answers)
    folder = tmp_path / "placements" / "run"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(json.dumps({"nodes": [Address(name)._asdict() for name in answers]}))

    assert SshScheduler(str(tmp_path), fleet).abandon(ATTEMPT) is is_ruled_out  # type: ignore[arg-type]
    assert [name for name, node in fleet.nodes.items() if "stop" in node.asked] == stopped


def test_what_was_asked_of_no_node_has_started_nowhere_even_if_one_is_silent(tmp_path: Path) -> None:
    fleet = Fleet(a=SILENT)
    folder = tmp_path / "placements" / "run"
    folder.mkdir(parents=True)
    (folder / "1.json").write_text(json.dumps({"nodes": [Address("a")._asdict()]}))
    scheduler = SshScheduler(str(tmp_path), fleet)  # type: ignore[arg-type]
    scheduler.chosen = Chosen(fleet, [Address("a")], {})  # type: ignore[arg-type]
    assert scheduler.withdraw(ATTEMPT) is True
    assert fleet.nodes["a"].asked == []
    assert scheduler.abandon(ATTEMPT) is False  # somebody else does not know that


def test_once_it_is_withdrawn_no_thread_that_is_still_on_its_way_starts_it(tmp_path: Path) -> None:
    fleet = Fleet(a=False, b=False)
    placed = [Address("a"), Address("b")]
    scheduler = SshScheduler(str(tmp_path), fleet)  # type: ignore[arg-type]
    scheduler.chosen = Chosen(fleet, placed, {})  # type: ignore[arg-type]
    (tmp_path / "placements" / "run").mkdir(parents=True)
    scheduler._placements.record(ATTEMPT, {"nodes": [address._asdict() for address in placed]})
    scheduler._note_asked("a")
    assert scheduler.withdraw(ATTEMPT) is True
    assert fleet.nodes["a"].asked == ["abandon", "stop"]
    with pytest.raises(MllaunchError, match="not to start"):
        scheduler._note_asked("b")
