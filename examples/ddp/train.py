"""Teach one small network on several machines at once, with a checkpoint after every epoch."""

import argparse
import math
import os
import sys
from pathlib import Path

try:
    import torch
    from torch import distributed, nn
    from torch.nn.parallel import DistributedDataParallel
except ImportError as error:
    sys.exit(f"train.py needs {error.name}: pip install -r requirements.txt")

POINTS = 3000


def load_data(device):
    """Two spirals, one within the other: points in the plane, and which spiral each is on. The same everywhere."""
    generator = torch.Generator().manual_seed(0)
    spiral = torch.randint(2, (POINTS,), generator=generator)
    angle = 3 * math.pi * torch.rand(POINTS, generator=generator).sqrt()
    turned = angle + math.pi * spiral
    points = torch.stack((turned.cos(), turned.sin()), 1) * angle[:, None] / 10
    noise = 0.02 * torch.randn(points.shape, generator=generator)
    return (points + noise).to(device), spiral.to(device)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--batch", type=int, default=50, help="points per task and step")
    parser.add_argument("--resume", default=os.environ.get("MLLAUNCH_RESUME_FROM"), metavar="CHECKPOINT")
    args = parser.parse_args()

    # Where the others are, and who this is, is in RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
    os.environ.setdefault("RANK", "0")
    os.environ.setdefault("WORLD_SIZE", "1")
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29500")
    cuda = torch.cuda.is_available()
    distributed.init_process_group("nccl" if cuda else "gloo")
    rank, world = distributed.get_rank(), distributed.get_world_size()
    device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if cuda else "cpu"

    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    model = DistributedDataParallel(network.to(device))
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    epoch = 0
    if args.resume:
        state = torch.load(args.resume, map_location=device, weights_only=True)
        network.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        epoch = state["epoch"]
    points, spiral = load_data(device)
    outputs = Path(os.environ.get("MLLAUNCH_OUTPUT_DIR", "outputs"))
    outputs.mkdir(parents=True, exist_ok=True)

    while epoch < args.epochs:
        # Every task makes the same order and takes its share of it.
        order = torch.randperm(POINTS, generator=torch.Generator().manual_seed(epoch))
        share = order[rank : POINTS - POINTS % world : world].to(device)
        for batch in share.split(args.batch):
            loss = nn.functional.cross_entropy(model(points[batch]), spiral[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        epoch += 1
        if rank == 0:
            with torch.no_grad():
                right = (network(points).argmax(1) == spiral).float().mean()
            print(f"epoch {epoch}/{args.epochs}  accuracy {right:.3f}  on {world} tasks", flush=True)
            state = {"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
            path = outputs / f"checkpoint-{epoch:04}.pt"
            torch.save(state, path.with_suffix(".tmp"))
            path.with_suffix(".tmp").rename(path)
    distributed.barrier()
    # gloo's threads abort now and then when they are taken apart beside a task that has gone already.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
