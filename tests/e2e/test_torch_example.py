"""The training itself is tested where PyTorch is: in a container."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.coverage import packages
from tests.e2e.harness import Home, Mllaunch

MLLAUNCH = [sys.executable, "-c", "from mllaunch.cli.main import main; main()"]
EXAMPLE = Path(__file__).parents[2] / "examples" / "torch"
FILES = {".gitignore", "README.md", "mllaunch.yaml", "requirements.txt", "train.py"}


def output_of(*command: str, cwd: Path) -> str:
    environ = {"PATH": os.environ["PATH"], "HOME": str(cwd), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_init_makes_a_clean_repository_of_it_and_its_configuration_loads(tmp_path: Path) -> None:
    output_of(*MLLAUNCH, "init", "--example", "torch", "sums", cwd=tmp_path)
    folder = tmp_path / "sums"
    assert set(output_of("git", "ls-files", cwd=folder).split()) == FILES
    assert output_of("git", "status", "--porcelain", "--ignored", cwd=folder) == ""
    configuration = json.loads(output_of(*MLLAUNCH, "config", "--json", cwd=folder))["config"]
    assert configuration["resume_args"] == ["--resume", "{checkpoint}"]
    assert configuration["weights_args"] == ["--init", "{checkpoint}"]


def test_what_it_leaves_behind_does_not_make_the_repository_dirty(tmp_path: Path) -> None:
    output_of(*MLLAUNCH, "init", "--example", "torch", "sums", cwd=tmp_path)
    (tmp_path / "sums" / "outputs").mkdir()
    (tmp_path / "sums" / "outputs" / "checkpoint-0001.pt").write_bytes(b"")
    assert output_of("git", "status", "--porcelain", cwd=tmp_path / "sums") == ""


def test_the_script_needs_no_newer_python_than_we_do() -> None:
    vermin = shutil.which("vermin", path=str(Path(sys.executable).parent))
    if vermin is None:
        pytest.skip("vermin is not installed")
    found = subprocess.run(
        [vermin, "--quiet", "--no-tips", "--violations", "--target=3.10-", str(EXAMPLE / "train.py")],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout


def test_without_pytorch_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(name='torch')\n")
    failed = subprocess.run(
        [sys.executable, str(EXAMPLE / "train.py")],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert failed.returncode == 1
    assert failed.stderr == "train.py needs torch: pip install -r requirements.txt\n"


@pytest.mark.parametrize("name", sorted(FILES))
def test_where_packages_come_from_is_left_to_the_user(name: str) -> None:
    """An example that names an index fetches from it on every machine, whatever is configured there."""
    text = (EXAMPLE / name).read_text(encoding="utf-8")
    assert not re.search(r"pypi|pytorch\.org|index-url|find-links|://", text, re.IGNORECASE)


def test_its_packages_have_no_versions() -> None:
    assert (EXAMPLE / "requirements.txt").read_text().split() == ["torch", "numpy"]


@pytest.mark.real("torch")
def test_it_goes_on_from_its_checkpoint_and_begins_anew_from_its_weights(home: Home, tmp_path: Path) -> None:
    python, problem = packages.python()
    if python is None:
        pytest.skip(f"torch cannot be installed: {problem}")
    Mllaunch(home, tmp_path)("init", "--example", "torch", "sums", check=True)
    mllaunch = Mllaunch(home, tmp_path / "sums")
    first = mllaunch("run", "--python", python, "train.py", "--epochs", "1", check=True).run_name
    mllaunch.wait_sealed(first)
    done = mllaunch("resume", first, "-f", "--", "--epochs", "2", check=True)
    assert re.findall(r"epoch (\d)/2", done.stdout) == ["2"]
    second = done.run_name
    mllaunch.wait_sealed(second)
    anew = mllaunch("resume", second, "--from-weights", "-f", "--", "--epochs", "1", check=True).run_name
    mllaunch.wait_sealed(anew)
    told = mllaunch("provenance", anew, "--json", check=True).document
    [parent] = told["lineage"]["parents"]
    assert (parent["name"], parent["kind"]) == (second, "weights")
    [weights] = [entry for entry in told["inputs"] if entry["kind"] == "checkpoint"]
    assert (weights["format"], weights["produced_by"]["name"]) == ("torch", second)
    assert weights["loaded_by"] == "torch.load"
    saved = [entry for entry in told["outputs"] if entry["kind"] == "checkpoint"]
    assert {entry["by"] for entry in saved} == {"torch.save"}
    mllaunch.close()
