from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TRAIN = Path(__file__).parents[2] / "examples" / "digits" / "train.py"


def train(folder: Path, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MLLAUNCH_")}
    return subprocess.run(
        [sys.executable, str(TRAIN), *args],
        cwd=folder,
        env={**environ, **variables},
        capture_output=True,
        text=True,
    )


def arrays(path: Path) -> dict[str, object]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name].tolist() for name in file.files}


def test_it_learns_and_writes_a_checkpoint_for_each_epoch(tmp_path: Path) -> None:
    done = train(tmp_path, "--epochs", "3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    matches = [re.fullmatch(r"epoch (\d)/3  loss (\d\.\d{4})  accuracy (\d\.\d{4})", line) for line in lines]
    assert [match and match[1] for match in matches] == ["1", "2", "3"]
    losses = [float(match[2]) for match in matches if match]
    assert losses[0] > losses[1] > losses[2]
    assert matches[2] and float(matches[2][3]) > 0.8
    names = sorted(path.name for path in (tmp_path / "outputs").iterdir())
    assert names == ["checkpoint-0001.npz", "checkpoint-0002.npz", "checkpoint-0003.npz"]


@pytest.mark.parametrize("by_variable", [False, True])
def test_five_epochs_and_five_more_give_the_same_bits_as_ten(tmp_path: Path, by_variable: bool) -> None:
    train(tmp_path, "--epochs", "10", "--output", "straight")
    train(tmp_path, "--epochs", "5", "--output", "first")
    checkpoint = "first/checkpoint-0005.npz"
    if by_variable:
        variables = {"MLLAUNCH_RESUME_FROM": checkpoint, "MLLAUNCH_OUTPUT_DIR": "second"}
        resumed = train(tmp_path, "--epochs", "10", **variables)
    else:
        resumed = train(tmp_path, "--epochs", "10", "--output", "second", "--resume", checkpoint)
    assert resumed.stdout.startswith("epoch 6/10 ")
    last = "checkpoint-0010.npz"
    assert arrays(tmp_path / "straight" / last) == arrays(tmp_path / "second" / last)


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_start_from_weights_takes_nothing_else(tmp_path: Path, by_variable: bool) -> None:
    train(tmp_path, "--epochs", "2")
    checkpoint = "outputs/checkpoint-0002.npz"
    if by_variable:
        begun = train(
            tmp_path, "--epochs", "1", "--lr", "0", "--output", "new", MLLAUNCH_INIT_WEIGHTS=checkpoint
        )
    else:
        begun = train(tmp_path, "--epochs", "1", "--lr", "0", "--output", "new", "--init", checkpoint)
    assert begun.stdout.startswith("epoch 1/1 ")
    old, new = arrays(tmp_path / checkpoint), arrays(tmp_path / "new" / "checkpoint-0001.npz")
    # With a learning rate of 0 only momentum could have moved the weights.
    assert {name: old[name] for name in old if "weight" in name} == {
        name: new[name] for name in new if "weight" in name
    }
    assert new["epoch"] == 1


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 torn", b"\x80\x04cposix\nsystem\n"])
def test_a_bad_checkpoint_is_named_without_a_traceback(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "bad.npz").write_bytes(content)
    failed = train(tmp_path, "--resume", "bad.npz")
    assert failed.returncode == 1
    assert "bad.npz" in failed.stderr and "Traceback" not in failed.stderr


def test_without_scikit_learn_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sklearn").mkdir()
    (tmp_path / "sklearn" / "__init__.py").write_text("raise ImportError\n")
    failed = train(tmp_path, PYTHONPATH=str(tmp_path))
    assert failed.returncode == 1
    assert failed.stderr == "train.py needs scikit-learn for its data: pip install -r requirements.txt\n"
