"""Trials whose jobs run on hosts, while what is killed is on this machine: the submitting command and the collector."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from mllaunch.wiring import App
from tests.e2e.ssh import leftovers
from tests.faults import victims
from tests.faults.batch import COMMAND, Batch, name
from tests.faults.plan import Trial
from tests.faults.ssh.plan import Reached
from tests.testbed.hosts import Hosts

PYTHON = "/usr/bin/python3"


def configuration(hosts: Hosts) -> str:
    """mllaunch.yaml for runs on all of them."""
    nodes = [{"name": host.name, "python": PYTHON} for host in hosts.hosts]
    return json.dumps({"backend": "ssh", "nodes": nodes, "ssh": {"config": str(hosts.config)}})


class HostsBatch(Batch):
    """A home and its trials on these hosts. place: a folder for what the jobs write down, below each host's."""

    def __init__(self, folder: Path, trials: list[Reached], hosts: Hosts) -> None:
        super().__init__(folder, [reached.trial for reached in trials])
        self._reached = {reached.trial.number: reached for reached in trials}
        self._hosts = {host.name: host for host in hosts.hosts}
        self._place = f"truth-{trials[0].trial.seed}-{folder.parent.name}"
        self.repo.write("mllaunch.yaml", configuration(hosts))
        self.repo.commit()

    def submission(self, trial: Trial) -> list[str]:
        reached = self._reached[trial.number]
        options = ["--name", name(trial), "--max-retries", str(trial.max_retries), "--grace", "20s"]
        if trial.gpus:
            options += ["--gpus", str(trial.gpus)]
        for node in reached.nodes:
            options += ["--node", node]
            (self._hosts[node].folder / self._place / str(trial.number)).mkdir(parents=True)
        truth = f"/host/{self._place}/{trial.number}"
        job = [PYTHON, "-I", "-S", "job.py", json.dumps(trial.job._asdict()), truth]
        return [*COMMAND, reached.command, *options, "--", *job]

    def await_beginning(self, app: App, trial: Trial, submit: subprocess.Popen[bytes]) -> float:
        began = time.monotonic()
        if self._reached[trial.number].from_record:
            while submit.poll() is None and self.get(app, trial) is None:
                time.sleep(0.005)
        return time.monotonic() - began

    def exit_code(self, trial: Trial) -> int:
        return self._reached[trial.number].exit_code

    def find(self, victim: str, app: App, trial: Trial, submit: subprocess.Popen[bytes]) -> int | None:
        if victim == "collector":
            return victims.collector(self.home.path)
        return submit.pid if submit.poll() is None else None

    def truths(self, trial: Trial, app: App) -> dict[str, Path]:
        nodes = self._reached[trial.number].nodes
        return {node: self._hosts[node].folder / self._place / str(trial.number) for node in nodes}

    def leftovers(self) -> int:
        here = super().leftovers()
        hosts = self._hosts.values()
        app = App(self.home.environ, str(self.repo.root))
        held = [gpu for node in app.look_at_nodes() for gpu in node.get("gpus") or () if gpu["held_by"]]
        found = [leftovers.agents(hosts), leftovers.orphans(hosts), leftovers.mounts(hosts), held]
        for what in found:
            if what:
                self.faults.append(f"left on the hosts: {what}")
        return here + sum(map(len, found))
