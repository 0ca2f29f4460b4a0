"""What runs and their code take of the nodes' disks: freed once the run log has it, and never before."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e.harness import Mllaunch, Repo, until
from tests.e2e.ssh.conftest import Nodes

pytestmark = pytest.mark.real("hosts")

WRITING = """
import os
print("hello " * 10000)
if os.environ["RANK"] == "0":
    open(os.environ["MLLAUNCH_OUTPUT_DIR"] + "/a.pt", "wb").write(b"weights" * 100_000)
"""
ALL = ("prune", "--older-than", "0s", "--yes")


def home(nodes: Nodes, number: int) -> Path:
    return nodes[number].folder / f"disk/share/mllaunch/node/node{number}"


def attempt(nodes: Nodes, number: int, run_id: str) -> Path:
    return home(nodes, number) / "runs" / run_id / "1"


def freed(nodes: Nodes, mllaunch: Mllaunch, run_id: str, *numbers: int) -> None:
    """Wait until the nodes have freed their copies of a run's streams."""
    until(
        lambda: not [n for n in numbers if (attempt(nodes, n, run_id) / "streams").exists()],
        "the streams to be freed",
    )


def test_streams_are_freed_once_the_run_log_has_them_and_what_was_written_stays(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch, tmp_path: Path
) -> None:
    repo.script(WRITING)
    run_id, name = mllaunch.submit("--nodes", "2", "train.py")
    mllaunch.wait_sealed(name)
    freed(nodes, mllaunch, run_id, 1, 2)
    assert mllaunch("logs", name, "--raw", check=True).stdout.startswith("hello hello")
    assert not attempt(nodes, 2, run_id).exists()  # nothing was written there
    mllaunch("pull", name, str(tmp_path / "d"), check=True)
    assert (tmp_path / "d/outputs/a.pt").read_bytes() == b"weights" * 100_000
    assert mllaunch("show", name, "--json").document["seal"]["status"] == "sealed-complete"


def test_nothing_is_freed_while_the_run_log_has_it_not(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    run_id, name = mllaunch.submit("--node", "node1", repo.script(WRITING))
    mllaunch.home.close(timeout_s=0)  # nobody is there to take it
    until(lambda: not nodes.agents(), "the run to end by itself")
    assert (attempt(nodes, 1, run_id) / "streams/stdout.0").is_file()
    mllaunch.wait_sealed(name)
    mllaunch("ps")
    freed(nodes, mllaunch, run_id, 1)


def test_prune_says_what_lies_on_which_node_and_frees_outputs_when_asked_to(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    repo.script(WRITING)
    run_id, name = mllaunch.submit("--node", "node2", "train.py")
    mllaunch.wait_sealed(name)
    freed(nodes, mllaunch, run_id, 2)
    plan = mllaunch("prune", name, "--outputs", "--dry-run", "--json", check=True).document
    [entry] = plan["runs"]
    assert (entry["node"], entry["outputs"]) == ("node2", True)
    assert entry["frees_bytes"] >= 700_000
    assert (attempt(nodes, 2, run_id) / "work/outputs/a.pt").is_file()
    done = mllaunch("prune", name, "--outputs", "--yes", check=True)
    assert f"{name} " in done.stdout and "outputs on node2" in done.stdout
    assert not (home(nodes, 2) / "runs" / run_id).exists()
    assert mllaunch("pull", name, str(mllaunch.home.user / "d")).rc == 1


def test_code_that_no_run_uses_goes_and_is_sent_again_when_it_is_wanted(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    repo.script("print('hello')  # and no other test says it so\n")
    kept = home(nodes, 3)

    def code() -> set[Path]:
        return {*kept.glob("trees/*"), *kept.glob("contents/*/*")}

    before = code()  # of other tests' runs, which may use it yet
    old = kept / "agents" / ("a" * 64)
    (old / "mllaunch_agent").mkdir(parents=True)
    hours_ago = time.time() - 7200
    os.utime(old, (hours_ago, hours_ago))
    _, name = mllaunch.submit("--node", "node3", "train.py")
    mllaunch.wait_sealed(name)
    mllaunch.home.close(timeout_s=20)
    own = code() - before
    assert own
    looked = mllaunch("prune", "--older-than", "0s", "--dry-run", check=True)
    assert "code on node3" in looked.stdout and "1 agent" in looked.stdout and old.is_dir()
    mllaunch(*ALL, check=True)
    assert not own & code() and not old.exists()
    assert mllaunch("run", "--node", "node3", "train.py").stdout == "hello\n"


def test_what_goes_on_is_not_touched_and_a_node_that_is_away_is_named(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    repo.script(
        """
        import os, time
        print("begun", flush=True)
        while not os.path.exists("/tmp/go"):
            time.sleep(0.05)
        print(open("train.py").read() != "", flush=True)
        """
    )
    run_id, name = mllaunch.submit("--node", "node1", "train.py")
    until(lambda: "begun" in mllaunch("logs", name).stdout, "the script to begin")
    done = mllaunch(*ALL, "--outputs", check=True)
    assert f"{name} stays: it is running" in done.stderr
    assert (attempt(nodes, 1, run_id) / "streams").is_dir()
    nodes[1].cut()
    try:
        away = mllaunch(*ALL, check=True)
        assert "node1" in away.stderr and "cannot be reached" in away.stderr
    finally:
        nodes[1].heal()
    nodes[1].run("touch", "/tmp/go")
    mllaunch.wait_sealed(name)
    nodes[1].run("rm", "/tmp/go")
    assert mllaunch("logs", name).stdout == "begun\nTrue\n"


def test_a_forgotten_run_leaves_nothing_on_its_nodes(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    repo.script(WRITING)
    run_id, name = mllaunch.submit("--nodes", "3", "train.py")
    mllaunch.wait_sealed(name)
    told = mllaunch("prune", name, "--forget", "--yes", check=True).stdout
    assert "everything on node2, and what the run log has of it" in told
    assert not [n for n in (1, 2, 3) if (home(nodes, n) / "runs" / run_id).exists()]
    assert not (mllaunch.home.path / "placements" / run_id).exists()
    assert mllaunch("ps", "-a", "--json").document == []


def test_submissions_beside_a_prune_that_never_rests_all_run(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    script = repo.script("print('hello')")
    mllaunch("run", "--node", "node1", script, check=True)
    is_over = threading.Event()

    def prune() -> int:
        count = 0
        while not is_over.is_set():
            mllaunch(*ALL, check=True)
            count += 1
        return count

    with ThreadPoolExecutor(1) as beside:
        pruning = beside.submit(prune)
        try:
            for number in range(6):
                repo.write("new.txt", f"{number}\n")
                repo.commit()
                done = mllaunch("run", "--node", "node1", script)
                assert (done.rc, done.stdout) == (0, "hello\n"), done
        finally:
            is_over.set()
        assert pruning.result() > 1
