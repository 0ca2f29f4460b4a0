"""Teach a small transformer to add, character by character, with a checkpoint after every epoch."""

import argparse
import os
import signal
import sys
from pathlib import Path

try:
    import numpy as np
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, Dataset
except ImportError as error:
    sys.exit(f"train.py needs {error.name}: pip install -r requirements.txt")

CHARACTERS = "0123456789+="
LENGTH = 9  # of each text
ANSWER = 3  # digits of a sum, at the end of the text
WIDTH = 64
WARMUP = 100  # steps
PARTS = {"model", "optimizer", "scheduler", "rng", "epoch", "seen", "loss"}


class Sums(Dataset):
    """Texts such as 47+85=231: sums have their units in front, because adding, with its carries, begins there."""

    def __init__(self, pairs):
        self.pairs = pairs

    def __len__(self):
        return len(self.pairs)

    def __getitem__(self, index):
        a, b = divmod(int(self.pairs[index]), 100)
        answer = f"{a + b:0{ANSWER}}"[::-1]
        return torch.tensor([CHARACTERS.index(character) for character in f"{a:02}+{b:02}={answer}"])


def load_data():
    """All sums of two numbers below 100, in a fixed split: 9000 to train on, 1000 to test on."""
    pairs = np.random.default_rng(0).permutation(100 * 100)
    return Sums(pairs[:9000]), Sums(pairs[9000:])


class Transformer(nn.Module):
    """A decoder: every character sees itself and those before it, and scores what comes next."""

    def __init__(self):
        super().__init__()
        self.characters = nn.Embedding(len(CHARACTERS), WIDTH)
        self.places = nn.Embedding(LENGTH, WIDTH)
        for embedding in (self.characters, self.places):
            nn.init.normal_(embedding.weight, std=0.1)  # with 1, the default, some seeds never learn to carry
        layer = nn.TransformerEncoderLayer(
            WIDTH, nhead=4, dim_feedforward=4 * WIDTH, dropout=0.02, batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.scores = nn.Linear(WIDTH, len(CHARACTERS))

    def forward(self, texts):
        length = texts.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=texts.device)
        places = self.places(torch.arange(length, device=texts.device))
        return self.scores(self.layers(self.characters(texts) + places, mask, is_causal=True))


def answers(model, texts):
    """The digits of each answer, and the scores that the model gives for them, knowing what stands before each."""
    return texts[:, -ANSWER:], model(texts[:, :-1])[:, -ANSWER:]


class Training:
    """Everything that changes during training: what a checkpoint must hold so that it can be continued exactly."""

    def __init__(self, model, device, args):
        self.model = model
        self.device = device
        self.seed = args.seed
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
        # It falls without knowing a last step, so that more epochs can be added to a finished run.
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / WARMUP, (WARMUP / (step + 1)) ** 0.5)
        )
        self.epoch = 0  # that many are complete
        self.seen = 0  # sums of the epoch after them
        self.loss = 0.0  # total of those
        self.stopping = False

    def stop(self, signum, frame):
        """Handle a signal: the step in progress is finished first."""
        self.stopping = True

    def step(self, texts):
        digits, scores = answers(self.model, texts.to(self.device, non_blocking=True))
        loss = nn.functional.cross_entropy(scores.flatten(0, 1), digits.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.scheduler.step()
        self.loss += loss.detach() * len(texts)
        self.seen += len(texts)

    def state(self):
        cuda = torch.cuda.get_rng_state() if self.device == "cuda" else None
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "rng": {"seed": self.seed, "cpu": torch.get_rng_state(), "cuda": cuda},
            "epoch": self.epoch,
            "seen": self.seen,
            "loss": float(self.loss),
        }

    def continue_from(self, state):
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.seed = state["rng"]["seed"]
        torch.set_rng_state(state["rng"]["cpu"])
        if self.device == "cuda" and state["rng"]["cuda"] is not None:
            torch.cuda.set_rng_state(state["rng"]["cuda"])
        self.epoch, self.seen, self.loss = state["epoch"], state["seen"], state["loss"]


