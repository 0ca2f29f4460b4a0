"""What is said of a run while one of its nodes is away."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.e2e.harness import Mllaunch, Repo, until
from tests.e2e.ssh.conftest import Nodes

pytestmark = pytest.mark.real("hosts")

COUNTING = """
import time
for number in range(6000):
    print(number, flush=True)
    time.sleep(0.1)
"""


def _has_printed(logs: str, number: str) -> bool:
    """Whether both ranks have."""
    return all(f"[{rank}] {number}\n" in logs for rank in (0, 1))


@pytest.fixture(autouse=True)
def _heal(nodes: Nodes) -> Iterator[None]:
    yield
    nodes[2].heal()


def test_show_says_which_nodes_do_not_answer_and_which_do_not_know_of_a_stop(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    run = mllaunch("submit", "--node", "node1", "--node", "node2", repo.script(COUNTING)).run_name
    until(lambda: _has_printed(mllaunch("logs", run).stdout, "5"), "some output of both")
    document = mllaunch("show", run, "--json", check=True).document
    assert (document["unreachable"], document["not_told"]) == ([], [])
    nodes[2].cut()
    [silence] = until(lambda: mllaunch.row(run)["unreachable"], "it to be noticed", 60)
    [entry] = mllaunch("nodes", "node2", "--json", check=True).document
    assert entry["state"] == "unreachable" and entry["last_seen"]  # no `nodes` before has seen it
    mllaunch("stop", run, check=True)
    shown = mllaunch("show", run, check=True).stdout
    assert f"  unreachable   node2 since {silence['since']}\n" in shown
    assert "  to stop       node2 does not know yet\n" in shown
    document = mllaunch("show", run, "--json", check=True).document
    assert (document["unreachable"], document["not_told"]) == ([silence], ["node2"])
    nodes[2].heal()
    mllaunch.wait_sealed(run)
    document = mllaunch("show", run, "--json", check=True).document
    assert (document["unreachable"], document["not_told"]) == ([], [])


def test_a_node_that_is_away_delays_nothing_that_is_here_or_on_others(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    run = mllaunch("submit", "--node", "node1", "--node", "node2", repo.script(COUNTING)).run_name
    # More than what is waited for below: when the very last lines came is told by the node later than the lines.
    until(lambda: _has_printed(mllaunch("logs", run).stdout, "25"), "some output of both")
    mllaunch.home.close(timeout_s=0)  # nobody looks after it in the background
    nodes[2].cut()
    began = time.monotonic()
    following = mllaunch.start("logs", "-f", run)
    following.wait_for("[1] 5\n")
    newest = following.stdout.count("[0] ")
    until(lambda: following.stdout.count("[0] ") > newest + 3, "what the other node prints")
    assert time.monotonic() - began < 7  # to reach the one that is away is tried for 8 s
    following.interrupt()
    said = following.end()
    assert said.rc == 130
    assert said.stderr.endswith(f"\nDetached; {run} goes on.   end: mllaunch stop {run}\n")

    until(lambda: mllaunch.row(run)["unreachable"], "it to be noticed", 60)
    absent = "node2 does not answer; what it prints comes later\n"
    for arguments in ((), ("--raw",), ("--stderr",)):
        before = len(mllaunch("logs", run, "--rank", "0").stdout.splitlines())
        began = time.monotonic()
        shown = mllaunch("logs", run, *arguments)
        assert time.monotonic() - began < 5
        assert shown.stderr == absent
        assert arguments == ("--stderr",) or shown.stdout.count("\n") > before  # what is there is asked for
    began = time.monotonic()
    mllaunch("show", run, check=True)
    assert time.monotonic() - began < 5
    following = mllaunch.start("logs", "-f", run)
    following.wait_for(absent)
    following.wait_for(re.findall(r"^\[1\] .*\n", mllaunch("logs", run).stdout, re.M)[-1])
    nodes[2].heal()
    mllaunch("stop", run, "--now", check=True)
    assert following.end().stderr == absent
