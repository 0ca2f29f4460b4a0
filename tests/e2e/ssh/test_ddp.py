"""Distributed training of torch on three nodes, by gloo on their processors."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.coverage import packages
from tests.e2e.harness import Mllaunch, Repo, until
from tests.e2e.ssh.conftest import Nodes
from tests.testbed.engine import CACHE

pytestmark = [pytest.mark.real("hosts"), pytest.mark.real("torch")]

TRAINING = """
import os, sys, time
import torch
import torch.distributed as distributed

torch.manual_seed(0)
distributed.init_process_group("gloo")
rank = distributed.get_rank()
model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
generator = torch.Generator().manual_seed(rank)
for step in range(20):
    inputs = torch.randn(8, 4, generator=generator)
    loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
weights = model.module.weight.detach()
print("rank", rank, "of", distributed.get_world_size(), "has", [round(w, 3) for w in weights.flatten().tolist()])
if rank == 0:
    torch.save({"step": 20, "model": model.module.state_dict()}, os.environ["MLLAUNCH_OUTPUT_DIR"] + "/model.pt")
distributed.barrier()
# Without taking gloo's threads apart, which aborts now and then when another rank is quicker.
sys.stdout.flush()
time.sleep(1)
os._exit(0)
"""


def test_three_nodes_train_one_model(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    python, problem = packages.python()
    assert python is not None, problem
    nodes.configure(python=f"/shared/{Path(python).relative_to(CACHE)}")
    done = mllaunch("run", "--nodes", "3", repo.script(TRAINING))
    assert done.rc == 0, done
    told = [line.split(" has ")[1] for line in done.stdout.splitlines() if " has " in line]
    assert len(told) == 3 and len(set(told)) == 1  # they have learned together
    document = until(
        lambda: (d := mllaunch("provenance", done.run_name, "--json").document)["seal"]["status"] and d,
        "the record to be complete",
    )
    [model] = [entry for entry in document["outputs"] if entry["path"] == "outputs/model.pt"]
    assert (model["kind"], model["step"], model["node"], model["rank"]) == ("checkpoint", 20, "node1", 0)
    assert {entry["node"] for entry in document["code"]["nodes"] if entry["matches_commit"]} == {
        "node1",
        "node2",
        "node3",
    }
