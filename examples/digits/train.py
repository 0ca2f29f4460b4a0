"""Train a small neural network on scikit-learn's handwritten digits, with a checkpoint after every epoch."""

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np

try:
    from sklearn.datasets import load_digits
except ImportError:
    sys.exit("train.py needs scikit-learn for its data: pip install -r requirements.txt")

MOMENTUM = 0.9
WEIGHTS = ("w1", "b1", "w2", "b2")
KINDS = ("weight", "momentum")


def load_data():
    """Images scaled to 0..1 and labels, in a fixed split: 1437 to train on, 360 to test on."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    images, labels = digits.data[order] / 16.0, digits.target[order]
    return (images[:1437], labels[:1437]), (images[1437:], labels[1437:])


def new_weights(rng, hidden):
    return {
        "w1": rng.normal(0, np.sqrt(2 / 64), (64, hidden)),
        "b1": np.zeros(hidden),
        "w2": rng.normal(0, np.sqrt(2 / hidden), (hidden, 10)),
        "b2": np.zeros(10),
    }


def forward(weights, images):
    """The hidden layer and the probability of each digit."""
    hidden = np.maximum(images @ weights["w1"] + weights["b1"], 0)
    scores = hidden @ weights["w2"] + weights["b2"]
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    return hidden, exponentials / exponentials.sum(axis=1, keepdims=True)


def loss_and_gradients(weights, images, labels):
    hidden, probabilities = forward(weights, images)
    rows = np.arange(len(labels))
    loss = -np.log(probabilities[rows, labels] + 1e-12).mean()
    d_scores = probabilities
    d_scores[rows, labels] -= 1
    d_scores /= len(labels)
    d_hidden = (d_scores @ weights["w2"].T) * (hidden > 0)
    gradients = {
        "w1": images.T @ d_hidden,
        "b1": d_hidden.sum(axis=0),
        "w2": hidden.T @ d_scores,
        "b2": d_scores.sum(axis=0),
    }
    return loss, gradients


def train_epoch(weights, momenta, data, rng, args):
    """One pass over the data in random order; returns the mean loss."""
    images, labels = data
    order = rng.permutation(len(labels))
    starts = range(0, len(order), args.batch_size)
    losses = []
    for step, start in enumerate(starts, 1):
        batch = order[start : start + args.batch_size]
        loss, gradients = loss_and_gradients(weights, images[batch], labels[batch])
        losses.append(loss)
        for name in WEIGHTS:
            momenta[name] = MOMENTUM * momenta[name] - args.lr * gradients[name]
            weights[name] += momenta[name]
        if sys.stderr.isatty():
            print(f"step {step}/{len(starts)}", end="\r", file=sys.stderr, flush=True)
    return np.mean(losses)


def save(path, epoch, weights, momenta, rng):
    """Write to another name first: whoever finds the checkpoint under its own name finds it whole."""
    state = zip(KINDS, (weights, momenta), strict=True)
    arrays = {f"{kind}_{name}": values[name] for kind, values in state for name in WEIGHTS}
    unfinished = path.with_suffix(".tmp")
    with unfinished.open("wb") as file:
        np.savez(file, epoch=epoch, rng=json.dumps(rng.bit_generator.state), **arrays)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def load(path):
    """Everything in a checkpoint, as plain arrays: nothing in the file is executed."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        if not {"epoch", "rng", *(f"{kind}_{name}" for kind in KINDS for name in WEIGHTS)} <= set(arrays):
            sys.exit(f"train.py: {path} is no checkpoint of this script")
        return arrays
    except Exception as error:  # noqa: BLE001 - a damaged file can fail in any way
        sys.exit(f"train.py: cannot read the checkpoint {path}: {error}")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--hidden", type=int, default=64, help="width of the hidden layer")
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
    train, (test_images, test_labels) = load_data()
    rng = np.random.default_rng(args.seed)
    weights = new_weights(rng, args.hidden)
    first = 1
    if args.resume or args.init:
        checkpoint = load(args.resume or args.init)
        weights = {name: checkpoint[f"weight_{name}"] for name in WEIGHTS}
    momenta = {name: np.zeros_like(weights[name]) for name in WEIGHTS}
    if args.resume:
        momenta = {name: checkpoint[f"momentum_{name}"] for name in WEIGHTS}
        rng.bit_generator.state = json.loads(str(checkpoint["rng"]))
        first = int(checkpoint["epoch"]) + 1
    if first > args.epochs:
        print(f"nothing to do: the checkpoint is from epoch {first - 1} of {args.epochs}")
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    for epoch in range(first, args.epochs + 1):
        loss = train_epoch(weights, momenta, train, rng, args)
        accuracy = (forward(weights, test_images)[1].argmax(axis=1) == test_labels).mean()
        print(f"epoch {epoch}/{args.epochs}  loss {loss:.4f}  accuracy {accuracy:.4f}", flush=True)
        save(output / f"checkpoint-{epoch:04d}.npz", epoch, weights, momenta, rng)


if __name__ == "__main__":
    main()
