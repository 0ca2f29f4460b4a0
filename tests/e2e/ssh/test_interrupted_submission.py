"""Ctrl-C while a run is being started: either nothing starts, or the user is told that it goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.harness import Mllaunch, Repo, until
from tests.e2e.ssh.conftest import Nodes
from tests.testbed.wire import Settings

pytestmark = pytest.mark.real("hosts")


@pytest.fixture(autouse=True)
def _heal(nodes: Nodes) -> Iterator[None]:
    yield
    nodes[1].heal()


def test_a_run_that_is_on_its_way_to_its_nodes_is_withdrawn(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    script = repo.script("print('here')")
    assert mllaunch("run", "--node", "node1", script).rc == 0
    nodes[1].spoil(Settings(delay_s=0.3))  # what is asked of it takes 0.6 s
    submitting = mllaunch.start("submit", "--name", "late", "--node", "node1", "--node", "node2", script)
    until(
        lambda: any(row["name"] == "late" for row in mllaunch("ps", "--json").document), "it to be on record"
    )
    submitting.interrupt()
    said = submitting.end()
    assert said.rc == 130
    assert said.stderr.endswith("\nInterrupted; late was withdrawn, and nothing was started\n")
    assert mllaunch.row("late")["state"] == "cancelled"
    nodes[1].heal()
    assert mllaunch("logs", "late").stdout == ""
    until(lambda: not nodes.agents(), "nothing to be left", 30)


def test_a_run_that_has_started_when_ctrl_c_comes_is_named(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    script = repo.script("import time; time.sleep(5); print('here')")
    kept = nodes[1].folder / "disk/share/mllaunch/node/node1/runs"
    before = set(kept.glob("*"))
    nodes[1].spoil(Settings(delay_s=0.5))
    submitting = mllaunch.start("submit", "--name", "begun", "--node", "node1", script)
    until(lambda: any((new / "1/spec.json").exists() for new in set(kept.glob("*")) - before), "the start")
    submitting.interrupt()
    said = submitting.end()
    assert said.rc == 130
    assert "\nInterrupted; begun was submitted and goes on" in said.stderr
    assert "look: mllaunch show begun   end: mllaunch stop begun\n" in said.stderr
    nodes[1].heal()
    assert mllaunch.wait_sealed("begun")["state"] == "succeeded"
