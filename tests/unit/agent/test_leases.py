from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch_agent import leases
from mllaunch_agent.leases import Lease, LeaseError, Queue, Ticket, Waiting

GPUS = ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]


class Node:
    """Runs that queue on one node, all in this process: a lock belongs to its description, not to a process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.tickets: list[Ticket] = []
        self.leased: list[Lease] = []

    def enter(self, run: str, wanted: int) -> Ticket:
        info = {"run": run, "run_id": run, "attempt": 1, "user": "ada", "pid": 7}
        self.tickets.append(Queue(str(self.directory)).enter(info, wanted))
        return self.tickets[-1]

    def take(self, ticket: Ticket, foreign: dict[str, list[dict[str, Any]]] | None = None) -> Lease | Waiting:
        answer = ticket.try_take(GPUS, lambda uuid: (foreign or {}).get(uuid, []))
        if isinstance(answer, Lease):
            self.leased.append(answer)
        return answer

    def lease(self, run: str, wanted: int) -> Lease:
        answer = self.take(self.enter(run, wanted))
        assert isinstance(answer, Lease)
        return answer


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "leases")
    yield node
    for ticket in node.tickets:
        ticket.leave()
    for lease in node.leased:
        lease.release()
    leases._entered.clear()


def test_free_gpus_are_leased_in_the_machines_order_and_their_holder_is_readable(node: Node) -> None:
    lease = node.lease("brave-otter-1", 2)
    assert lease.uuids == ("GPU-a", "GPU-b")
    assert len(lease.fds) == 2
    found = leases.holders(str(node.directory))
    assert [(h["gpu"], h["run"], h["user"], h["pid"], h["attempt"]) for h in found] == [
        ("GPU-a", "brave-otter-1", "ada", 7, 1),
        ("GPU-b", "brave-otter-1", "ada", 7, 1),
    ]
    assert found[0]["since"].endswith("Z")


def test_a_released_lease_frees_its_gpus_and_its_text_no_longer_counts(node: Node) -> None:
    node.lease("first", 4).release()
    assert "first" in (node.directory / "gpu-GPU-a.lock").read_text()
    assert leases.holders(str(node.directory)) == []
    assert node.lease("second", 4).uuids == tuple(GPUS)


def test_a_waiter_is_told_what_it_waits_for(node: Node) -> None:
    node.lease("holder", 3)
    first = node.enter("first", 2)
    second = node.enter("second", 1)
    assert node.take(first) == Waiting(
        wanted=2,
        free=1,
        holders=tuple({"gpu": u, "run": "holder", "user": "ada", "pid": 7} for u in GPUS[:3]),
        ahead=(),
        foreign=(),
    )
    waiting = node.take(second)
    assert isinstance(waiting, Waiting)
    assert (waiting.free, waiting.ahead) == (1, ({"run": "first", "user": "ada"},))


def test_a_run_that_wants_many_is_not_overtaken_by_one_that_wants_few(node: Node) -> None:
    holder = node.lease("holder", 1)
    many, few = node.enter("many", 4), node.enter("few", 1)
    assert isinstance(node.take(few), Waiting)
    holder.release()
    assert isinstance(node.take(few), Waiting)
    lease = node.take(many)
    assert isinstance(lease, Lease)
    assert isinstance(node.take(few), Waiting)
    lease.release()
    assert isinstance(node.take(few), Lease)


def test_a_waiter_who_leaves_lets_the_next_one_through(node: Node) -> None:
    first, second = node.enter("first", 4), node.enter("second", 1)
    first.leave()
    first.leave()
    assert isinstance(node.take(second), Lease)
    assert not list(node.directory.glob("ticket-*"))


def test_a_dead_waiters_ticket_is_swept(node: Node) -> None:
    first, second = node.enter("first", 4), node.enter("second", 1)
    os.close(first.fd)
    first.fd = -1
    assert isinstance(node.take(second), Lease)
    assert not list(node.directory.glob("ticket-*"))


def test_gpus_that_foreign_processes_use_are_left_and_named(node: Node) -> None:
    stranger = {"pid": 99, "user": "eve", "command": "python mine.py"}
    ticket = node.enter("run", 4)
    waiting = node.take(ticket, {"GPU-b": [stranger]})
    assert isinstance(waiting, Waiting)
    assert (waiting.free, waiting.foreign) == (3, ({**stranger, "gpu": "GPU-b"},))
    assert leases.holders(str(node.directory)) == []
    lease = node.take(node.enter("other", 3))
    assert isinstance(lease, Waiting), "the first is still first"
    lease = node.take(ticket, {})
    assert isinstance(lease, Lease)


def test_all_or_none_also_when_the_look_at_the_gpus_fails(node: Node) -> None:
    ticket = node.enter("run", 2)

    def broken(uuid: str) -> list[dict[str, Any]]:
        raise RuntimeError("driver")

    with pytest.raises(RuntimeError):
        ticket.try_take(GPUS, broken)
    assert leases.holders(str(node.directory)) == []
    assert isinstance(node.take(ticket), Lease)


def test_a_wish_that_no_longer_fits_the_machine_blocks_nobody(node: Node) -> None:
    node.enter("wants-a-lost-gpu", 5)
    assert isinstance(node.take(node.enter("small", 1)), Lease)


def test_more_than_the_machine_has_is_refused_at_once() -> None:
    leases.check(4, GPUS)
    with pytest.raises(LeaseError, match="5 GPUs are wanted, but this machine has 4"):
        leases.check(5, GPUS)


def test_files_are_open_to_all_users_and_stay_whatever_the_umask(node: Node) -> None:
    before = os.umask(0o077)
    try:
        node.lease("run", 1)
    finally:
        os.umask(before)
    assert stat.S_IMODE(node.directory.stat().st_mode) == 0o1777
    assert stat.S_IMODE((node.directory / "gpu-GPU-a.lock").stat().st_mode) == 0o1666
    assert sorted(p.name for p in node.directory.iterdir()) == [f"gpu-{u}.lock" for u in GPUS]


@pytest.mark.parametrize("uuid", ["../x", "a/b", "", ".", "-x", "x" * 101, "a\nb", "a\0b", "é"])
def test_a_hostile_uuid_is_refused(node: Node, uuid: str) -> None:
    with pytest.raises(LeaseError, match="not a GPU's UUID"):
        node.enter("run", 1).try_take([uuid], lambda _: [])


def test_links_pipes_and_files_of_others_in_the_place_of_a_lock_are_refused(node: Node) -> None:
    ticket = node.enter("run", 4)
    victim = node.directory.parent / "victim"
    victim.write_text("precious")
    place = node.directory / "gpu-GPU-a.lock"
    for attack in (place.symlink_to, place.hardlink_to):
        attack(victim)
        with pytest.raises(LeaseError, match=r"gpu-GPU-a\.lock"):
            node.take(ticket)
        place.unlink()
    os.mkfifo(place, 0o666)
    with pytest.raises(LeaseError, match="not one of ours"):
        node.take(ticket)
    place.unlink()
    assert victim.read_text() == "precious"
    assert isinstance(node.take(ticket), Lease)


def test_strange_files_in_the_folder_disturb_nobody(node: Node) -> None:
    ticket = node.enter("run", 1)
    (node.directory / "ticket-x").write_text("")
    (node.directory / ("ticket-" + "9" * 40)).write_text("")
    (node.directory / "ticket-0").symlink_to("/nowhere")
    (node.directory / "gpu-x.lock").write_text("[[[[")
    os.mkfifo(node.directory / "gpu-y.lock", 0o666)
    assert leases.holders(str(node.directory)) == []
    assert isinstance(node.take(ticket), Lease)


def test_a_holder_without_readable_text_is_still_a_holder(node: Node) -> None:
    node.lease("holder", 4)
    for text in ("{", json.dumps([1]), "", "[" * 4000):
        (node.directory / "gpu-GPU-a.lock").write_text(text)
        waiting = node.take(node.enter("next", 1))
        assert isinstance(waiting, Waiting)
        assert waiting.holders[0] == {"gpu": "GPU-a", "run": None, "user": None, "pid": None}


def test_a_lock_file_removed_under_its_holder_is_made_anew(node: Node) -> None:
    fd = Queue(str(node.directory))._folder.lock("gpu-GPU-a.lock")
    assert fd is not None
    (node.directory / "gpu-GPU-a.lock").unlink()
    again = Queue(str(node.directory))._folder.lock("gpu-GPU-a.lock")
    assert again is not None
    assert os.fstat(fd).st_ino != os.fstat(again).st_ino
    os.close(fd)
    os.close(again)


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(LeaseError, match="can't use the folder"):
        Queue(str(tmp_path / "link"))


def test_a_folder_in_which_no_ticket_can_be_made_is_named_with_its_remedy(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(str(node.directory))
    queue.try_out()
    assert list(node.directory.iterdir()) == []

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied", "unborn-1-0")

    monkeypatch.setattr(leases.os, "open", refuse)
    where = f"can't make a file in the folder of GPU leases '{node.directory}'"
    with pytest.raises(LeaseError) as tried:
        queue.try_out()
    with pytest.raises(LeaseError) as entered:
        queue.enter({"run": "a", "run_id": "a", "attempt": 1}, 1)
    assert str(tried.value) == str(entered.value) == f"{where}: Permission denied; its mode must be 1777"


def test_the_mode_of_a_folder_that_was_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o700)
    Queue(str(tmp_path / "mine"))
    assert stat.S_IMODE((tmp_path / "mine").stat().st_mode) == 0o700


def test_nobody_holds_anything_where_there_is_no_folder(tmp_path: Path) -> None:
    assert leases.holders(str(tmp_path / "none")) == []
    assert not (tmp_path / "none").exists()


@given(
    st.lists(st.sampled_from("abcdefgh"), unique=True),
    st.sets(st.sampled_from("abcdefgh")),
    st.sets(st.sampled_from("abcdefgh")),
    st.integers(1, 8),
)
def test_the_choice_is_all_or_none_of_what_is_free(
    available: list[str], locked: set[str], foreign: set[str], wanted: int
) -> None:
    chosen = leases.choose(available, locked, foreign, wanted)
    free = [u for u in available if u not in locked | foreign]
    assert chosen == (free[:wanted] if len(free) >= wanted else None)


@pytest.mark.parametrize(
    ("mode", "folder"),
    [
        (0o41777, "/run/lock/mllaunch"),
        (0o40755, "/tmp/mllaunch-leases"),
        (0o40777, "/tmp/mllaunch-leases"),
        (None, "/tmp/mllaunch-leases"),
    ],
)
def test_the_folder_depends_on_the_node_and_not_on_who_asks(
    monkeypatch: pytest.MonkeyPatch, mode: int | None, folder: str
) -> None:
    def look(path: str) -> os.stat_result:
        assert path == "/run/lock"
        if mode is None:
            raise FileNotFoundError(path)
        return os.stat_result((mode, *[0] * 9))

    monkeypatch.setattr(os, "stat", look)
    found = leases.default_dir()
    monkeypatch.undo()
    assert found == folder
