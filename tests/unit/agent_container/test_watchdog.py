"""A supervisor that dies is replaced, and not again and again."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from mllaunch_agent import watchdog
from mllaunch_agent.container_shim import _reap
from mllaunch_agent.watchdog import Watchdog


class Scene:
    """A supervisor's FIFO, and what would wake its watchdog up."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 1000.0
        self.reader, self.writer = watchdog.open_alive(str(folder))
        self.wakeup, self.wake = os.pipe()
        self.revived, self._revive = os.pipe()
        self.dog = Watchdog(self.reader, self._be_revived, self.wakeup)

    def _be_revived(self) -> None:
        os.write(self._revive, b"x")

    def die(self) -> None:
        os.close(self.writer)

    def how_many(self) -> int:
        """Revived so far; collects them."""
        for pid in list(self.dog.supervisors):
            os.waitpid(pid, 0)
            self.dog.supervisors.remove(pid)
        os.set_blocking(self.revived, False)
        try:
            return len(os.read(self.revived, 100))
        except BlockingIOError:
            return 0

    def close(self) -> None:
        for fd in (self.reader, self.wakeup, self.wake, self.revived, self._revive):
            os.close(fd)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    made = Scene(tmp_path)
    monkeypatch.setattr(time, "monotonic", lambda: made.now_s)
    yield made
    made.close()


def test_while_the_supervisor_lives_it_only_waits(scene: Scene) -> None:
    ready, write = os.pipe()
    assert scene.dog.wait([ready], 0) == set()
    os.write(write, b"x")
    assert scene.dog.wait([ready], 0) == {ready}
    assert scene.how_many() == 0
    for fd in (ready, write, scene.writer):
        os.close(fd)


def test_a_supervisor_that_died_is_replaced_once_and_then_there_is_a_pause(scene: Scene) -> None:
    scene.die()
    assert scene.dog.wait((), 0) == set()
    assert scene.how_many() == 1
    scene.dog.wait((), 0)
    assert scene.how_many() == 0
    scene.now_s += 0.21
    scene.dog.wait((), 0)
    assert scene.how_many() == 1


def test_one_that_cannot_live_is_tried_ever_more_rarely(scene: Scene) -> None:
    scene.die()
    times: list[float] = []
    while scene.now_s < 1040.0:
        scene.dog.wait((), 0)
        times += [round(scene.now_s - 1000.0, 1)] * scene.how_many()
        scene.now_s += 0.1
    pauses = [b - a for a, b in pairwise(times)]
    for pause, wanted in zip(pauses, (0.2, 0.5, 2, 10, 10, 10), strict=True):
        assert wanted <= round(pause, 1) <= wanted + 0.2


def test_a_child_that_ends_wakes_it_up(scene: Scene) -> None:
    os.write(scene.wake, b"xxx")
    assert scene.dog.wait((), None) == set()
    os.set_blocking(scene.wakeup, False)
    with pytest.raises(BlockingIOError):
        os.read(scene.wakeup, 1)
    os.close(scene.writer)


def test_no_dead_supervisor_is_left_for_the_kernel_to_remember() -> None:
    shim = os.fork()  # the children of this process are not ours alone
    if shim == 0:
        pids = [_ended() for _ in range(3)]
        _reap(pids)
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            os._exit(len(pids))
        os._exit(99)
    assert os.waitpid(shim, 0)[1] == 0


def _ended() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid
