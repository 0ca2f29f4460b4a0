"""Runs trials of one home beside each other, waits until all is settled, and checks the lot."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mllaunch.domain.run import Run, RunStatus
from mllaunch.errors import MllaunchError, NotFound
from mllaunch.wiring import App
from mllaunch_agent import leases
from tests.e2e.harness import Home, Repo, mounts_below
from tests.faults import victims
from tests.faults.checks import Check
from tests.faults.plan import Trial
from tests.faults.tally import Report

_PYTHON_JOB = Path(__file__).with_name("job.py")
COMMAND = (sys.executable, "-c", "from mllaunch.cli.main import main; main()")
_PATIENCE_S = 0.4  # how long a kill waits for its victim to appear
_LOOK_S = 0.002
_SETTLE_S = 90.0
_GPUS = {"MLLAUNCH_FAKE_GPUS": "2"}
_BESIDE = 4  # trials at a time in one home


class Batch:
    """One home and its trials."""

    def __init__(self, folder: Path, trials: list[Trial]) -> None:
        self._trials = trials
        self.home = Home(folder)
        self.home.environ.update(_GPUS, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
        self.repo = Repo(folder / "project", self.home.environ)
        self.repo.write("job.py", _PYTHON_JOB.read_bytes())
        self.repo.commit()
        self._quiet: set[str] = set()  # trials that are not killed at any more
        self.reports: dict[int, Report] = {}
        self.faults: list[str] = []

    def close(self) -> None:
        """End whatever is still there."""
        self.home.close(timeout_s=0.0)

    def run(self) -> tuple[list[Report], int, list[str]]:
        """Reports, number of leftovers, and what was wrong with the home."""
        done = threading.Event()
        reader = threading.Thread(target=self._read_until, args=(done,))
        reader.start()
        with ThreadPoolExecutor(_BESIDE) as pool:
            outcomes = list(pool.map(self._attack, self._trials))
        app = App(self.home.environ, str(self.repo.root))
        self._await(app)
        done.set()
        reader.join()
        reports = [
            Check(app, trial, self.truths(trial, app), killed, rc).report(self.get(app, trial))
            for trial, (killed, rc) in zip(self._trials, outcomes, strict=True)
        ]
        self._check_listing(reports)
        left = self.leftovers()
        self._check_database()
        return reports, left, self.faults

    # --- one trial ------------------------------------------------------------------------------------------

    def _attack(self, trial: Trial) -> tuple[tuple[str, ...], int]:
        """Submit, kill, and let be; who was really killed, and how the submission ended."""
        began = time.monotonic()
        with subprocess.Popen(
            self.submission(trial),
            env=self.home.environ,
            cwd=self.repo.root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as process:
            app = App(self.home.environ, str(self.repo.root))
            began += self.await_beginning(app, trial, process)
            killed = []
            for kill in trial.kills:
                time.sleep(max(0.0, began + kill.at_s - time.monotonic()))
                deadline = time.monotonic() + _PATIENCE_S
                while time.monotonic() < deadline:
                    pid = self.find(kill.victim, app, trial, process)
                    if pid and victims.kill(pid):
                        killed.append(kill.victim)
                        break
                    if kill.victim == "submit":
                        break  # it ended by itself
                    time.sleep(_LOOK_S)
            said = process.stderr.read() if process.stderr else b""
            rc = process.wait()
        if rc == self.exit_code(trial):
            rc = 0
        if rc not in (0, -9) and b"agent_start" not in said:
            self.faults.append(f"trial {trial.number}: submit said {said.decode(errors='replace')}")
        self._quiet.add(name(trial))
        return tuple(killed), rc

    def submission(self, trial: Trial) -> list[str]:
        """The command that submits the trial."""
        truth = self._truth(trial)
        truth.mkdir(parents=True)
        options = ["--name", name(trial), "--max-retries", str(trial.max_retries), "--grace", "20s"]
        if trial.gpus:
            options += ["--gpus", str(trial.gpus)]
        job = [sys.executable, "-I", "-S", "job.py", json.dumps(trial.job._asdict()), str(truth)]
        return [*COMMAND, "submit", *options, "--", *job]

    def await_beginning(self, app: App, trial: Trial, submit: subprocess.Popen[bytes]) -> float:
        """Wait until the time begins that the moments of kills are counted from; how many seconds that took."""
        return 0.0

    def exit_code(self, trial: Trial) -> int:
        """With which that command exits where nobody kills it."""
        return 0

    def find(self, victim: str, app: App, trial: Trial, submit: subprocess.Popen[bytes]) -> int | None:
        """The process to be killed, if there is one at this moment."""
        if victim == "submit":
            return submit.pid if submit.poll() is None else None
        if victim == "collector":
            return victims.collector(self.home.path)
        found = self.get(app, trial)
        folder = self.home.path / "runs" / found[0].id if found else None
        return victims.supervisor(folder, submit.pid) if victim == "supervisor" else victims.shim(folder)

    def truths(self, trial: Trial, app: App) -> dict[str, Path]:
        """By node, in the order of ranks, where the job writes down what it prints."""
        return {app.node: self._truth(trial)}

    def _truth(self, trial: Trial) -> Path:
        return self.home.folder / "truth" / str(trial.number)

    # --- settling -------------------------------------------------------------------------------------------

    def _read_until(self, done: threading.Event) -> None:
        """Do what `ps` and `show` do, by turns, for the runs that are not attacked any more."""
        app = App(self.home.environ, str(self.repo.root))
        as_ps = False
        while not done.wait(0.2):
            as_ps = not as_ps
            for trial_name in list(self._quiet):
                try:
                    run, status = app.log.get(trial_name)
                    if app.collector.collect(run, status, events_only=as_ps).seal:
                        self._quiet.discard(trial_name)
                except NotFound:
                    self._quiet.discard(trial_name)
                except MllaunchError as error:
                    self.faults.append(
                        f"reading {trial_name}: {error.code}: {error.message} {error.evidence}"
                    )
                    self._quiet.discard(trial_name)

    def _await(self, app: App) -> None:
        """Until every run is settled, which needs no more than that somebody looks."""
        deadline = time.monotonic() + _SETTLE_S
        for trial in self._trials:
            while time.monotonic() < deadline:
                found = self.get(app, trial)
                if found is None or found[1].seal:
                    break
                time.sleep(0.05)

    @staticmethod
    def get(app: App, trial: Trial) -> tuple[Run, RunStatus] | None:
        try:
            return app.log.get(name(trial))
        except NotFound:
            return None

    # --- the home as a whole --------------------------------------------------------------------------------

    def _check_listing(self, reports: list[Report]) -> None:
        listed = subprocess.run(
            [*COMMAND, "ps", "--all", "--json"],
            env=self.home.environ,
            cwd=self.repo.root,
            stdout=subprocess.PIPE,
            check=True,
        )
        names = sorted(row["name"] for row in json.loads(listed.stdout))
        wanted = sorted(
            name(trial)
            for trial, report in zip(self._trials, reports, strict=True)
            if report.outcome != "absent"
        )
        if names != wanted:
            self.faults.append(f"ps lists {names}, not {wanted}")

    def leftovers(self) -> int:
        """How many processes, mounts and leases are left."""
        mounted = mounts_below(self.home.folder)
        left = self.home.close(timeout_s=20.0)
        held = leases.holders(str(self.home.leases))
        for what in (left, mounted, held):
            if what:
                self.faults.append(f"left behind: {what}")
        return len(left) + len(mounted) + len(held)

    def _check_database(self) -> None:
        path = self.home.path / "runlog.sqlite3"
        if not path.exists():
            return
        connection = sqlite3.connect(path)
        answer = connection.execute("PRAGMA integrity_check").fetchall()
        connection.close()
        if answer != [("ok",)]:
            self.faults.append(f"integrity_check: {answer}")


def name(trial: Trial) -> str:
    return f"trial-{trial.number:06d}"  # of one length: none is the beginning of another


def run(trials: list[Trial], keep: bool = False) -> tuple[list[Report], int, list[str]]:
    """Run a batch on this machine in a folder of its own."""
    return run_in_folder(lambda folder: Batch(folder, trials), keep)


def run_in_folder(make: Callable[[Path], Batch], keep: bool) -> tuple[list[Report], int, list[str]]:
    """Run a batch; its folder is kept for a look at it where something was wrong and ``keep`` is asked for."""
    with tempfile.TemporaryDirectory(prefix="mllaunch-faults-", ignore_cleanup_errors=True) as folder:
        os.environ.update(_GPUS)  # for attempts that this process starts, as any reading command might
        made = make(Path(folder, "h"))
        try:
            result = made.run()
        except Exception:
            result = [], 0, [traceback.format_exc()]  # as text, since not every exception can be sent on
        finally:
            made.close()
        if keep and (result[2] or any(report.faults for report in result[0])):
            kept = Path(f"{folder}-kept")
            Path(folder).rename(kept)
            Path(folder).mkdir()
            result[2].append(f"kept in {kept}")
        return result
