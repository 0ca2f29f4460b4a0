"""`mllaunch ssh` to a run of this machine: a shell, or a command, where the task is."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness import Home, Mllaunch, Repo, Result, until

GPUS = {"MLLAUNCH_FAKE_GPUS": "2"}
WAITING = """
import os, time
print("begun", flush=True)
while not os.path.exists("enough"):
    time.sleep(0.02)
"""


@pytest.fixture
def run(repo: Repo, mllaunch: Mllaunch) -> str:
    """One that waits for a file `enough` in its work folder."""
    name = mllaunch(
        "submit", "--env", "API_TOKEN=sesame", "--gpus", "1", repo.script(WAITING), env=GPUS
    ).run_name
    until(lambda: "begun" in mllaunch("logs", name).stdout, "the task to begin")
    return name


def test_a_command_has_the_tasks_folder_and_environment_and_its_own_exit_code(
    run: str, mllaunch: Mllaunch, home: Home
) -> None:
    said = 'pwd; echo "$RANK of $WORLD_SIZE, $MLLAUNCH_RUN_NAME, $API_TOKEN, ${CUDA_VISIBLE_DEVICES%%-*}"; exit 7'
    done = mllaunch("ssh", run, "--", "sh", "-c", said)
    folder = home.attempt(mllaunch.row(run)["id"]) / "work"
    assert (done.rc, done.stdout, done.stderr) == (7, f"{folder}\n0 of 1, {run}, sesame, GPU\n", "")
    assert mllaunch("ssh", run, "--", "cat", stdin=b"what is given\n").stdout == "what is given\n"
    assert mllaunch("ssh", run, "--", "touch", "enough").rc == 0
    assert mllaunch.wait(run)["state"] == "succeeded"


def test_who_looks_on_is_no_part_of_the_run(run: str, mllaunch: Mllaunch, tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"weights")
    mllaunch("ssh", run, "--", "python3", "-c", f"open('{tmp_path}/weights.pt', 'rb').read()", check=True)
    staying = mllaunch.start("ssh", run, "--", "sleep", "600")
    until(lambda: _sleeps(staying.process.pid), "the command to begin")
    mllaunch("ssh", run, "--", "touch", "enough", check=True)
    began_s = time.monotonic()
    mllaunch.wait_sealed(run)
    assert time.monotonic() - began_s < 20  # it is not waited for as what a task leaves behind is: 30 s
    assert staying.process.poll() is None
    staying.close()
    document = mllaunch("provenance", run, "--json", check=True).document
    assert document["run"]["state"] == "succeeded"
    assert not [entry["path"] for entry in document["inputs"] if "weights" in entry["path"]]


def _sleeps(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"sleep")


def test_without_a_command_it_is_a_shell_on_the_terminal(
    run: str, mllaunch: Mllaunch, terminal: Callable[..., Result]
) -> None:
    done = terminal(
        "ssh",
        run,
        env={"SHELL": "/bin/sh", "PS1": "> "},
        type_after=("", "touch enough; echo $RANK-$$-; exit 3\r"),
    )
    assert done.rc == 3
    assert "0-" in done.stdout
    assert mllaunch.wait(run)["state"] == "succeeded"


def test_an_ended_run_is_entered_where_its_work_folder_is_and_that_is_said(
    repo: Repo, mllaunch: Mllaunch
) -> None:
    run = mllaunch("run", repo.script("open('outputs/a.txt', 'w').write('a')")).run_name
    mllaunch.wait_sealed(run)
    done = mllaunch("ssh", run, "--", "sh", "-c", "ls outputs; echo rank $RANK")
    assert (done.rc, done.stdout) == (0, "a.txt\nrank\n")
    assert f"rank 0 of {run} has ended: this is its work folder, without its environment" in done.stderr
    mllaunch("prune", "--outputs", "--yes", run, check=True)
    done = mllaunch("ssh", run, "--", "true")
    assert done.rc == 3
    assert f"error[gone]: nothing is left of {run} on " in done.stderr


def test_what_cannot_be_entered_says_why(repo: Repo, mllaunch: Mllaunch, home: Home) -> None:
    repo.script("import time; time.sleep(600)")
    busy = mllaunch("submit", "--gpus", "2", "train.py", env=GPUS).run_name
    until(lambda: mllaunch.row(busy)["state"] == "running", "the first to run")
    waits = mllaunch("submit", "--gpus", "1", "train.py", env=GPUS).run_name
    done = mllaunch("ssh", waits, "--", "true")
    assert done.rc == 1
    assert f"error[not_started]: {waits} has not started: waits for 1 GPU; held by {busy}" in done.stderr
    done = mllaunch("ssh", busy, "--rank", "3", "--", "true")
    assert (done.rc, done.stderr) == (3, f"error[rank]: {busy} has ranks 0 to 0, not 3\n")
    assert mllaunch("ssh", "nobody-1", "--", "true").rc == 3
    done = mllaunch("ssh", busy, "--", "no-such-program")
    assert (done.rc, done.stderr) == (127, "error[no_program]: no-such-program: No such file or directory\n")
    for run in (busy, waits):
        mllaunch("stop", "--now", run)
        mllaunch.wait_sealed(run)
