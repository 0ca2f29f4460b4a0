from __future__ import annotations

import os
import signal

import pytest

from mllaunch_agent import stopping
from mllaunch_agent.outcome import Cause
from mllaunch_agent.stopping import Stopping

STOPPED = Cause("stopped", "someone")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(pid, signal) in the order of sending; processes 1000 up exist nowhere else."""
    monkeypatch.setattr(stopping, "with_shell_children", list)
    return []


def tick(
    stop: Stopping, now_s: float, mains: list[int], family: list[int], sent: list[tuple[int, int]]
) -> None:
    stop.tick(now_s, mains, lambda: family, lambda pid, number: sent.append((pid, number)))


def test_main_processes_are_asked_once_and_first(sent: list[tuple[int, int]]) -> None:
    stop = Stopping(STOPPED, 30.0, started_s=100.0)
    for now_s in (100.0, 100.1, 120.0):
        tick(stop, now_s, [1000], [1000, 1001], sent)
    assert sent == [(1000, signal.SIGTERM)]


def test_what_outlives_the_main_processes_is_asked_as_well(sent: list[tuple[int, int]]) -> None:
    stop = Stopping(STOPPED, 30.0, started_s=100.0)
    tick(stop, 100.0, [1000], [1000, 1001], sent)
    tick(stop, 101.0, [], [1001], sent)
    tick(stop, 102.0, [], [1001, 1002], sent)
    assert sent == [(1000, signal.SIGTERM), (1001, signal.SIGTERM), (1002, signal.SIGTERM)]


def test_after_the_grace_period_everything_is_killed_again_and_again(sent: list[tuple[int, int]]) -> None:
    stop = Stopping(STOPPED, 30.0, started_s=100.0)
    tick(stop, 129.9, [1000], [1000, 1001], sent)
    tick(stop, 130.0, [1000], [1000, 1001], sent)
    tick(stop, 130.1, [], [1002], sent)
    kill = signal.SIGKILL
    assert sent == [(1000, signal.SIGTERM), (1000, kill), (1001, kill), (1002, kill)]


def test_hurry_kills_at_once_and_never_later_than_before(sent: list[tuple[int, int]]) -> None:
    stop = Stopping(STOPPED, 1.0, started_s=100.0)
    stop.hurry(500.0)
    tick(stop, 101.0, [1000], [1000], sent)
    assert sent == [(1000, signal.SIGKILL)]
    sent.clear()
    stop = Stopping(STOPPED, 1000.0, started_s=100.0)
    stop.hurry(100.5)
    tick(stop, 100.5, [1000], [1000], sent)
    assert sent == [(1000, signal.SIGKILL)]


def test_a_process_that_is_gone_is_no_error() -> None:
    beyond = 2**22 + 1  # above the kernel's highest pid
    with pytest.raises(ProcessLookupError):
        os.kill(beyond, signal.SIGTERM)
    stopping.send(beyond, signal.SIGTERM)
