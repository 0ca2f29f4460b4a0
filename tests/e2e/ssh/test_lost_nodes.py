"""A node that is silent for longer than the lease, or has lost what it kept; and that others do not wait for it."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.e2e.harness import Mllaunch, Repo, until
from tests.e2e.ssh.conftest import Nodes

pytestmark = pytest.mark.real("hosts")

COUNTING = """
import sys, time
for number in range(int(sys.argv[1])):
    print(number, flush=True)
    time.sleep(0.1)
"""
TIMES = """
import time
while True:
    print(time.time(), flush=True)
    time.sleep(0.05)
"""

ONCE_FOR_EVER = """
import os, time
print("attempt", os.environ["MLLAUNCH_ATTEMPT"], flush=True)
if os.environ["MLLAUNCH_ATTEMPT"] == "1":
    time.sleep(600)
"""


def _row(mllaunch: Mllaunch, run: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        row for row in mllaunch("ps", "--json", check=True).document if row["name"] == run
    )
    return found


def _numbers(count: int) -> str:
    return "".join(f"{number}\n" for number in range(count))


def test_a_run_is_lost_with_its_node_and_found_again_with_it(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    nodes.configure(lease="15s")
    run = mllaunch("submit", "--node", "node1", "--max-retries", "2", repo.script(COUNTING), "400").run_name
    until(lambda: "5\n" in mllaunch("logs", run).stdout, "some output")
    nodes[1].cut()
    try:
        row = until(lambda: (row := _row(mllaunch, run))["unreachable"] and row, "it to be noticed", 60)
        assert row["state"] == "running"
        row = until(lambda: (row := _row(mllaunch, run))["state"] == "failed" and row, "the lease to end", 60)
        assert (row["reason"]["code"], row["reason"]["node"]) == ("node_lost", "node1")
        assert (row["seal"], row["attempt"], row["reason"]["retryable"]) == ("unsealed", 1, False)
        assert f"node1 has not answered since {row['unreachable'][0]['since']}" in row["reason"]["message"]
        shown = mllaunch("show", run, check=True).stdout
        assert "node1 has not answered since" in shown
    finally:
        nodes[1].heal()
    done = until(lambda: (row := _row(mllaunch, run))["state"] == "succeeded" and row, "the truth", 120)
    assert (done["attempt"], done["unreachable"]) == (1, [])
    until(lambda: _row(mllaunch, run)["seal"] == "sealed-complete", "the record to be whole", 60)
    assert mllaunch("logs", run, "--raw").stdout == _numbers(400)


def test_a_lost_run_can_still_be_stopped(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    nodes.configure(lease="2s")
    run = mllaunch("submit", "--node", "node3", repo.script(COUNTING), "6000").run_name
    until(lambda: "5\n" in mllaunch("logs", run).stdout, "some output")
    nodes[3].cut()
    try:
        until(lambda: _row(mllaunch, run)["state"] == "failed", "the lease to end", 60)
        assert "node3 cannot be reached, and will be told" in mllaunch("stop", run, check=True).stderr
    finally:
        nodes[3].heal()
    until(lambda: _row(mllaunch, run)["state"] == "cancelled", "the node to have heard of it", 90)


def test_a_further_attempt_begins_only_when_every_node_has_said_that_the_old_one_is_over(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    nodes.configure(lease="15s")
    script = repo.script(ONCE_FOR_EVER)
    run = mllaunch("submit", "--nodes", "2", "--max-retries", "1", script).run_name
    until(lambda: mllaunch("logs", run).stdout.count("attempt 1") == 2, "both to begin")
    nodes[2].cut()
    try:
        row = until(lambda: (row := _row(mllaunch, run))["state"] == "failed" and row, "the lease to end", 90)
        assert (row["attempt"], row["reason"]["code"], row["reason"]["retryable"]) == (1, "node_lost", False)
        time.sleep(3)
        assert _row(mllaunch, run)["attempt"] == 1
    finally:
        nodes[2].heal()
    done = until(lambda: (row := _row(mllaunch, run))["state"] == "succeeded" and row, "the second", 120)
    assert done["attempt"] == 2
    attempts = mllaunch("show", run, "--json").document["attempts"]
    assert [attempt["state"] for attempt in attempts] == ["failed", "succeeded"]


@pytest.mark.parametrize("count", [1, 2])
def test_a_folder_that_was_removed_by_hand_ends_the_run(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch, count: int
) -> None:
    script = repo.script(COUNTING)
    run_id, run = mllaunch.submit("--nodes", str(count), script, "30")
    until(lambda: mllaunch("logs", run).stdout.count("5\n") >= count, "some output")
    mllaunch.home.close(timeout_s=0)
    until(lambda: not nodes.agents(), "the tasks to end by themselves", 60)
    lost = f"node{count}"
    nodes[count].run("rm", "-r", f"/root/.local/share/mllaunch/node/{lost}/runs/{run_id}")
    mllaunch("logs", run)
    row = until(lambda: (row := _row(mllaunch, run))["seal"] and row, "the run to end", 60)
    assert (row["state"], row["seal"]) == ("failed", "unsealed")
    assert (row["reason"]["code"], row["reason"]["node"]) == ("folder_lost", lost)


def test_a_node_that_is_away_delays_no_log_of_another(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    repo.script(TIMES)
    names = [mllaunch.submit("--node", f"node{n}", "train.py") for n in (1, 2, 3)]
    for _, name in names:
        until(lambda name=name: mllaunch("logs", name).stdout, "some output")
    stored = next(
        path for path in (mllaunch.home.path / "blobs").rglob("stdout.0") if names[1][0] in str(path)
    )
    nodes[1].cut()
    try:
        worst = 0.0
        end = time.monotonic() + 40
        while time.monotonic() < end:  # what the background collector alone brings
            with stored.open("rb") as file:
                file.seek(max(0, stored.stat().st_size - 200))
                newest = float(file.read().splitlines()[-1])
            worst = max(worst, time.time() - newest)
            time.sleep(0.02)
        print(f"worst delay while a node is away: {worst:.3f} s")
        assert "node1 unreachable since" in mllaunch("ps").stdout
    finally:
        nodes[1].heal()
        for _, name in names:
            mllaunch("stop", name, "--now")
    assert worst < 3.0  # one call to the node that is away takes 8 s; on an idle machine it is below 0.5
