"""`mllaunch ssh` to a run on nodes, through the user's own OpenSSH client."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.e2e.harness import Mllaunch, Repo, Result, until
from tests.e2e.ssh.conftest import Nodes

pytestmark = pytest.mark.real("hosts")

WAITING = """
import os, time
print("begun", flush=True)
while not os.path.exists("enough"):
    time.sleep(0.02)
"""
SAY = 'echo "$(uname -n): rank $RANK in $PWD of $MLLAUNCH_RUN_NAME with  $CUDA_VISIBLE_DEVICES"; exit 7'


def test_a_command_runs_on_the_node_of_its_rank_as_the_task_does(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch, terminal: Callable[..., Result]
) -> None:
    run = mllaunch(
        *("submit", "--node", "node3", "--node", "node1", "--gpus", "1", "--procs-per-node", "1"),
        repo.script(WAITING),
    ).run_name
    until(lambda: mllaunch("logs", run).stdout.count("begun") == 2, "both tasks to begin")
    for rank, node in enumerate(("node3", "node1")):
        done = mllaunch("ssh", run, "--rank", str(rank), "--", "sh", "-c", SAY)
        assert done.rc == 7
        assert done.stdout.startswith(f"{node}: rank {rank} in /root/.local/share/mllaunch/node/{node}/runs/")
        assert f"/work of {run} with  GPU-" in done.stdout
    # Typed blindly, as the shell's prompt is anybody's guess.
    done = terminal("ssh", run, type_after=("", "tty; touch enough; exit 3\r"))
    assert done.rc == 3 and "/dev/pts/" in done.stdout
    assert mllaunch("ssh", run, "--rank", "1", "--", "touch", "enough").rc == 0
    assert mllaunch.wait(run)["state"] == "succeeded"
    mllaunch.wait_sealed(run)
    done = mllaunch("ssh", run, "--rank", "1", "--", "ls")
    assert (done.rc, done.stdout) == (0, "enough\noutputs\n")
    assert f"rank 1 of {run} has ended" in done.stderr
    assert mllaunch("ssh", run, "--rank", "2").rc == 3


def test_without_openssh_and_without_the_node_it_is_said_what_is_missing(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    run = mllaunch("run", "--node", "node2", repo.script("open('written', 'w').close()")).run_name
    mllaunch.wait_sealed(run)
    done = mllaunch("ssh", run, "--", "true", env={"PATH": "/nowhere"})
    assert done.rc == 3
    assert (
        "error[no_program]: there is no ssh on your PATH" in done.stderr and "openssh-client" in done.stderr
    )
    nodes[2].crash()
    done = mllaunch("ssh", run, "--", "true")
    assert done.rc == 1
    assert "error[unreachable]: node2" in done.stderr
