"""Where attempts are, as every later command finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mllaunch.errors import MllaunchError, NotFound, Unreachable
from mllaunch.ports import AttemptRef
from mllaunch.schedulers.ssh.keeping import Disks
from mllaunch.schedulers.ssh.placements import Placements
from mllaunch.schedulers.ssh.scheduler import SshScheduler
from mllaunch.schedulers.ssh.transport import Address

ONE, TWO = Address("one", "10.0.0.1"), Address("two")
FIRST, SECOND = AttemptRef("r", 1), AttemptRef("r", 2)


class Calls:
    """A node that does what it is told."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def call(self, name: str, **given: Any) -> Any:
        self.asked.append((name, given))
        unused = {"trees": 1, "contents": 2, "agents": 0, "size_bytes": 4096}
        held = [[10, 100], None]
        return {"held": held[: len(given.get("attempts", ()))], "unused": unused}.get(name)

    call_patiently = call


class Fleet:
    """silent: names of nodes that do not answer."""

    def __init__(self) -> None:
        self.silent: set[str] = set()
        self.by_address = {address: Calls(address) for address in (ONE, TWO)}

    def calls(self, address: Address) -> Calls:
        if address.name in self.silent:
            raise Unreachable("unreachable", f"{address.name} cannot be reached")
        return self.by_address.setdefault(address, Calls(address))

    def each(self, addresses: Any, act: Any) -> dict[str, Any]:
        found = {}
        for address in addresses:
            try:
                found[address.name] = act(self.calls(address))
            except MllaunchError as error:
                found[address.name] = error
        return found


@pytest.fixture
def placements(tmp_path: Path) -> Placements:
    made = Placements(str(tmp_path))
    Path(made.folder("r")).mkdir(parents=True)
    nodes = [address._asdict() for address in (ONE, TWO)]
    made.record(FIRST, {"nodes": nodes, "lease_s": 60.0, "keep_s": 5.0})
    return made


def test_what_was_recorded_is_found_until_it_is_forgotten(placements: Placements) -> None:
    assert (placements.runs(), placements.nodes(FIRST)) == (["r"], [ONE, TWO])
    with pytest.raises(NotFound):
        placements.read(SECOND)
    placements.record(SECOND, placements.read(FIRST))
    placements.note_freed("r", "one")
    assert placements.attempts("r") == [FIRST, SECOND]
    placements.forget("r")
    assert placements.runs() == []


def test_a_further_attempt_is_on_the_terms_of_the_first(placements: Placements, tmp_path: Path) -> None:
    fleet: Any = Fleet()
    scheduler = SshScheduler(str(tmp_path), fleet)  # as made without any configuration
    with pytest.raises(TypeError):  # the node here does not say where to meet
        scheduler.retry(FIRST)
    name, given = fleet.by_address[ONE].asked[0]
    assert (name, given["meeting"]["lease_s"]) == ("retry", 60.0)
    assert scheduler.lease_s(SECOND) == 60.0


def test_of_a_run_that_was_placed_nowhere_no_node_has_to_be_told_of_a_stop(
    placements: Placements, tmp_path: Path
) -> None:
    fleet: Any = Fleet()
    scheduler = SshScheduler(str(tmp_path), fleet)
    Path(placements.folder("s")).mkdir()
    with pytest.raises(NotFound):
        scheduler.stop(AttemptRef("s", 1), {"by": "ann", "at": "2026-01-01T00:00:00.000Z", "now": False})
    assert scheduler.not_told(AttemptRef("s", 1)) == []


def test_each_node_frees_once_and_one_that_is_away_is_left_for_the_next_time(placements: Placements) -> None:
    fleet: Any = Fleet()
    disks = Disks(placements, fleet)
    assert disks.to_free() == {"r": ["one", "two"]}
    disks.free("r", "one")
    fleet.silent = {"two"}
    with pytest.raises(Unreachable):
        disks.free("r", "two")
    assert disks.to_free() == {"r": ["two"]}
    assert fleet.by_address[ONE].asked == [
        ("release_streams", {"run_id": "r", "number": 1}),
        ("sweep", {"for_s": 5.0, "seldom": True}),
    ]


def test_what_lies_on_nodes_is_told_and_who_could_not_be_asked(placements: Placements) -> None:
    fleet: Any = Fleet()
    fleet.silent = {"two"}
    keepers, silent = Disks(placements, fleet).look(["r"], 5.0)
    assert list(keepers) == ["one"] and list(silent) == ["two"]
    assert keepers["one"].held_bytes(FIRST) == (10, 100)
    assert keepers["one"].held_bytes(SECOND) is None
    assert keepers["one"].unused.size_bytes == 4096


def _placed(placements: Placements, run_id: str, address: Address) -> AttemptRef:
    attempt = AttemptRef(run_id, 1)
    Path(placements.folder(run_id)).mkdir(parents=True)
    placements.record(attempt, {"nodes": [address._asdict()], "lease_s": 60.0})
    return attempt


def test_a_node_that_has_another_interpreter_now_is_one_machine_with_all_its_runs(
    placements: Placements,
) -> None:
    changed = ONE._replace(python="/opt/python")
    later = _placed(placements, "s", changed)
    fleet: Any = Fleet()
    keepers, _ = Disks(placements, fleet).look(["s", "r"], 5.0)
    assert list(keepers) == ["two", "one"]
    assert keepers["one"].runs == {"r", "s"}
    asked = fleet.by_address[changed].asked[0]
    assert asked == ("held", {"attempts": [list(FIRST), list(later)]})
    assert fleet.by_address[ONE].asked == []


def test_another_machine_that_had_the_same_name_is_told_apart(placements: Placements) -> None:
    _placed(placements, "s", ONE._replace(host="10.0.0.9"))
    fleet: Any = Fleet()
    keepers, _ = Disks(placements, fleet).look(["r", "s"], 5.0)
    assert {name: keeper.runs for name, keeper in keepers.items()} == {
        "two": {"r"},
        "one": {"s"},
        "one (before)": {"r"},
    }


def test_nodes_are_asked_on_which_no_run_was(placements: Placements) -> None:
    three = Address("three")
    fleet: Any = Fleet()
    keepers, _ = Disks(placements, fleet).look(["r"], 5.0, [TWO, three])
    assert {name: keeper.runs for name, keeper in keepers.items()} == {
        "one": {"r"},
        "two": {"r"},
        "three": set(),
    }


def test_a_record_that_cannot_be_read_keeps_no_other_waiting(placements: Placements) -> None:
    _placed(placements, "s", TWO)
    Path(placements.folder("r"), "1.json").write_text("{")
    fleet: Any = Fleet()
    disks = Disks(placements, fleet)
    assert disks.to_free() == {"s": ["two"]}
    assert list(disks.look(["r", "s"], 5.0)[0]) == ["two"]
