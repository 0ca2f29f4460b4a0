"""The agents of one attempt on several nodes, as real processes of this machine: what they do when some are killed."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mllaunch_agent import leases, protocol, starting, system
from mllaunch_agent.leases import Lease
from tests.e2e.harness import until
from tests.unit.agent_core import specs

SLEEPING = "import time; time.sleep(600)"
GPUS = 2


class Attempt:
    """Each node has a folder and leases for its GPUs of its own; the nodes are in the order in which GPUs are taken."""

    def __init__(self, root: Path, program: str, gpus: int, **changes: Any) -> None:
        lease_dirs = [str(root / f"leases-{number}") for number in range(2)]
        self.lease_dirs = sorted(lease_dirs, key=leases.queue_name)
        self.root = root
        self._held: list[Lease] = []
        self._agents: list[subprocess.Popen[bytes]] = []
        self.specs: list[protocol.TaskSpec] = []
        for rank in range(2):
            folder = root / f"node-{rank}"
            folder.mkdir()
            self.specs.append(
                specs.spec(
                    run_id=f"run-{root.name}",
                    node=f"n{rank}",
                    node_rank=rank,
                    nodes=2,
                    world_size=2,
                    tasks=[{"rank": rank, "local_rank": 0}],
                    folder=str(folder),
                    tree=None,
                    in_place=str(root),
                    output=f"outputs-{rank}",
                    argv=["/usr/bin/env", "python3", "-c", program],
                    environment={"PATH": os.environ["PATH"]},
                    gpus=gpus,
                    lease_dir=self.lease_dirs[rank],
                    cache=str(root / "cache"),
                    grace_s=5.0,
                    **changes,
                )
            )

    def begin(self) -> None:
        self.start(0)
        self.start(1)

    def start(self, rank: int) -> None:
        meeting = {"token": "5e" * 32, "addresses": [], "port": 0, "lease_s": 60.0}
        if rank:
            there = json.loads(until(lambda: system.read_file(self.path(0, "meeting.json")), "it to listen"))
            meeting.update(port=there["port"], addresses=["127.0.0.1"])
        agent = subprocess.Popen(
            starting.command("supervise"),
            env=starting.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._agents.append(agent)
        assert agent.stdin and agent.stdout
        with agent.stdin as pipe:
            pipe.write(json.dumps({**self.specs[rank], "meeting": meeting}).encode() + b"\n")
        with agent.stdout as answers:
            assert answers.readline() == b"ok\n"

    def adopt(self, rank: int) -> None:
        starting.adopt(self.specs[rank]["folder"])

    def path(self, rank: int, name: str) -> str:
        return str(Path(self.specs[rank]["folder"], name))

    def events(self, rank: int, kind: str) -> list[dict[str, Any]]:
        data = system.read_file(self.path(rank, "streams/events")) or b""
        found: list[Any] = [json.loads(line) for line in data.splitlines() if line.endswith(b"}")]
        return [event for event in found if event["kind"] == kind]

    def kill(self, rank: int) -> None:
        """The agent, and whoever would revive it."""
        born = [*self.events(rank, "attempt_started"), *self.events(rank, "restarted")][-1]
        agent = psutil.Process(born["pid"])
        agent.suspend()  # one that runs might fork whoever revives it after its children were counted
        until(lambda: agent.status() == psutil.STATUS_STOPPED, "the agent to stand still")
        for process in [*agent.children(), agent]:
            process.kill()
        until(lambda: not system.is_locked(self.path(rank, "supervisor.lock")), "the agent to be gone")

    def hold_gpus(self, rank: int) -> None:
        """Another run has them from now on."""
        info = {"run": "other", "run_id": "other", "attempt": 1, "user": "u", "pid": os.getpid()}
        ticket = leases.Queue(self.lease_dirs[rank]).enter(info, GPUS)
        uuids = [gpu["uuid"] for gpu in self._gpus()]
        answer = until(lambda: _lease(ticket.try_take(uuids, lambda uuid: [])), "the GPUs to be free")
        self._held.append(answer)

    def let_go(self) -> None:
        for lease in self._held:
            lease.release()
        self._held = []

    def _gpus(self) -> list[dict[str, Any]]:
        from mllaunch_agent.probes.gpu import Gpus

        return list(Gpus([]).list())

    def is_leased(self, rank: int) -> bool:
        return bool(self.events(rank, "gpus_leased"))

    def has_begun(self) -> bool:
        return all(self.events(rank, "task_started") for rank in range(2))

    def stop(self, rank: int) -> None:
        request = {"by": "ann", "at": "2026-01-01T00:00:00.000Z", "now": False}
        system.write_atomic(self.path(rank, "stop.json"), json.dumps(request).encode())

    def ends(self, timeout_s: float = 20) -> list[tuple[str, str | None]]:
        """(state, code of the reason) on each node, once both have ended."""
        until(lambda: all(self.events(rank, "attempt_ended") for rank in range(2)), "the end", timeout_s)
        ended = [self.events(rank, "attempt_ended")[-1] for rank in range(2)]
        return [(event["state"], event["reason"] and event["reason"]["code"]) for event in ended]

    def close(self) -> None:
        self.let_go()
        for rank in range(2):
            self.stop(rank)
        until(
            lambda: not any(system.is_locked(self.path(rank, "supervisor.lock")) for rank in range(2)),
            "the agents to be gone",
        )
        for agent in self._agents:
            agent.wait()


def _lease(answer: object) -> Lease | None:
    return answer if isinstance(answer, Lease) else None


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Attempt]]:
    monkeypatch.setenv("MLLAUNCH_FAKE_GPUS", str(GPUS))
    made: list[Attempt] = []

    def make(program: str = SLEEPING, gpus: int = GPUS, **changes: Any) -> Attempt:
        made.append(Attempt(tmp_path, program, gpus, **changes))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def waiting(attempt: Callable[..., Attempt]) -> Attempt:
    """The first node has its GPUs, and waits for the second, which waits for those of another run."""
    made = attempt("pass")
    made.hold_gpus(1)
    made.begin()
    until(lambda: made.is_leased(0) and made.events(1, "waiting"), "one to have its GPUs")
    return made


def test_an_agent_that_takes_over_has_the_gpus_again_that_the_one_before_it_had(waiting: Attempt) -> None:
    waiting.kill(0)
    waiting.adopt(0)
    until(lambda: waiting.events(0, "restarted"), "it to be adopted")
    waiting.let_go()
    assert waiting.ends() == [("succeeded", None)] * 2


def test_gpus_that_were_lost_are_not_waited_for_while_other_nodes_hold_theirs(
    attempt: Callable[..., Attempt],
) -> None:
    # The other run has the second node's GPUs and then takes the first's: whoever waited now would wait for ever.
    waiting = attempt("pass")
    waiting.hold_gpus(1)
    waiting.begin()
    until(lambda: waiting.is_leased(0), "one to have its GPUs")
    waiting.kill(0)
    waiting.hold_gpus(0)
    waiting.adopt(0)
    assert waiting.ends() == [("failed", "incomplete")] * 2
    (event,) = waiting.events(1, "attempt_ended")
    assert event["reason"]["message"] == (
        "the agent on n0 was killed before the start, and others have taken its GPUs"
    )
    assert event["reason"]["retryable"]


def test_a_node_that_was_booted_anew_before_the_start_has_lost_its_turn(waiting: Attempt) -> None:
    waiting.kill(0)
    events = Path(waiting.path(0, "streams/events"))
    events.write_text(events.read_text().replace(system.boot_id(), "another-boot"))
    waiting.adopt(0)
    assert waiting.ends() == [("failed", "incomplete")] * 2
    (event,) = waiting.events(1, "attempt_ended")
    assert event["reason"]["message"] == "n0 was booted anew before the start"


def test_a_stop_that_was_heard_before_a_death_reaches_the_other_nodes_all_the_same(
    attempt: Callable[..., Attempt],
) -> None:
    made = attempt(gpus=0)
    made.begin()
    until(made.has_begun, "both to begin")
    made.kill(0)
    made.kill(1)
    events = Path(made.path(1, "streams/events"))
    past = protocol.whole_lines(events.read_bytes())
    last = json.loads(past.splitlines()[-1])
    asked = {**last, "seq": last["seq"] + 1, "kind": "stop_requested", "by": "ann", "now": False}
    events.write_bytes(past + json.dumps(asked).encode() + b"\n")
    made.adopt(0)
    made.adopt(1)
    assert made.ends() == [("cancelled", "stopped")] * 2


TOGETHER = """
import os, signal, socket, sys, time
place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
if os.environ["RANK"] == "0":
    other, _ = socket.create_server(place).accept()
