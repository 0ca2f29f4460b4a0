"""GPUs of nodes: leased there, whoever asks; several nodes all or none, in one order for everybody."""

from __future__ import annotations

import pytest

from tests.e2e.harness import Home, Mllaunch, Repo, until
from tests.e2e.ssh.conftest import Nodes

pytestmark = pytest.mark.real("hosts")

HOLDING = """
import os, time
print("begun with", os.environ["CUDA_VISIBLE_DEVICES"], flush=True)
while not os.path.exists("/tmp/let-go"):
    time.sleep(0.01)
"""
# Fails if another task has the same GPU at the same time.
ALONE = """
import os, time
for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(","):
    os.close(os.open("/tmp/in-use-" + gpu, os.O_CREAT | os.O_EXCL))
time.sleep(0.2)
for gpu in os.environ["CUDA_VISIBLE_DEVICES"].split(","):
    os.unlink("/tmp/in-use-" + gpu)
"""


def test_a_run_goes_where_gpus_are_free_and_nodes_shows_who_holds_the_others(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    repo.script(HOLDING)
    try:
        first = mllaunch("submit", "--gpus", "3", "train.py")
        second = mllaunch("submit", "--gpus", "4", "train.py")
        third = mllaunch("submit", "--gpus", "1", "train.py")
        assert "placed node1:0-2 via ssh" in first.stderr
        assert "placed node2:0-3 via ssh" in second.stderr
        assert (
            "placed node1:3 via ssh" in third.stderr
        )  # what is small fills up, so that room for large runs is left
        shown = {entry["name"]: entry for entry in mllaunch("nodes", "--json", check=True).document}
        assert [shown[name]["gpus_free"] for name in ("node1", "node2", "node3")] == [0, 0, 4]
        held = [gpu["held_by"]["run"] for gpu in shown["node1"]["gpus"]]
        assert held == [first.run_name] * 3 + [third.run_name]
        waiting = mllaunch("submit", "--gpus", "4", "--node", "node2", "train.py")
        assert f"queued node2 via ssh: waits for 4 GPUs; held by {second.run_name} (root)" in waiting.stderr
    finally:
        for number in (1, 2, 3):
            nodes[number].run("touch", "/tmp/let-go")
    until(lambda: all(row["seal"] for row in mllaunch("ps", "--json").document), "all runs to end")
    assert {row["state"] for row in mllaunch("ps", "--json").document} == {"succeeded"}
    for number in (1, 2, 3):
        nodes[number].run("rm", "/tmp/let-go")


def test_two_launchers_that_want_the_same_nodes_the_other_way_round_both_get_them(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch, other_home: Home
) -> None:
    repo.script(ALONE)
    other = Mllaunch(other_home, repo.root)
    ways = (("node1", "node2", "node3"), ("node3", "node2", "node1"), ("node2", "node3", "node1"))
    for way in ways:
        named = [word for node in way for word in ("--node", node)]
        for who in (mllaunch, other):
            who("submit", "--gpus", "4", *named, "train.py", check=True)
    for who in (mllaunch, other):
        until(lambda who=who: all(row["seal"] for row in who("ps", "--json").document), "all runs to end")
        assert [row["state"] for row in who("ps", "--json").document] == ["succeeded"] * 3
    other.close()


def test_one_machine_under_two_names_is_refused_for_gpus_and_serves_as_two_nodes_without(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    python = "python: /usr/bin/python3"
    repo.write(
        "mllaunch.yaml",
        f"backend: ssh\nnodes: [{{name: node1, {python}}}, {{name: twin, host: node1, {python}}}]\n"
        f"ssh: {{config: {nodes.hosts.config}}}\n",
    )
    script = repo.script("import os; print(os.environ['NODE_RANK'])")
    named = ("--node", "node1", "--node", "twin")
    refused = mllaunch("run", "--gpus", "1", *named, script)
    assert refused.rc == 1
    assert "node1 and twin are the same machine; name it once" in refused.stderr
    done = mllaunch("run", *named, script)
    assert (done.rc, sorted(line[-1] for line in done.stdout.splitlines())) == (0, ["0", "1"])
