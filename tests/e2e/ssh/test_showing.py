"""What is said of a run while one of its nodes is away."""

from __future__ import annotations

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


@pytest.fixture(autouse=True)
def _heal(nodes: Nodes) -> Iterator[None]:
    yield
    nodes[2].heal()


def test_show_says_which_nodes_do_not_answer_and_which_do_not_know_of_a_stop(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    run = mllaunch("submit", "--node", "node1", "--node", "node2", repo.script(COUNTING)).run_name
    until(lambda: mllaunch("logs", run).stdout.count("5\n") >= 2, "some output")
    document = mllaunch("show", run, "--json", check=True).document
    assert (document["unreachable"], document["not_told"]) == ([], [])
    nodes[2].cut()
    [silence] = until(lambda: mllaunch.row(run)["unreachable"], "it to be noticed", 60)
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