else:
    while True:
        try:
            other = socket.create_connection(place)
            break
        except OSError:
            time.sleep(0.01)
print("together", flush=True)
sys.exit(1 if other.recv(1) == b"" else 2)
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_what_fails_because_another_node_was_stopped_is_stopped_and_has_not_failed(
    attempt: Callable[..., Attempt], rank: int
) -> None:
    made = attempt(TOGETHER, gpus=0)
    made.begin()
    until(
        lambda: all(
            b"together" in (system.read_file(made.path(r, f"streams/stdout.{r}")) or b"") for r in (0, 1)
        ),
        "the tasks to be in touch",
    )
    made.stop(rank)
    assert made.ends() == [("cancelled", "stopped")] * 2


LEAVING_IN_TURN = """
import os, time
while not os.path.exists("leave-" + os.environ["RANK"]):
    time.sleep(0.01)
"""


def test_two_nodes_that_are_one_machine_leave_each_others_tasks_alone(
    attempt: Callable[..., Attempt],
) -> None:
    made = attempt(LEAVING_IN_TURN, gpus=0)
    made.begin()
    until(made.has_begun, "both to begin")
    made.kill(0)
    made.adopt(0)  # which looks for its processes by what they have in their environment
    (made.root / "leave-0").touch()
    until(lambda: Path(made.path(0, "ended")).exists(), "the first node to have nothing left")
    assert not made.events(0, "leftovers")
    assert not made.events(1, "task_exited")
    (made.root / "leave-1").touch()
    assert made.ends() == [("succeeded", None)] * 2


def test_a_run_that_took_too_long_says_so_on_every_node(attempt: Callable[..., Attempt]) -> None:
    made = attempt(TOGETHER, gpus=0, timeout_s=1.0)
    made.begin()
    assert made.ends() == [("failed", "timeout")] * 2


def test_a_first_agent_whose_others_never_came_ends_at_once_when_it_is_told_to(
    attempt: Callable[..., Attempt],
) -> None:
    made = attempt()
    made.start(0)
    until(lambda: made.events(0, "attempt_started"), "it to begin")
    began_s = time.monotonic()
    made.stop(0)
    until(lambda: made.events(0, "attempt_ended"), "it to end", 5)
    assert time.monotonic() - began_s < 5
    assert not made.is_leased(0)
