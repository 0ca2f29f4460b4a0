# pathlib would double the time that the job takes to start.
# ruff: noqa: PTH110, PTH118, PTH123
"""The program that the fault trials run: prints known bytes and writes down by itself, beside them, what it printed.

``job.py PLAN FOLDER``: PLAN is JSON, see plan.Job; FOLDER receives per attempt N

    started.N, ended.N     when (seconds since boot) the main process began and was about to end
    stdout.N, stderr.N     what was printed
    twice.N, overlap.N     only if the attempt was started a second time, or beside another attempt
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import resource
import signal
import sys
import time

FOLDER = sys.argv[2] if len(sys.argv) == 3 else ""
ATTEMPT = os.environ.get("MLLAUNCH_ATTEMPT", "1")


def path(name: str) -> str:
    return os.path.join(FOLDER, f"{name}.{ATTEMPT}")


def note(name: str) -> None:
    with open(path(name), "a") as file:
        file.write(f"{time.clock_gettime(time.CLOCK_BOOTTIME)}\n")


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def put(fd: int, data: bytes) -> None:
    """Print, and note the same bytes in the same order as those of every other process of the job."""
    turn = os.open(path("turn"), os.O_RDWR | os.O_CREAT)
    fcntl.flock(turn, fcntl.LOCK_EX)
    write_all(fd, data)
    truth = os.open(path("stdout" if fd == 1 else "stderr"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    write_all(truth, data)
    os.close(truth)
    os.close(turn)


def lines(chance: random.Random, who: str, first: int, count: int) -> bytes:
    return b"".join(
        f"{number:07d} {who} {'x' * chance.randrange(0, 120)}\n".encode()
        for number in range(first, first + count)
    )


def speak(chance: random.Random, who: str, lasts_s: float, lines_per_s: float, burst_bytes: int) -> None:
    began = time.monotonic()
    burst_at = chance.random() * lasts_s if burst_bytes else None
    number = 0
    while (now := time.monotonic() - began) < lasts_s:
        count = chance.randrange(1, 4)
        put(1 if chance.random() < 0.7 else 2, lines(chance, who, number, count))
        number += count
        if burst_at is not None and now >= burst_at:
            burst_at = None
            burst = lines(chance, who, number, burst_bytes // 75)
            number += burst_bytes // 75
            put(1, burst)
        time.sleep(count / lines_per_s)


def child(how: str, chance: random.Random, lasts_s: float, lines_per_s: float) -> None:
    """A process that leaves the main one's session, or even its tree, and outlives it by a little."""
    if os.fork():
        return
    os.setsid()
    if how == "daemon" and os.fork():
        os._exit(0)
    speak(chance, how, lasts_s + 0.2 * chance.random(), lines_per_s, 0)
    os._exit(0)


def main() -> None:
    plan = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if os.path.exists(path("started")):
        note("twice")
    note("started")
    running = os.open(os.path.join(FOLDER, "running"), os.O_RDWR | os.O_CREAT)  # closed by the last process
    os.set_inheritable(running, True)
    try:
        fcntl.flock(running, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note("overlap")
    chance = random.Random(plan["seed"])
    for how in plan["children"]:
        child(how, random.Random(chance.random()), plan["lasts_s"], plan["lines_per_s"])
    speak(chance, "main", plan["lasts_s"], plan["lines_per_s"], plan["burst_bytes"])
    ends = plan["ends"][min(int(ATTEMPT), len(plan["ends"])) - 1]
    note("ended")
    if ends >= 0:
        os._exit(ends)
    if -ends == signal.SIGABRT:
        os.abort()
    os.kill(os.getpid(), -ends)


if __name__ == "__main__":
    main()
