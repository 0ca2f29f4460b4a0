"""Runs on several nodes at once: they begin together, end together, and say who failed first."""

from __future__ import annotations

import json

import pytest

from tests.e2e.harness import Mllaunch, Repo, until
from tests.e2e.ssh.conftest import Nodes

pytestmark = pytest.mark.real("hosts")

TELLING = """
import json, os
names = "RANK LOCAL_RANK NODE_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT PET_NNODES".split()
print(json.dumps({**{name: os.environ[name] for name in names}, "host": os.uname().nodename}), flush=True)
"""
FAILING = """
import os, sys, time
print("begun", flush=True)
if os.environ["RANK"] == sys.argv[1]:
    while not os.path.exists("/tmp/fail-now"):
        time.sleep(0.01)
    os.kill(os.getpid(), int(sys.argv[2]))
time.sleep(600)
"""
FAILING_ONCE = "import os; raise SystemExit(os.environ['MLLAUNCH_ATTEMPT'] == '1' == os.environ['RANK'])"
MEETING = """
import os, socket, time
rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
place = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
if rank == 0:
    server = socket.create_server(("", place[1]))
    for _ in range(count - 1):
        server.accept()[0].close()
    print("all came")
else:
    while True:
        try:
            socket.create_connection(place, 5).close()
            break
        except OSError:
            time.sleep(0.05)
"""


def test_every_task_knows_its_place_among_all(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    done = mllaunch("run", "--nodes", "3", "--procs-per-node", "2", repo.script(TELLING))
    assert done.rc == 0, done
    told = [json.loads(line[line.index("{") :]) for line in done.stdout.splitlines()]
    by_rank = {int(entry["RANK"]): entry for entry in told}
    assert sorted(by_rank) == [0, 1, 2, 3, 4, 5]
    assert [by_rank[rank]["host"] for rank in range(6)] == ["node1"] * 2 + ["node2"] * 2 + ["node3"] * 2
    assert [by_rank[rank]["NODE_RANK"] for rank in range(6)] == ["0", "0", "1", "1", "2", "2"]
    assert {entry["WORLD_SIZE"] for entry in told} == {"6"} and {entry["PET_NNODES"] for entry in told} == {
        "3"
    }
    assert {entry["MASTER_ADDR"] for entry in told} == {nodes[1].address}
    assert len({entry["MASTER_PORT"] for entry in told}) == 1


def test_the_others_reach_the_first_task(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    done = mllaunch("run", "--node", "node3", "--node", "node1", "--node", "node2", repo.script(MEETING))
    assert done.rc == 0 and "all came" in done.stdout
    assert "placed node3, node1, node2" in done.stderr


@pytest.mark.parametrize(("rank", "node"), [(0, "node1"), (2, "node3")])
def test_when_one_fails_all_are_stopped_and_the_first_failure_is_named(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch, rank: int, node: str
) -> None:
    run = mllaunch("submit", "--nodes", "3", repo.script(FAILING), str(rank), "9").run_name
    until(lambda: mllaunch("logs", run).stdout.count("begun") == 3, "all to begin")
    # The launcher's machine is off: nobody is there to carry the news.
    mllaunch.home.close(timeout_s=0)
    nodes[int(node[-1])].run("touch", "/tmp/fail-now")
    until(lambda: not nodes.agents(), "every node to have ended", 15)
    nodes[int(node[-1])].run("rm", "/tmp/fail-now")
    document = mllaunch("show", run, "--json").document
    assert document["run"]["state"] == "failed"
    reason = document["run"]["reason"]
    assert (reason["code"], reason["node"], reason["rank"]) == ("signal", node, rank)
    assert document["run"]["exit_code"] == 137
    why = f"killed by SIGKILL (rank {rank} on {node})"
    for words in (("show", run), ("ps",), ("provenance", run)):
        assert why in mllaunch(*words, check=True).stdout


def test_a_stop_reaches_every_node(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    run = mllaunch("submit", "--nodes", "3", repo.script(FAILING), "-1", "9").run_name
    until(lambda: mllaunch("logs", run).stdout.count("begun") == 3, "all to begin")
    assert "cancelled" in mllaunch("stop", run, check=True).stderr
    assert mllaunch("show", run, check=True).stdout.count("to stop") == 1


def test_further_attempts_begin_on_all_nodes_again(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    script = repo.script(FAILING_ONCE)
    done = mllaunch("run", "--nodes", "3", "--max-retries", "2", script)
    assert done.rc == 0
    attempts = mllaunch("show", done.run_name, "--json").document["attempts"]
    assert [attempt["state"] for attempt in attempts] == ["failed", "succeeded"]


def test_logs_of_all_ranks_are_merged_and_marked(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    run = mllaunch(
        "run", "--nodes", "2", repo.script("import os; print('I am', os.environ['RANK'])")
    ).run_name
    shown = mllaunch("logs", run).stdout
    assert sorted(shown.splitlines()) == ["[0] I am 0", "[1] I am 1"]
    assert mllaunch("logs", run, "--rank", "1").stdout == "I am 1\n"
    assert mllaunch("logs", run, "--rank", "1", "--raw").stdout == "I am 1\n"
    assert mllaunch("logs", run, "--rank", "2").rc == 3


def test_a_dry_run_says_where_it_would_go_and_sends_nothing(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    told = mllaunch("submit", "--dry-run", "--node", "node2", "--node", "node1", repo.script("print(1)"))
    assert "on          node2, node1 via ssh, 1 task each" in told.stdout
    document = mllaunch("submit", "--dry-run", "--json", "--nodes", "2", "train.py").document
    assert [place["ranks"] for place in document["placement"]] == [[0], [1]]
    assert mllaunch("ps", "--json").document == []


def test_a_run_that_is_resumed_on_fewer_nodes_says_so(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    writing = """
    import os
    with open(os.environ["MLLAUNCH_OUTPUT_DIR"] + "/model.pt", "wb") as file:
        file.write(b"weights" * 1000000)
    """
    run = mllaunch("run", "--nodes", "2", repo.script(writing), check=True).run_name
    same = mllaunch("resume", run, "--wait", check=True)
    assert " tasks " not in same.stderr
    fewer = mllaunch("resume", run, "--node", "node3", "--wait", check=True)
    assert f"! tasks  1 task on 1 node; {run} had 2 tasks on 2 nodes\n" in fewer.stderr
