"""How often a node that does not answer is asked again, and who waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mllaunch.errors import MllaunchError, Unreachable
from mllaunch.schedulers.ssh.door import Door


class Answering:
    is_broken = False


class Trying:
    """A node, a clock, and what is done beside."""

    def __init__(self) -> None:
        self.calls: Any = None
        self.now_s = 100.0
        self.knocked: list[float] = []
        self.beside: list[Callable[[], None]] = []
        self.door = Door(self._enter, lambda: self.now_s, self.beside.append)

    def _enter(self) -> Any:
        self.knocked.append(self.now_s)
        if self.calls is None:
            raise Unreachable("unreachable", "silent")
        return self.calls

    def knock_until(self, end_s: float) -> None:
        while self.now_s < end_s:
            with pytest.raises(MllaunchError, match="silent"):
                self.door.open()
            while self.beside:
                self.beside.pop()()
            self.now_s += 1


def test_a_node_that_answers_is_asked_once() -> None:
    one = Trying()
    one.calls = Answering()
    assert one.door.open() is one.door.open() is one.calls
    assert one.knocked == [100.0]


def test_a_silent_node_is_asked_again_ever_more_seldom_up_to_once_a_minute() -> None:
    one = Trying()
    one.knock_until(320)
    assert [int(at - 100) for at in one.knocked] == [0, 5, 15, 35, 75, 135, 195]


def test_nobody_waits_for_a_node_that_was_silent_and_it_is_asked_by_one_at_a_time() -> None:
    one = Trying()
    one.knock_until(101)
    one.now_s = 200.0
    for _ in range(3):
        with pytest.raises(Unreachable):
            one.door.open()
    assert (len(one.knocked), len(one.beside)) == (1, 1)


def test_a_node_that_answers_again_is_as_any_other() -> None:
    one = Trying()
    one.knock_until(150)
    one.calls = Answering()
    one.now_s = 300.0
    with pytest.raises(Unreachable):
        one.door.open()
    one.beside.pop()()
    assert one.door.open() is one.calls
    one.calls.is_broken = True
    one.calls = None
    one.knocked.clear()
    one.knock_until(307)
    assert one.knocked == [300.0, 305.0]  # with the shortest pause


def test_what_everybody_is_told_does_not_grow_with_how_often_it_was_told() -> None:
    one = Trying()
    depths = []
    for _ in range(3):
        with pytest.raises(MllaunchError) as caught:
            one.door.open()
        depths.append(len(caught.traceback))
    assert depths[1] == depths[2]
