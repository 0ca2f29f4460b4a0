"""Runs in containers, as a user sees them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.images import images_of
from tests.e2e.harness import SCRIPT, Home, Mllaunch, Repo, until
from tests.testbed.engine import Engine

pytestmark = pytest.mark.real("engine", "busybox")


@pytest.fixture(autouse=True)
def _configured(repo: Repo, tiny_image: str) -> None:
    repo.write("mllaunch.yaml", f"image: {{base: {tiny_image}}}\n")
    repo.write("code.txt", "as committed\n")
    repo.commit()


def sealed(mllaunch: Mllaunch, run: str = "@last") -> Any:
    """The provenance of a run, once its record is complete."""
    until(lambda: provenance(mllaunch, run)["seal"]["status"], f"{run} to be sealed")
    return provenance(mllaunch, run)


def provenance(mllaunch: Mllaunch, run: str) -> Any:
    return mllaunch("provenance", run, "--json", check=True).document


def raw(mllaunch: Mllaunch, *args: str) -> bytes:
    return bytes(mllaunch("logs", "@last", "--raw", *args, check=True).stdout_bytes)


def test_where_an_engine_answers_runs_are_containers_and_that_is_said(
    mllaunch: Mllaunch, engine: Engine
) -> None:
    done = mllaunch("run", "--", "sh", "-c", "cat code.txt; pwd; exit 3")
    assert done.rc == 3
    assert done.stdout == "as committed\n/workspace\n"
    assert re.search(r"✓ image  sha256:[0-9a-f]{64} \(new\), on \S+ alone, by Docker [0-9.]+", done.stderr)
    environment = sealed(mllaunch)["environment"]
    assert environment["runtime"] == "docker"
    assert re.fullmatch(r"Docker \S+ answers", environment["runtime_why"])
    assert environment["engine"]["name"] == "Engine"
    assert re.fullmatch("sha256:[0-9a-f]{64}", environment["image"]["digest"])


def test_a_process_is_run_where_that_is_asked_for_or_no_engine_answers(mllaunch: Mllaunch) -> None:
    assert "image" not in mllaunch("run", "--runtime", "process", "--", "true").stderr
    done = mllaunch("run", "--", "true", env={"DOCKER_HOST": "unix:///nowhere.sock"})
    assert (
        "- image  none, a process of this machine: no container engine answers at /nowhere.sock"
        in done.stderr
    )
    environment = sealed(mllaunch)["environment"]
    assert (environment["runtime"], environment["image"]) == ("process", None)
    assert environment["runtime_why"] == "no container engine answers at /nowhere.sock"


def test_two_submissions_of_one_commit_show_one_digest_whatever_their_arguments(mllaunch: Mllaunch) -> None:
    first = mllaunch("submit", "--json", "--", "echo", "1", check=True).document["image"]
    second = mllaunch("submit", "--json", "--env", "LR=3", "--", "echo", "2", check=True).document["image"]
    assert first == second
    assert "(cached)" in mllaunch("run", "--", "true").stderr


def test_nothing_that_is_not_committed_can_get_into_an_image(
    mllaunch: Mllaunch, repo: Repo, home: Home
) -> None:
    repo.write(".gitignore", "outputs/\n.env\n__pycache__/\n")
    repo.commit()
    repo.write(".env", "TOKEN=secret")
    repo.write("__pycache__/code.pyc", "bytecode")
    done = mllaunch("run", "--", "sh", "-c", "find . -type f | sort", check=True)
    assert done.stdout.split() == ["./.gitignore", "./code.txt", "./mllaunch.yaml"]
    repo.write("untracked.py", "x = 1")
    refused = mllaunch("run", "--", "true")
    assert (refused.rc, "untracked.py" in refused.stderr) == (2, True)
    done = mllaunch("run", "--allow-dirty", "--", "cat", "untracked.py", check=True)
    assert done.stdout == "x = 1"


def test_a_container_has_no_more_rights_than_it_needs(mllaunch: Mllaunch, home: Home) -> None:
    script = "grep -E '^(Cap|NoNewPrivs)' /proc/1/status; id -u; ls /var/run /run 2>/dev/null; env; cat /proc/1/comm"
    done = mllaunch("run", "--", "sh", "-c", script, env={"HF_TOKEN": "hf_abcdefghijklmnopqrstuvwxyz012345"})
    assert done.rc == 0
    capabilities = dict(line.split(":\t") for line in done.stdout.splitlines() if ":\t" in line)
    assert capabilities["NoNewPrivs"] == "1"
    assert {value for name, value in capabilities.items() if name.startswith("Cap")} == {"0" * 16}
    assert f"\n{os.getuid()}\n" in done.stdout
    assert "docker.sock" not in done.stdout
    assert "HF_TOKEN" not in done.stdout, "variables of the submitter's that nobody named"
    assert "docker-init" in done.stdout


def test_data_cannot_be_written_to_and_mounts_only_where_that_is_said(
    mllaunch: Mllaunch, repo: Repo, tmp_path: Path, tiny_image: str
) -> None:
    for name in ("shared", "scratch"):
        (tmp_path / name).mkdir()
    mounts = f"[{tmp_path}/shared, '{tmp_path}/scratch:/scratch:rw']"
    repo.write("mllaunch.yaml", f"image: {{base: {tiny_image}}}\ncontainer: {{mounts: {mounts}}}\n")
    repo.write(".gitignore", "outputs/\ndata/\n")
    repo.commit()
    repo.write("data/a.csv", "1\n")
    script = f"echo x > /scratch/x; echo x > {tmp_path}/shared/x; echo x >> data/a.csv; cat data/a.csv"
    done = mllaunch("run", "--data", "data", "--", "sh", "-c", script)
    assert done.stdout == "1\n"
    assert done.stderr.count("Read-only file system") == 2
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["x"]
    assert not list((tmp_path / "shared").iterdir())


@pytest.mark.real("gcc")
def test_an_image_without_a_shell_works_and_its_output_comes_through_the_engine(
    mllaunch: Mllaunch, bare_image: str
) -> None:
    done = mllaunch("run", "--image", bare_image, "--", "/bare", "4", "one", "two")
    assert done.rc == 4
    found = sealed(mllaunch)
    assert {log["through"] for log in found["logs"]} == {"engine"}
    assert b"one\ntwo\n" in raw(mllaunch)
    assert raw(mllaunch, "--stderr")


def test_running_out_of_memory_is_named(mllaunch: Mllaunch) -> None:
    script = "x=a; while :; do x=$x$x; done"
    done = mllaunch("run", "--memory", "32MiB", "--", "sh", "-c", script)
    assert done.rc == 137
    assert "out of memory" in done.stderr
    assert mllaunch.row("@last")["reason"]["code"] == "out_of_memory"


def test_code_that_is_changed_inside_a_container_is_seen(mllaunch: Mllaunch) -> None:
    script = "sleep 0.5; echo changed >> code.txt; sleep 4; rm mllaunch.yaml; echo 'x = 1' > new.py"
    run = mllaunch("submit", "--", "sh", "-c", script, check=True).run_name
    until(lambda: provenance(mllaunch, run)["code"]["changes"], "the change to be seen while the run goes on")
    assert mllaunch.row(run)["state"] == "running"
    changes = {change["path"]: change for change in sealed(mllaunch, run)["code"]["changes"]}
    assert set(changes) == {"code.txt", "mllaunch.yaml", "new.py"}
    blob = (
        subprocess.run(
            ["git", "hash-object", "--stdin"],
            input=b"as committed\nchanged\n",
            capture_output=True,
            check=True,
        )
        .stdout.decode()
        .strip()
    )
    assert changes["code.txt"]["after"] == blob
    assert changes["mllaunch.yaml"]["after"] is None
    assert changes["new.py"]["before"] is None
    shown = mllaunch("show", run, check=True).stdout
    assert all(f"{path}, " in shown for path in ("code.txt", "mllaunch.yaml", "new.py"))
    assert "code was changed during the run" in shown


def test_the_use_of_the_container_is_measured_and_the_machines_beside_it(mllaunch: Mllaunch) -> None:
    script = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; sleep 1.5"
    run = mllaunch("submit", "--", "sh", "-c", script, check=True).run_name
    document = sealed(mllaunch, run)
    assert document["usage"]["cpu_s"] > 0
    samples = (mllaunch.home.attempt(document["run"]["id"]) / "streams" / "samples").read_text().splitlines()
    header = json.loads(samples[0])
    readings = [dict(zip(header["columns"], json.loads(line), strict=True)) for line in samples[1:]]
    reading = max(
        readings, key=lambda reading: reading["container.memory_bytes"] or 0
    )  # the last may be of its end
    assert reading["container.cpu_s"] > 0
    assert 0 < reading["container.memory_bytes"] < reading["host_memory_used_bytes"]


def test_a_digest_alone_leads_to_the_runs_of_an_image(mllaunch: Mllaunch) -> None:
    document = mllaunch("submit", "--json", "--", "true", check=True).document
    digest = document["image"]["digest"]
    found = mllaunch("provenance", digest, "--json", check=True).document
    assert [place["run"]["name"] for place in found["image_of"]] == [document["run"]["name"]]
    assert document["run"]["name"] in mllaunch("provenance", digest, check=True).stdout


def test_a_dry_run_shows_the_dockerfile_and_makes_nothing(mllaunch: Mllaunch, engine: Engine) -> None:
    before = images_of(engine)
    done = mllaunch("submit", "--dry-run", "--", "true", check=True)
    assert "FROM --platform=linux/" in done.stdout
    assert 'ADD ["code.tar", "/"]' in done.stdout
    assert "would be built" in done.stdout
    planned = mllaunch("submit", "--dry-run", "--json", "--", "true", check=True).document
    assert planned["image"]["dockerfile"] in done.stdout
    assert images_of(engine) == before
    assert not mllaunch("ps", "-a", "--json", check=True).document


def test_images_can_be_built_shown_and_removed(mllaunch: Mllaunch, engine: Engine, repo: Repo) -> None:
    digest = mllaunch("image", "build", check=True).stdout.strip()
    assert mllaunch("image", "build", "--json", check=True).document["digest"] == digest
    done = mllaunch("run", "--", "true", check=True)
    assert digest in done.stderr
    assert digest in mllaunch("image", "show", "@last", check=True).stdout
    assert repo.git("rev-parse", "HEAD")[:12] in mllaunch("image", "show", check=True).stdout
    sealed(mllaunch)
    mllaunch("image", "prune", "--dry-run", check=True)
    assert engine.docker("image", "inspect", digest).returncode == 0
    assert "removed" in mllaunch("image", "prune", check=True).stdout
    assert engine.docker("image", "inspect", digest, check=False).returncode != 0
    assert digest in mllaunch("run", "--", "true", check=True).stderr, "the same commit gave another image"


def test_several_tasks_share_a_machine(mllaunch: Mllaunch) -> None:
    script = 'echo "$RANK of $WORLD_SIZE" > $MLLAUNCH_OUTPUT_DIR/rank-$RANK.txt; echo x > here.txt'
    done = mllaunch("run", "--procs-per-node", "3", "--", "sh", "-c", script)
    assert done.rc == 0
    sealed(mllaunch)
    files = {entry["path"] for entry in mllaunch("files", "@last", "--json", check=True).document["files"]}
    assert {f"outputs/rank-{rank}.txt" for rank in range(3)} < files
    assert {"here.txt", "rank-1/here.txt", "rank-2/here.txt"} < files


def test_a_stop_reaches_a_run_that_waits_for_nothing_but_its_start(mllaunch: Mllaunch) -> None:
    run = mllaunch("submit", "--", "sleep", "60", check=True).run_name
    mllaunch("stop", run, "--now", check=True)
    row = mllaunch.wait(run)
    assert row["state"] == "cancelled"
    sealed(mllaunch, run)


def test_plain_commands_do_not_import_what_containers_take(home: Home, repo: Repo) -> None:
    program = (
        "import sys; sys.argv = ['mllaunch', 'submit', '--', 'true']\n"
        "import os; leave = os._exit\n"
        "def told(code):\n"
        "    print(*sorted({'docker', 'requests', 'tarfile', 'http.client'} & set(sys.modules)), flush=True)\n"
        "    leave(code)\n"
        "os._exit = told\n"
        "from mllaunch.cli.main import main; main()\n"
    )
    environ = {**home.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [SCRIPT, "submit", "--", "true"], cwd=repo.root, env=environ, check=True, capture_output=True
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=repo.root,
        env=environ,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "", "a submission that finds its image is to stay quick"


def test_ssh_leads_into_the_container_of_a_task(mllaunch: Mllaunch) -> None:
    waiting = "echo begun; while [ ! -e enough ]; do sleep 0.1; done"
    run = mllaunch("submit", "--", "sh", "-c", waiting).run_name
    until(lambda: "begun" in mllaunch("logs", run).stdout, "the task to begin")
    done = mllaunch("ssh", run, "--", "sh", "-c", "echo $PWD $RANK $MLLAUNCH_RUN_NAME; cat code.txt; exit 7")
    assert (done.rc, done.stdout) == (7, f"/workspace 0 {run}\nas committed\n")
    # A shell without a terminal reads what it is to do.
    assert mllaunch("ssh", run, stdin=b"touch enough; exit 3").rc == 3
    assert mllaunch.wait(run)["state"] == "succeeded"
    sealed(mllaunch, run)
    done = mllaunch("ssh", run, "--", "true")
    assert f"rank 0 of {run} has ended" in done.stderr
