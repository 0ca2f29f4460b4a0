"""Leases among real processes: nothing is held twice, order is kept, and death frees."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest

from mllaunch_agent import leases
from mllaunch_agent.leases import Lease, Queue, Waiting

GPUS = [f"GPU-{n}" for n in range(8)]

# Holds are proven apart from the locks under test: by files that can be made only once.
CONTENDER = """
import json, os, random, sys, time
from mllaunch_agent import leases
folder, name, seed, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
mortal = sys.argv[5] == "1"
choice = random.Random(seed)
log = os.open(folder + "/log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
def say(what, **more):
    os.write(log, (json.dumps(dict(more, what=what, name=name)) + "\\n").encode())
for turn in range(rounds):
    info = {"run": name, "run_id": name + str(turn), "attempt": 1, "user": "u", "pid": os.getpid()}
    ticket = leases.Queue(folder + "/leases").enter(info, choice.choice([1, 1, 2, 3, 4, 8]))
    say("enter", ticket=ticket.number)
    if turn == 0:
        print("ready", flush=True)
        sys.stdin.readline()
    leave = ticket.leave
    ticket.leave = lambda: (say("take", ticket=ticket.number), leave())
    while True:
        answer = ticket.try_take([f"GPU-{n}" for n in range(8)], lambda uuid: [])
        if isinstance(answer, leases.Lease):
            break
        time.sleep(0.002)
    for uuid in answer.uuids:
        if not mortal:
            os.close(os.open(folder + "/held-" + uuid, os.O_CREAT | os.O_EXCL))
    time.sleep(choice.random() * 0.01)
    for uuid in answer.uuids:
        if not mortal:
            os.unlink(folder + "/held-" + uuid)
    answer.release()
say("done")
"""


def start(folder: Path, number: int, rounds: int, mortal: bool) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(Path(leases.__file__).parents[1])}
    argv = [sys.executable, "-S", "-c", CONTENDER, str(folder), f"run-{number}", str(number), str(rounds)]
    return subprocess.Popen(
        [*argv, "1" if mortal else "0"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream


@pytest.fixture
def contenders() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


def test_fifty_contenders_never_share_a_gpu_and_are_served_in_order(
    tmp_path: Path, contenders: list[subprocess.Popen[bytes]]
) -> None:
    for number in range(50):
        contenders.append(start(tmp_path, number, rounds=2, mortal=False))
    for process in contenders:
        assert pipe(process.stdout).readline() == b"ready\n"
    for process in contenders:
        pipe(process.stdin).write(b"\n")
        pipe(process.stdin).flush()
    for process in contenders:
        process.communicate(timeout=120)
    assert [process.returncode for process in contenders] == [0] * 50
    waiting: set[int] = set()
    takes = 0
    for line in (tmp_path / "log").read_text().splitlines():
        entry = json.loads(line)
        if entry["what"] == "enter":
            waiting.add(entry["ticket"])
        elif entry["what"] == "take":
            assert entry["ticket"] == min(waiting | {entry["ticket"]})
            waiting.discard(entry["ticket"])
            takes += 1
    assert takes == 100
    assert not list((tmp_path / "leases").glob("ticket-*"))
    assert leases.holders(str(tmp_path / "leases")) == []


def test_killed_waiters_and_holders_free_all_that_they_had(
    tmp_path: Path, contenders: list[subprocess.Popen[bytes]]
) -> None:
    choice = random.Random(5)
    for number in range(20):
        contenders.append(start(tmp_path, number, rounds=1000 if number < 12 else 3, mortal=True))
    for process in contenders:
        assert pipe(process.stdout).readline() == b"ready\n"
    for process in contenders:
        pipe(process.stdin).write(b"\n")
        pipe(process.stdin).flush()
    for process in contenders[:12]:  # they would go on for minutes, and die wherever they are
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=choice.random() * 0.1)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    for process in contenders[12:]:
        process.communicate(timeout=120)
        assert process.returncode == 0
    ticket = Queue(str(tmp_path / "leases")).enter({"run": "last", "run_id": "last"}, 8)
    answer = ticket.try_take(GPUS, lambda _: [])
    assert isinstance(answer, Lease)
    answer.release()
    assert not list((tmp_path / "leases").glob("ticket-*"))


def test_a_lease_lives_as_long_as_the_child_that_inherited_it(tmp_path: Path) -> None:
    """The parent takes it and dies; the task lives on, and with it the lease."""
    directory = str(tmp_path / "leases")
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        lease = Queue(directory).enter(
            {"run": "owner", "run_id": "owner", "user": "u", "pid": os.getpid()}, 3
        )
        answer = lease.try_take(GPUS, lambda _: [])
        assert isinstance(answer, Lease)
        subprocess.Popen(["sh", "-c", "read x"], stdin=reader, pass_fds=answer.fds)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.WTERMSIG(os.waitpid(parent, 0)[1]) == signal.SIGKILL
    os.close(reader)
    assert [h["gpu"] for h in leases.holders(directory)] == GPUS[:3]
    ticket = Queue(directory).enter({"run": "next", "run_id": "next"}, 8)
    waiting = ticket.try_take(GPUS, lambda _: [])
    assert isinstance(waiting, Waiting)
    assert {h["run"] for h in waiting.holders} == {"owner"}
    os.write(writer, b"\n")  # the task ends
    os.close(writer)
    while isinstance(answer := ticket.try_take(GPUS, lambda _: []), Waiting):
        os.sched_yield()
    answer.release()


def test_the_restart_of_a_killed_supervisor_keeps_its_place(tmp_path: Path) -> None:
    directory = str(tmp_path / "leases")
    holder = Queue(directory).enter({"run": "holder", "run_id": "holder"}, 8).try_take(GPUS, lambda _: [])
    assert isinstance(holder, Lease)
    entered_reader, entered_writer = os.pipe()
    info = {"run": "first", "run_id": "first", "attempt": 1}
    supervisor = os.fork()
    if supervisor == 0:
        holder.release()  # only this process's share of it
        Queue(directory).enter({**info, "pid": os.getpid()}, 1)
        if os.fork() == 0:  # the guard, which takes over
            again = Queue(directory).enter({**info, "pid": os.getpid()}, 1)
            os.write(entered_writer, b"%d\n" % again.number)
            while isinstance(answer := again.try_take(GPUS, lambda _: []), Waiting):
                os.sched_yield()
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(supervisor, 0)
    number = int(os.read(entered_reader, 20))
    assert len(list((tmp_path / "leases").glob("ticket-*"))) == 1
    second = Queue(directory).enter({"run": "second", "run_id": "second"}, 1)
    assert second.number == number + 1
    waiting = second.try_take(GPUS, lambda _: [])
    assert isinstance(waiting, Waiting)
    assert [a["run"] for a in waiting.ahead] == ["first"]
    holder.release()
    while isinstance(answer := second.try_take(GPUS, lambda _: []), Waiting):
        os.sched_yield()
    answer.release()
    os.close(entered_reader)
    os.close(entered_writer)
