"""When a node answered last."""

from __future__ import annotations

from pathlib import Path

from mllaunch.schedulers.ssh.seen import Seen
from tests.fakes.nodes import Clock


class Monotonic:
    s = 1.0

    def __call__(self) -> float:
        return self.s


def test_what_a_long_connection_answers_is_written_down_once_a_minute(tmp_path: Path) -> None:
    clock, now_s = Clock(), Monotonic()
    seen = Seen(str(tmp_path), clock, now_s)
    assert seen.last("node1") is None
    seen.note("node1")
    first = clock.now()
    clock.minute += 1
    now_s.s += 59.0
    seen.note("node1")
    assert seen.last("node1") == first
    now_s.s += 1.0
    seen.note("node1")
    assert seen.last("node1") == clock.now()
    assert Seen(str(tmp_path), clock).last("node1") == clock.now()


def test_where_nothing_can_be_written_nodes_are_asked_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "nodes").write_bytes(b"")
    seen = Seen(str(tmp_path), Clock())
    seen.note("node1")
    assert (tmp_path / "nodes").read_bytes() == b""
