"""What several nodes wrote, at the same paths too: all of it is fetched, and nothing comes in another's place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.e2e.harness import Mllaunch, Repo, until
from tests.e2e.ssh.conftest import Nodes

pytestmark = pytest.mark.real("hosts")

WRITING = """
import os
out, rank = os.environ["MLLAUNCH_OUTPUT_DIR"], os.environ["RANK"]
for name, text in (("model.txt", rank), ("config.json", "{}"), (f"shard-{rank}.pt", rank)):
    with open(os.path.join(out, name), "w") as file:
        file.write(text)
os.symlink("model.txt", os.path.join(out, "last"))
"""
WAITING = """
import os, time
with open(os.environ["MLLAUNCH_OUTPUT_DIR"] + "/part-" + os.environ["RANK"], "w") as file:
    file.write("so far")
print("written", flush=True)
time.sleep(600)
"""
NAMES = ["node1", "node2", "node3"]


@pytest.fixture
def run(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> str:
    name = mllaunch("run", "--nodes", "3", repo.script(WRITING), check=True).run_name
    mllaunch.wait_sealed(name)
    return name


def below(folder: Path) -> dict[str, str]:
    """Files and links below a folder, and what they hold or lead to."""
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if not p.is_dir()}


def of(rank: int) -> dict[str, str]:
    """What a rank wrote in its output folder."""
    text = str(rank)
    return {"model.txt": text, "last": text, "config.json": "{}", f"shard-{rank}.pt": text}


def test_what_all_wrote_is_fetched_and_nothing_comes_in_anothers_place(
    mllaunch: Mllaunch, run: str, tmp_path: Path
) -> None:
    listed = mllaunch("files", run, check=True).stdout.splitlines()
    assert listed[0].split()[:2] == ["NODE", "PATH"]
    assert [line.split()[0] for line in listed if "outputs/model.txt " in line and "->" not in line] == NAMES

    every = {f"{NAMES[rank]}/outputs/{name}": text for rank in range(3) for name, text in of(rank).items()}
    done = mllaunch("pull", run, str(tmp_path / "d"), check=True)
    assert below(tmp_path / "d") == every
    [line] = [line for line in done.stderr.splitlines() if "not the same on all nodes" in line]
    assert line.startswith("outputs/model.txt: ") and line.endswith(f": {tmp_path}/d/NODE")
    again = mllaunch("pull", run, str(tmp_path / "d"), "--json", check=True).document
    assert (again["by_node"], again["unreachable"]) == (True, [])
    assert {file["place"]: file["copied"] for file in again["files"]} == dict.fromkeys(every, False)
    (tmp_path / "d/node2/outputs/model.txt").write_text("mine")
    assert mllaunch("pull", run, str(tmp_path / "d")).rc == 1
    mllaunch("pull", run, str(tmp_path / "d"), "--force", check=True)
    assert below(tmp_path / "d") == every

    # Paths of one node alone, and the same bytes everywhere, need no folders: the parts of a checkpoint lie together.
    done = mllaunch("pull", run, "outputs/[cs]*", str(tmp_path / "flat"), check=True)
    assert sorted(below(tmp_path / "flat/outputs")) == ["config.json", *(f"shard-{n}.pt" for n in range(3))]
    assert "4 files" in done.stderr and "there already" not in done.stderr

    mllaunch("pull", run, "--node", "node2", str(tmp_path / "one"), check=True)
    assert below(tmp_path / "one/outputs") == of(1)
    missing = mllaunch("pull", run, "--node", "node9", str(tmp_path / "none"))
    assert missing.rc == 3 and "node1, node2, node3" in missing.stderr
    assert mllaunch.row(run)["state"] == "succeeded"

    mllaunch("export", run, str(tmp_path / "exported"), check=True)
    for rank, node in enumerate(NAMES):
        assert below(tmp_path / "exported/outputs" / node) == of(rank)
    assert not (tmp_path / "exported/work").exists()
    assert "outputs/model.txt: not the same on all nodes" in (tmp_path / "exported/run_info.txt").read_text()
    for entry in json.loads((tmp_path / "exported/provenance.json").read_text())["outputs"]:
        there = tmp_path / "exported/outputs" / entry["node"] / entry["path"].removeprefix("outputs/")
        assert hashlib.sha256(there.read_bytes()).hexdigest() == entry["digest"].removeprefix("sha256:")


def test_what_nodes_that_answer_have_is_fetched_and_repeating_it_goes_on(
    nodes: Nodes, mllaunch: Mllaunch, run: str, tmp_path: Path
) -> None:
    nodes[2].cut()
    try:
        done = mllaunch("pull", run, str(tmp_path / "d"))
        wanted = mllaunch("pull", run, "--node", "node3", str(tmp_path / "one"), check=True)
        silent = mllaunch("pull", run, "--node", "node2", str(tmp_path / "none"))
        same = mllaunch("pull", run, "outputs/config.json", str(tmp_path / "same"), check=True)
        exported = mllaunch("export", run, str(tmp_path / "exported"))
    finally:
        nodes[2].heal()
    assert done.rc == 1
    # Why not is the kernel's to say: that nobody answers, or that nobody is there.
    assert "not copied: 3 files of node2: node2 cannot be reached: " in done.stderr
    assert "repeat this when node2 can be reached" in done.stderr
    assert not (tmp_path / "d/node2/outputs/model.txt").exists()
    assert [below(tmp_path / "d" / node / "outputs") for node in ("node1", "node3")] == [of(0), of(2)]
    assert below(tmp_path / "one/outputs") == of(2) and "node2" not in wanted.stderr
    assert silent.rc == 1 and "error[unreachable]" in silent.stderr
    assert below(tmp_path / "same") == {"outputs/config.json": "{}"} and not same.stdout
    assert exported.rc == 1 and "node2/outputs/model.txt: node2 cannot be reached" in exported.stderr
    assert not (tmp_path / "exported").exists()
    again = mllaunch("pull", run, str(tmp_path / "d"), "--json", check=True).document
    assert sorted(file["node"] for file in again["files"] if file["copied"]) == ["node2"] * 3
    assert below(tmp_path / "d/node2/outputs") == of(1)


def test_of_a_run_that_goes_on_what_is_not_known_is_said_and_the_rest_listed_and_fetched(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch, tmp_path: Path
) -> None:
    run = mllaunch("submit", "--nodes", "2", repo.script(WAITING), check=True).run_name
    until(lambda: mllaunch("logs", run).stdout.count("written") == 2, "both to have written")
    nodes[2].cut()
    try:
        listed = mllaunch("files", run)
        pulled = mllaunch("pull", run, str(tmp_path / "d"))
        other = mllaunch("pull", run, "outputs/part-1", str(tmp_path / "d"))
    finally:
        nodes[2].heal()
    for done in (listed, pulled):
        assert done.rc == 1 and "warning: node2 cannot be reached" in done.stderr
    assert "outputs/part-0" in listed.stdout
    assert below(tmp_path / "d") == {"outputs/part-0": "so far"}
    assert other.rc == 1 and "error[unreachable]" in other.stderr
    mllaunch("stop", run, "--now", check=True)
    mllaunch.wait_sealed(run)
    mllaunch("pull", run, str(tmp_path / "d"), check=True)
    assert sorted(below(tmp_path / "d/outputs")) == ["part-0", "part-1"]
