"""A connection between two agents, as messages."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from mllaunch_agent.peers.wire import Wire


@pytest.fixture
def wires() -> Iterator[tuple[Wire, Wire]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = Wire(socket.create_connection(listener.getsockname()), 0.0)
        other = Wire(listener.accept()[0], 0.0)
    yield one, other
    one.close()
    other.close()


def test_what_is_said_is_on_its_way_at_once(wires: tuple[Wire, Wire]) -> None:
    one, other = wires
    one.say({"ready": True})
    other.tick(0.0)
    assert list(other.heard()) == [{"ready": True}]


def test_what_fails_while_it_is_said_shows_in_the_next_tick(wires: tuple[Wire, Wire]) -> None:
    one, other = wires
    other.close()
    for _ in range(3):
        one.say({"ready": True})
    with pytest.raises(OSError):
        one.tick(0.0)
