"""A run on a machine that is reached by SSH: as on this one, seen from the command line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.e2e.harness import Mllaunch, Repo, until
from tests.e2e.ssh.conftest import Nodes

pytestmark = pytest.mark.real("hosts")

WHERE = """
import os
print("on", os.uname().nodename, "in", os.getcwd(), flush=True)
"""
WRITING = """
import os
with open(os.environ["MLLAUNCH_OUTPUT_DIR"] + "/model.pt", "wb") as file:
    file.write(b"weights" * 1000000)
"""


def test_a_run_goes_to_a_node_and_its_output_comes_back(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    done = mllaunch("run", "--node", "node2", repo.script(WHERE))
    assert done.rc == 0
    assert "on node2 in /root/.local/share/mllaunch/node/node2/runs/" in done.stdout
    assert "placed node2 via ssh" in done.stderr


def test_the_exit_code_of_the_task_is_that_of_the_command(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    done = mllaunch("run", repo.script("raise SystemExit(7)"))
    assert done.rc == 7
    assert "exited with 7" in done.stderr


def test_a_second_submission_sends_neither_agent_nor_code(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    repo.script(WHERE)
    assert mllaunch("run", "--node", "node1", "train.py").rc == 0
    kept = nodes[1].folder / "disk/share/mllaunch/node/node1"

    def content() -> dict[str, int]:
        places = [*kept.glob("agents/*"), *kept.glob("contents/*/*"), *kept.glob("trees/*/*")]
        return {str(place): place.lstat().st_ctime_ns for place in places}

    before = content()
    assert mllaunch("run", "--node", "node1", "train.py").rc == 0
    assert content() == before


def test_only_what_has_changed_is_sent(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    repo.write("large.bin", b"x" * 9_000_000)  # more than is sent at once
    repo.script(
        "import os; print(len(open('large.bin').read()), os.access('run.sh', os.X_OK), os.readlink('link'))"
    )
    (repo.root / "run.sh").write_text("#!/bin/sh\n")
    (repo.root / "run.sh").chmod(0o755)
    (repo.root / "link").symlink_to("train.py")
    repo.commit()
    kept = nodes[3].folder / "disk/share/mllaunch/node/node3/contents"
    assert mllaunch("run", "--node", "node3", "train.py").stdout == "9000000 True train.py\n"
    before = set(kept.glob("*/*"))
    repo.write("new.txt", "new\n")
    repo.commit()
    assert mllaunch("run", "--node", "node3", "train.py").rc == 0
    assert len(set(kept.glob("*/*")) - before) == 1


def test_what_a_run_wrote_is_listed_and_pulled(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch, tmp_path: Path
) -> None:
    run = mllaunch("run", repo.script(WRITING)).run_name
    digest = hashlib.sha256(b"weights" * 1000000).hexdigest()
    assert digest in mllaunch("files", run, check=True).stdout
    target = tmp_path / "pulled"
    target.mkdir()
    (target / "outputs").mkdir()
    # What an earlier pull that broke off has left is gone on with.
    (target / "outputs" / f".mllaunch-{digest[:32]}.part").write_bytes((b"weights" * 1000000)[:3_000_000])
    mllaunch("pull", run, str(target), check=True)
    assert hashlib.sha256((target / "outputs/model.pt").read_bytes()).hexdigest() == digest
    assert [path.name for path in (target / "outputs").iterdir()] == ["model.pt"]


def test_provenance_says_which_machine_it_was_and_which_code(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    run = mllaunch("run", "--node", "node1", repo.script(WRITING)).run_name
    document = until(
        lambda: (
            (d := mllaunch("provenance", run, "--json").document)["seal"]["status"] == "sealed-complete" and d
        ),
        "the record to be complete",
    )
    assert [(host["node"], host["hostname"]) for host in document["hosts"]] == [("node1", "node1")]
    assert [(entry["node"], entry["matches_commit"]) for entry in document["code"]["nodes"]] == [
        ("node1", True)
    ]
    assert [output["path"] for output in document["outputs"]] == ["outputs/model.pt"]


def test_a_run_is_stopped_on_its_node(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    run = mllaunch("submit", repo.script("import time; print('begun', flush=True); time.sleep(600)")).run_name
    until(lambda: "begun" in mllaunch("logs", run).stdout, "the task to begin")
    assert "cancelled" in mllaunch("stop", run, check=True).stderr


def test_nodes_shows_what_each_has_and_what_is_wrong_with_it(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    nodes.configure(names="node1 node2 nowhere")
    shown = mllaunch("nodes", check=True)
    assert shown.stdout.startswith("NODE ") and "GROUPS" not in shown.stdout
    assert "nowhere cannot be reached" in shown.stderr
    up, also, lost = mllaunch("nodes", "--json", check=True).document
    assert (up["state"], also["state"], lost["state"]) == ("up", "up", "unreachable")
    assert abs(up["clock_offset_s"]) < 1
    assert lost["last_seen"] is None and up["last_seen"] is not None


RESUMING = """
import hashlib, os
print("from", hashlib.sha256(open(os.environ["MLLAUNCH_RESUME_FROM"], "rb").read()).hexdigest())
"""


def test_a_run_is_resumed_where_its_checkpoint_lies_and_elsewhere(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    run = mllaunch("run", "--node", "node2", repo.script(WRITING), check=True).run_name
    digest = hashlib.sha256(b"weights" * 1000000).hexdigest()
    repo.script(RESUMING)
    there = mllaunch("resume", run, "--code", "current", "-f")
    assert there.stdout.endswith(f"from {digest}\n"), there
    assert "placed node2" in there.stderr
    # The node that has it need not be among those of the configuration any more.
    nodes.configure(names="node1 node3")
    elsewhere = mllaunch("resume", run, "--code", "current", "--node", "node3", "-f")
    assert elsewhere.stdout.endswith(f"from {digest}\n"), elsewhere
    kept = nodes[3].folder / f"disk/share/mllaunch/node/node3/checkpoints/{digest}/model.pt"
    before = kept.stat().st_ctime_ns
    again = mllaunch("resume", run, "--code", "current", "--node", "node3", "-f", check=True)
    assert again.stdout.endswith(f"from {digest}\n")
    assert kept.stat().st_ctime_ns == before
    [parent] = mllaunch("provenance", again.run_name, "--json").document["lineage"]["parents"]
    assert parent["name"] == run


def test_a_checkpoint_on_a_node_that_is_away_is_passed_over_in_words(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    run = mllaunch("run", "--node", "node2", repo.script(WRITING), check=True).run_name
    repo.script(RESUMING)
    mllaunch.wait_sealed(run)
    nodes[2].crash()
    done = mllaunch("resume", run, "--code", "current")
    assert done.rc == 1
    assert f"no checkpoint of {run} is whole" in done.stderr
    assert "outputs/model.pt: node2 cannot be reached" in done.stderr


def test_a_local_run_may_be_asked_for_where_nodes_are_the_default(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    done = mllaunch("run", "--backend", "local", repo.script("print('here')"))
    assert (done.rc, done.stdout) == (0, "here\n")


def test_a_group_or_a_label_stands_for_its_nodes(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    nodes.configure(
        node1=", groups: [lab]",
        node2=", groups: [lab, spare], labels: {gpu: a100}",
        node3=", groups: [spare]",
    )
    repo.script(WHERE)
    assert "on node2 in" in mllaunch("run", "--node", "gpu=a100", "train.py").stdout
    both = mllaunch("run", "--node", "spare", "--nodes", "2", "train.py")
    assert both.rc == 0 and "on node2 in" in both.stdout and "on node3 in" in both.stdout
    done = mllaunch("run", "--node", "lab", "--nodes", "3", "train.py")
    assert done.rc == 2 and "error[placement]: 3 nodes are wanted, and --node means 2" in done.stderr
    shown = mllaunch("nodes", "lab", check=True).stdout
    assert [line.split()[:3] for line in shown.splitlines()] == [
        ["NODE", "STATE", "GROUPS"],
        ["node1", "up", "lab"],
        ["node2", "up", "lab,"],
    ]
    assert "lab, spare, gpu=a100" in shown
    (only,) = mllaunch("nodes", "gpu=a100", "--json", check=True).document
    assert (only["name"], only["groups"], only["labels"]) == ("node2", ["lab", "spare"], {"gpu": "a100"})
    assert mllaunch("nodes", "nobody").rc == 3


def test_what_many_nodes_have_in_common_is_said_once(nodes: Nodes, mllaunch: Mllaunch) -> None:
    nodes.configure(names=" ".join(f"nowhere{n}" for n in range(20)))
    shown = mllaunch("nodes", check=True)
    assert len(shown.stdout.splitlines()) == 21
    cause, hint = shown.stderr.splitlines()
    assert cause.startswith("nowhere0 cannot be reached: ")
    assert cause.endswith("; likewise nowhere1, nowhere2, nowhere3 and 16 more")
    assert hint == f"  hint: does this work? ssh -F {nodes.hosts.config} nowhere0 true"
