"""What proves that a message is the other agent's next one."""

from __future__ import annotations

import pytest

from mllaunch_agent.peers.session import FIRST, OTHER, Direction, session_key

KEY = session_key(b"token", "a", "b", 1)


def signed(*contents: bytes, key: bytes = KEY, who: str = OTHER) -> list[bytes]:
    said = Direction(key, who)
    return [said.sign(content) for content in contents]


def verified(*lines: bytes) -> list[bytes]:
    heard = Direction(KEY, OTHER)
    return [heard.verify(line) for line in lines]


def test_what_was_said_is_what_is_heard() -> None:
    assert verified(*signed(b"{}", b"two words", b"")) == [b"{}", b"two words", b""]


@pytest.mark.parametrize(
    "lines",
    [
        signed(b"x", b"y")[::-1],
        signed(b"x", b"y")[1:],
        signed(b"x") * 2,
        [signed(b"x")[0].replace(b" x", b" y")],
        [signed(b"x")[0] + b"x"],
        signed(b"x", who=FIRST),
        signed(b"x", key=session_key(b"another", "a", "b", 1)),
        [b""],
        [b"x"],
        [b"\xff x"],
        [b" " * 70],
    ],
    ids=str,
)
def test_anything_but_the_next_message_is_refused(lines: list[bytes]) -> None:
    with pytest.raises(ValueError, match="not the next message"):
        verified(*lines)


@pytest.mark.parametrize(
    "other", [("a", "b", 2), ("a", "c", 1), ("c", "b", 1), ("b", "a", 1), ('a", "b', "", 1)], ids=str
)
def test_each_connection_has_a_key_of_its_own(other: tuple[str, str, int]) -> None:
    assert session_key(b"token", *other) != KEY
