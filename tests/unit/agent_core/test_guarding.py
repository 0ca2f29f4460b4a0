"""What takes long before the start keeps the supervisor from none of its duties."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from mllaunch_agent import checkpoint, guarding, tracing, workdir
from mllaunch_agent.runtimes.process import ProcessRuntime
from tests.unit.agent_core.specs import spec


class Supervisor:
    """One that counts its ticks; at the third it sets ``ticked``, and is to stop where it ``stops``."""

    def __init__(self, folder: Path, peers: object, stops: bool = False) -> None:
        self.spec = spec(
            folder=str(folder),
            checkpoint={"path": "/last.pt", "name": "last.pt", "kind": "resume"},
        )
        self.folder = str(folder)
        self.peers = peers
        self.stopping: object = None
        self.port = 0
        self.ticks = 0
        self.ticked = threading.Event()
        self.events = self
        self.written: list[str] = []
        self.reviver: int | None = None
        self._stops = stops

    def tick(self) -> None:
        self.ticks += 1
        if self.ticks == 3:
            self.stopping = self._stops or None
            self.ticked.set()

    def write(self, kind: str, **fields: Any) -> None:
        self.written.append(kind)


ensure = guarding.ensure


@pytest.fixture(autouse=True)
def _unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "ensure", lambda supervisor: None)
    monkeypatch.setattr(guarding, "_TICK_S", 0.001)
    monkeypatch.setattr(tracing, "prepare", lambda folder: None)


def runtime(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, slow: str) -> ProcessRuntime:
    """One whose slow step ends no sooner than its supervisor has ticked three times."""

    def step(*given: object) -> str:
        assert supervisor.ticked.wait(10)
        return "copy"

    quick = {"make": lambda tree, folder: "copy", "bring": lambda folder, wanted: ""}
    steps = {**quick, slow: step}
    monkeypatch.setattr(workdir, "make", steps["make"])
    monkeypatch.setattr(workdir, "link_data", lambda work, links: None)
    monkeypatch.setattr(checkpoint, "bring", steps["bring"])
    asking: Any = supervisor
    made = ProcessRuntime(asking)
    monkeypatch.setattr(made, "_join_cgroup", lambda: None)
    return made


@pytest.mark.parametrize("slow", ["make", "bring"])
def test_a_node_that_prepares_for_long_goes_on_saying_that_it_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: str
) -> None:
    supervisor = Supervisor(tmp_path, peers=object())
    assert runtime(supervisor, monkeypatch, slow).prepare() == str(tmp_path / "work")
    assert supervisor.ticks >= 3
    assert supervisor.written == ["workdir_ready"]


def test_a_stop_that_comes_meanwhile_is_heeded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = Supervisor(tmp_path, peers=object(), stops=True)
    assert runtime(supervisor, monkeypatch, "make").prepare() == ""
    assert supervisor.written == []


def test_what_goes_wrong_is_raised_where_it_is_waited_for(tmp_path: Path) -> None:
    def fail() -> None:
        raise OSError("no room")

    supervisor: Any = Supervisor(tmp_path, peers=object())
    with pytest.raises(OSError, match="no room"):
        guarding.beside(supervisor, fail)


def test_what_need_not_end_is_left(tmp_path: Path) -> None:
    supervisor: Any = Supervisor(tmp_path, peers=None, stops=True)
    may_end = threading.Event()
    assert not guarding.beside(supervisor, may_end.wait, may_leave=True)
    may_end.set()


def test_where_nobody_waits_for_a_sign_of_life_nothing_is_spent_on_one(tmp_path: Path) -> None:
    supervisor: Any = Supervisor(tmp_path, peers=None)
    done: list[int] = []
    assert guarding.with_peers(supervisor, lambda: done.append(threading.get_ident()))
    assert done == [threading.get_ident()]


def test_one_guard_stays_and_is_replaced_only_when_it_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork(supervisor: object) -> int:
        pid = os.fork()
        if pid == 0:
            signal.pause()
            os._exit(0)
        return pid

    monkeypatch.setattr(guarding, "_fork", fork)
    supervisor: Any = Supervisor(tmp_path, peers=object())
    ensure(supervisor)
    first = supervisor.reviver
    ensure(supervisor)
    assert supervisor.reviver == first
    os.kill(first, signal.SIGKILL)
    os.waitid(os.P_PID, first, os.WEXITED | os.WNOWAIT)
    ensure(supervisor)
    second = supervisor.reviver
    assert second not in (None, first)
    guarding.dismiss(supervisor)
    assert supervisor.reviver is None
    with pytest.raises(ChildProcessError):
        os.waitpid(second, 0)
