"""The distributed example on three nodes, by gloo on their processors: trained, killed, resumed; in both runtimes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.coverage import packages
from tests.e2e.harness import Home, Mllaunch, Repo, until
from tests.e2e.ssh.conftest import Nodes
from tests.testbed.engine import CACHE, REPOSITORY, Engine

pytestmark = [pytest.mark.real("hosts"), pytest.mark.real("torch")]


def example(nodes: Nodes, repo: Repo, more: str, python: str | None) -> None:
    """The example's script in the repository, with the test's nodes in place of the README's."""
    shutil.copy(REPOSITORY / "examples/ddp/train.py", repo.root)
    resume_args = 'resume_args: ["--resume", "{checkpoint}"]'
    nodes.configure(f"resources: {{nodes: 3}}\n{resume_args}\n{more}", python=python)


def sealed(mllaunch: Mllaunch, run: str) -> Any:
    return until(
        lambda: (d := mllaunch("provenance", run, "--json").document)["seal"]["status"] and d,
        "the record to be complete",
    )


def epochs(output: str) -> list[int]:
    return [int(number) for number in re.findall(r"epoch (\d+)/", output)]


def is_killed_and_resumed(nodes: Nodes, mllaunch: Mllaunch, cause: str) -> None:
    """cause: what the run gives as the reason of its end when its task on the second node was killed."""
    submitted = mllaunch("submit", "--json", "train.py", "--epochs", "100000", check=True).document
    run = submitted["run"]["name"]
    ranks = {place["node"]: place["ranks"] for place in submitted["placement"]}
    until(lambda: len(epochs(mllaunch("logs", run).stdout)) >= 2, "two epochs")
    nodes[2].run("pkill", "-KILL", "-f", "train.py --epochs 100000")
    told = until(
        lambda: (
            (d := mllaunch("show", run, "--json").document)["run"]["state"] not in ("running", "queued") and d
        ),
        "the run to end",
    )
    reason = told["run"]["reason"]
    assert (told["run"]["state"], reason["node"], [reason["rank"]]) == ("failed", "node2", ranks["node2"])
    assert reason["message"] == cause
    document = sealed(mllaunch, run)
    last = max(
        entry["step"]
        for entry in document["outputs"]
        if entry["kind"] == "checkpoint" and entry["digest"] and entry["path"].endswith(".pt")
    )
    done = mllaunch("resume", run, "-f", "--", "--epochs", str(last + 2))
    assert done.rc == 0, done
    assert epochs(done.stdout) == [last + 1, last + 2] and "on 3 tasks" in done.stdout
    document = sealed(mllaunch, done.run_name)
    [parent] = document["lineage"]["parents"]
    assert (parent["name"], parent["kind"], parent["step"]) == (run, "resume", last)
    read = [entry for entry in document["inputs"] if entry["kind"] == "checkpoint"]
    assert {by["node"] for entry in read for by in entry["by"]} == {"node1", "node2", "node3"}
    assert {(entry["produced_by"]["name"], entry["produced_by"]["step"]) for entry in read} == {(run, last)}
    assert {entry["node"] for entry in document["code"]["nodes"] if entry["matches_commit"]} == {
        "node1",
        "node2",
        "node3",
    }


def test_three_nodes_train_one_model_are_killed_and_go_on_as_processes(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    python, problem = packages.python()
    assert python is not None, problem
    example(nodes, repo, "", f"/shared/{Path(python).relative_to(CACHE)}")
    is_killed_and_resumed(nodes, mllaunch, "killed by SIGKILL")


@pytest.mark.real("engine", "mmdebstrap")
def test_three_nodes_train_one_model_are_killed_and_go_on_in_containers(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch, home: Home, engine: Engine, python_image: str
) -> None:
    python, problem = packages.python()
    assert python is not None, problem
    home.environ.update(engine.environment)
    nodes.start_engines()
    # torch itself need not go into three images: the nodes have it on their disks.
    installed = next((Path(python).parents[1] / "lib").glob("python3*/site-packages")).relative_to(CACHE)
    more = f"image: {{base: {python_image}}}\ncontainer: {{mounts: ['/shared/{installed}:/packages']}}\n"
    example(nodes, repo, more + "env: [PYTHONPATH=/packages]\n", None)
    is_killed_and_resumed(nodes, mllaunch, "exited with 137 (128 + SIGKILL)")