def ignore_sigterm(worker):
    """Let a worker outlive a SIGTERM to the whole process group: the main process could not finish its step."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def batches(training, data, args):
    """What is left of the current epoch, in an order that depends on nothing but the seed and the epoch."""
    order = np.random.default_rng((training.seed, training.epoch)).permutation(len(data))
    starts = range(training.seen, len(order), args.batch_size)
    return DataLoader(
        data,
        batch_sampler=[order[start : start + args.batch_size] for start in starts],
        num_workers=args.workers,
        worker_init_fn=ignore_sigterm,
        pin_memory=training.device == "cuda",
        # A loader draws a number whenever it is made. Not from the generator that dropout uses: a continued run
        # makes one loader more.
        generator=torch.Generator(),
    )


def train_epoch(training, data, args):
    """Train to the end of the epoch, or until asked to stop."""
    training.model.train()
    for texts in batches(training, data, args):
        training.step(texts)
        if training.stopping:
            return


@torch.no_grad()
def evaluate(model, data, device):
    """The share of sums that are right in every digit."""
    model.eval()
    digits, scores = answers(model, torch.stack(list(data)).to(device))
    return (scores.argmax(dim=2) == digits).all(dim=1).float().mean().item()


def save(path, training):
    """Write to another name first: whoever finds the checkpoint under its own name finds it whole."""
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("wb") as file:
        torch.save(training.state(), file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def load(path):
    """Everything in a checkpoint, as tensors and plain values: nothing in the file is executed."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a damaged file can fail in any way
        reason = str(error).partition(". ")[0] or type(error).__name__  # PyTorch's texts go on with advice
        sys.exit(f"train.py: cannot read the checkpoint {path}: {reason}")
    if not isinstance(state, dict) or PARTS - set(state):
        sys.exit(f"train.py: {path} is no checkpoint of this script")
    return state


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=5e-3, help="the highest learning rate, after the warm-up")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2, help="processes that load data; 0 for none")
    parser.add_argument("--output", default=os.environ.get("MLLAUNCH_OUTPUT_DIR", "outputs"), metavar="DIR")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", metavar="CHECKPOINT", help="continue exactly where it stopped")
    start.add_argument("--init", metavar="CHECKPOINT", help="begin anew from its weights")
    args = parser.parse_args()
    if args.resume is None and args.init is None:
        args.resume = os.environ.get("MLLAUNCH_RESUME_FROM") or None
        args.init = None if args.resume else os.environ.get("MLLAUNCH_INIT_WEIGHTS") or None
    return args


def main():
    args = parse_arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)  # more are no faster with so small a model, and would change its bits
    device = "cuda" if torch.cuda.is_available() else "cpu"
    training = Training(Transformer().to(device), device, args)
    if args.resume:
        training.continue_from(load(args.resume))
    elif args.init:
        training.model.load_state_dict(load(args.init)["model"])
    if training.epoch >= args.epochs:
        print(f"nothing to do: the checkpoint is from epoch {training.epoch} of {args.epochs}")
    signal.signal(signal.SIGTERM, training.stop)
    train, test = load_data()
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    while training.epoch < args.epochs:
        train_epoch(training, train, args)
        if training.seen < len(train):
            save(output / f"checkpoint-{training.epoch + 1:04d}-unfinished.pt", training)
            sys.exit(128 + signal.SIGTERM)
        loss = training.loss / training.seen
        accuracy = evaluate(training.model, test, device)
        training.epoch, training.seen, training.loss = training.epoch + 1, 0, 0.0
        print(f"epoch {training.epoch}/{args.epochs}  loss {loss:.4f}  accuracy {accuracy:.4f}", flush=True)
        save(output / f"checkpoint-{training.epoch:04d}.pt", training)
        if training.stopping:
            sys.exit(128 + signal.SIGTERM)


if __name__ == "__main__":
    main()
