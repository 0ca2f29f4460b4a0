"""The job goes on, and nothing of its record is lost, whatever happens between launcher and node."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.harness import Mllaunch, Repo, until
from tests.e2e.ssh.conftest import Nodes

pytestmark = pytest.mark.real("hosts")

SLEEPING = "import time; print('begun', flush=True); time.sleep(600)"
COUNTING = """
import sys, time
for number in range(int(sys.argv[1])):
    print(number, flush=True)
    time.sleep(0.1)
"""


def _row(mllaunch: Mllaunch) -> dict[str, Any]:
    """The newest run as `ps` lists it."""
    row: dict[str, Any] = mllaunch("ps", "--json", check=True).document[0]
    return row


def _numbers(count: int) -> str:
    return "".join(f"{number}\n" for number in range(count))


def test_a_link_that_is_cut_for_a_minute_loses_nothing_and_says_since_when(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    run = mllaunch("submit", "--node", "node1", repo.script(COUNTING), "800").run_name
    until(lambda: "5\n" in mllaunch("logs", run).stdout, "some output")
    nodes[1].cut()
    healed_s = time.monotonic() + 60
    try:
        row = until(
            lambda: (row := _row(mllaunch))["unreachable"] and row,
            "it to be noticed",
            60,
        )
        assert row["state"] == "running"
        assert [entry["node"] for entry in row["unreachable"]] == ["node1"]
        assert "node1 unreachable since" in mllaunch("ps").stdout
        time.sleep(max(0.0, healed_s - time.monotonic()))
    finally:
        nodes[1].heal()
    done = until(lambda: (row := _row(mllaunch))["seal"] and row, "the run to be sealed")
    assert (done["state"], done["seal"], done["unreachable"]) == ("succeeded", "sealed-complete", [])
    assert mllaunch("logs", run, "--raw").stdout == _numbers(800)


def test_a_stop_reaches_a_node_that_was_away(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    run = mllaunch("submit", "--node", "node1", repo.script(SLEEPING)).run_name
    until(lambda: "begun" in mllaunch("logs", run).stdout, "the task to begin")
    nodes[1].cut()
    try:
        assert "node1 cannot be reached, and will be told" in mllaunch("stop", run, check=True).stderr
    finally:
        nodes[1].heal()
    until(lambda: _row(mllaunch)["state"] == "cancelled", "the node to have heard of it")


def test_the_launcher_s_machine_may_go_away(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    run = mllaunch("submit", "--node", "node2", repo.script(COUNTING), "20").run_name
    mllaunch.home.close(timeout_s=0)  # every process of ours here is gone
    until(lambda: not nodes.agents(), "the run to end by itself")
    assert mllaunch("logs", run, "--raw").stdout == _numbers(20)
    assert mllaunch("show", run, "--json").document["seal"]["status"] == "sealed-complete"


def test_a_node_that_crashed_is_known_again_after_its_boot(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    run = mllaunch("submit", "--node", "node3", repo.script(COUNTING), "3000").run_name
    until(lambda: "5\n" in mllaunch("logs", run).stdout, "some output")
    nodes[3].crash()
    until(lambda: _row(mllaunch)["unreachable"], "it to be noticed", 60)
    assert _row(mllaunch)["state"] == "running"  # nobody knows yet
    nodes[3].boot()
    row = until(lambda: (row := _row(mllaunch))["seal"] and row, "the end to be known", 60)
    assert row["state"] == "failed" and row["unreachable"] == []
    assert row["exit_code"] is None  # nobody saw it


def test_sshd_may_be_started_anew(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    run = mllaunch("submit", "--node", "node1", repo.script(COUNTING), "50").run_name
    until(lambda: "5\n" in mllaunch("logs", run).stdout, "some output")
    nodes[1].run(
        "sh", "-c", "pkill -x sshd; sleep 0.5; /usr/sbin/sshd -f /host/sshd_config -E /host/sshd.log"
    )
    until(lambda: _row(mllaunch)["seal"], "the run to be sealed", 60)
    assert mllaunch("logs", run, "--raw").stdout == _numbers(50)
