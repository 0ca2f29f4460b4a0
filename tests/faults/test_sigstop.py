"""Every process of ours is stopped for a while (SIGSTOP): the job does not notice, and nothing is lost.

FAULT_PAUSE_S says for how long; `make faults` uses a minute.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mllaunch_agent.probes import processes
from tests.e2e.harness import Home, Mllaunch, Repo, until
from tests.faults import victims

PAUSE_S = float(os.environ.get("FAULT_PAUSE_S", "2"))

# Prints a line every 10 ms, and in the end how long it took and its longest pause between two lines.
TALK = f"""
import os, sys, time
began = last = time.monotonic()
longest, number = 0.0, 0
while last - began < {PAUSE_S - 0.5}:
    os.write(1 + number % 2, b"line %06d\\n" % number)
    number += 1
    time.sleep(0.01)
    now = time.monotonic()
    longest, last = max(longest, now - last), now
with open(sys.argv[1], "w") as file:
    file.write("%r %r %r" % (number, last - began, longest))
sys.exit(5)
"""


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    made = Home(tmp_path / "h")
    yield made
    left = made.close()
    assert not left, f"processes were left behind (and have been killed): {left}"


@pytest.fixture
def mllaunch(tmp_path: Path, home: Home) -> Mllaunch:
    repo = Repo(tmp_path / "project", home.environ)
    repo.script(TALK, "talk.py")
    return Mllaunch(home, repo.root)


@pytest.fixture
def stopped() -> Iterator[list[int]]:
    """Pids that are stopped; whatever happens, they go on in the end."""
    pids: list[int] = []
    yield pids
    for pid in pids:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            pass


@pytest.mark.parametrize("who", ["supervisor", "shim", "collector", "all"])
def test_a_job_does_not_notice_that_our_processes_are_stopped(
    mllaunch: Mllaunch, home: Home, tmp_path: Path, stopped: list[int], who: str
) -> None:
    truth = tmp_path / "truth"
    run, _ = mllaunch.submit("--", sys.executable, "-I", "-S", "talk.py", str(truth))
    folder = home.path / "runs" / run
    until((home.attempt(run) / "task-0.json").exists, "the task to begin")
    ours = {
        "supervisor": until(lambda: victims.supervisor(folder, 0), "the supervisor"),
        "shim": until(lambda: victims.shim(folder), "the shim"),
        "collector": until(lambda: victims.collector(home.path), "the collector"),
    }
    began = time.monotonic()
    stopped += ours.values() if who == "all" else [ours[who]]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    agents = of_run(folder)

    until(truth.exists, "the job to end", PAUSE_S + 60)
    lines, took_s, longest_s = map(float, truth.read_text().split())
    time.sleep(max(0.0, began + PAUSE_S - time.monotonic()))

    assert took_s < PAUSE_S - 0.5 + 1.0
    assert longest_s < 0.5
    if who != "all":  # a supervisor that lives on may end the shim that it has no more use for
        assert of_run(folder) <= agents, "while one is stopped, no second one appears"
    else:
        assert of_run(folder) == agents
    for pid in stopped:
        try:
            os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:
            assert who == "shim"

    row = mllaunch.wait_sealed(run)
    assert (row["exit_code"], row["reason"]["code"], row["seal"]) == (5, "exit", "sealed-complete")
    everything = mllaunch("logs", run, check=True).stdout.splitlines()
    assert sorted(everything) == [f"line {number:06d}" for number in range(int(lines))]
    events = (home.attempt(run) / "streams" / "events").read_bytes().splitlines()
    assert not [event for event in events if json.loads(event)["kind"] == "restarted"]


def of_run(folder: Path) -> set[int]:
    """Our own processes that look after the run."""
    return {
        pid
        for pid in victims.agents()
        if any(link.startswith(f"{folder}/") for link in victims.open_files(pid)) and processes.stat(pid)
    }
