"""Two launchers with a run log each submit runs for the same GPUs: none is had twice, and everybody gets some."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from tests.e2e.harness import Home, Repo
from tests.e2e.ssh import leftovers
from tests.faults.batch import COMMAND
from tests.faults.ssh.batch import configuration
from tests.testbed.hosts import Hosts

_PATIENCE_S = 600.0
# Writes down when it had which GPUs, by a clock that all hosts share, beside whatever mllaunch may say.
_JOB = """
import json, os, sys, time
def now():
    return time.clock_gettime(time.CLOCK_BOOTTIME)
began = now()
time.sleep(float(sys.argv[2]))
gpus = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
with open(sys.argv[1] + "/" + os.environ["MLLAUNCH_RUN_ID"], "x") as file:
    json.dump({"gpus": gpus, "began": began, "ended": now()}, file)
"""


class Outcome(NamedTuple):
    """double_booked: GPUs that two tasks had at one time. waits_s: from submission to start, of each run that ran."""

    runs: int
    ran: int
    double_booked: int
    waits_s: tuple[float, ...]
    took_s: float
    faults: tuple[str, ...]

    def table(self) -> str:
        rows: list[tuple[str, object]] = [
            ("runs of two launchers", self.runs),
            ("  ran once, to their end", self.ran),
            ("double-booked GPUs", self.double_booked),
            ("median wait, s", f"{median(self.waits_s):.1f}" if self.waits_s else "-"),
            ("longest wait, s", f"{max(self.waits_s):.1f}" if self.waits_s else "-"),
            ("took, s", f"{self.took_s:.0f}"),
            ("faults in all", len(self.faults)),
        ]
        return "\n".join(f"{name:<36} {value!s:>14}" for name, value in rows)


def compete(hosts: Hosts, gpus: int, folder: Path, each: int, seed: int) -> Outcome:
    """Both submit ``each`` runs, one after the other and as fast as they can.

    gpus: how many each host has. folder: for the launchers' homes.
    """
    began = time.monotonic()
    place = f"rivals-{seed}-{folder.name}"
    for host in hosts.hosts:
        (host.folder / place).mkdir()
    rivals = [
        _Rival(folder / who, hosts, gpus, place, random.Random(f"{seed}:{who}")) for who in ("one", "other")
    ]
    try:
        with ThreadPoolExecutor(len(rivals)) as pool:
            rows = [row for found in pool.map(lambda rival: rival.run(each), rivals) for row in found]
        faults = rivals[0].leases()
    finally:
        left = [rival.home.close() for rival in rivals]
    told = {
        path.name: {**json.loads(path.read_text()), "host": host.name}
        for host in hosts.hosts
        for path in (host.folder / place).iterdir()
    }
    left += [leftovers.agents(hosts.hosts), leftovers.orphans(hosts.hosts), leftovers.mounts(hosts.hosts)]
    faults += [f"left behind: {what}" for what in left if what]
    faults += [fault for rival in rivals for fault in rival.faults]
    return _outcome(2 * each, rows, told, time.monotonic() - began, faults)


class _Rival:
    """A user who submits runs of one to all GPUs of a host."""

    def __init__(self, folder: Path, hosts: Hosts, gpus: int, place: str, chance: random.Random) -> None:
        self.home = Home(folder)
        self.home.environ["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        self.faults: list[str] = []
        self._repo = Repo(folder / "project", self.home.environ)
        self._repo.write("mllaunch.yaml", configuration(hosts))
        self._repo.script(_JOB)
        self._place = place
        self._chance = chance
        self._gpus = gpus

    def run(self, count: int) -> list[dict[str, Any]]:
        """Submit so many, and wait until all have ended; how `ps` lists them."""
        for _ in range(count):
            gpus = str(self._chance.choice((1, 2, self._gpus, self._gpus)))
            lasts_s = f"{self._chance.uniform(1.0, 6.0):.2f}"
            done = self._call("submit", "--gpus", gpus, "train.py", f"/host/{self._place}", lasts_s)
            if done.returncode != 0:
                self.faults.append(f"submit exited with {done.returncode}: {done.stderr.decode()}")
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            rows: list[dict[str, Any]] = json.loads(self._call("ps", "--all", "--json").stdout)
            if all(row["seal"] for row in rows) or time.monotonic() > deadline:
                return rows
            time.sleep(0.2)

    def leases(self) -> list[str]:
        """GPUs that somebody still has."""
        nodes = json.loads(self._call("nodes", "--json").stdout)
        return [f"held: {gpu}" for node in nodes for gpu in node["gpus"] if gpu["held_by"]]

    def _call(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*COMMAND, *arguments], env=self.home.environ, cwd=self._repo.root, capture_output=True
        )


def _outcome(
    count: int, rows: list[dict[str, Any]], told: dict[str, dict[str, Any]], took_s: float, faults: list[str]
) -> Outcome:
    ids = {row["id"] for row in rows}
    ran = [row for row in rows if row["state"] == "succeeded" and row["seal"] == "sealed-complete"]
    faults += [f"ended otherwise: {row}" for row in rows if row not in ran]
    if len(rows) != count or ids != set(told):
        faults.append(f"{count} runs: {len(rows)} listed, {len(told)} ran; not both: {ids ^ set(told)}")
    doubles = double_booked(list(told.values()))
    faults += [f"two at a time: {double}" for double in doubles]
    waits_s = tuple(_seconds(row["started_at"]) - _seconds(row["submitted_at"]) for row in ran)
    return Outcome(count, len(ran), len(doubles), waits_s, took_s, tuple(faults))


def double_booked(told: list[dict[str, Any]]) -> list[str]:
    """GPUs that two tasks had at one time. told: of each task {"host", "gpus", "began", "ended"}."""
    of_gpu: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for task in told:
        for gpu in task["gpus"]:
            of_gpu.setdefault((task["host"], gpu), []).append((task["began"], task["ended"]))
    return [
        f"{gpu} of {host}: {one}, {other}"
        for (host, gpu), times in of_gpu.items()
        for one, other in pairwise(sorted(times))
        if other[0] < one[1]
    ]


def _seconds(at: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(at.replace("Z", "+00:00")).timestamp()
