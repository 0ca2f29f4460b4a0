"""The examples, in containers, from the README's words; with packages installed by a real build."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.containers.test_running import raw, sealed
from tests.e2e.harness import Home, Mllaunch, until
from tests.testbed.engine import Engine

BUILD_S = 600.0


@pytest.fixture
def example(request: pytest.FixtureRequest, home: Home, tmp_path: Path) -> Any:
    """A function that sets up an example and gives the console script in its folder."""
    made = []

    def start(name: str, base: str) -> Mllaunch:
        # The README's base image is one from a public registry; a test has none but its own.
        home.environ["MLLAUNCH_IMAGE_BASE"] = base
        folder = tmp_path / name
        Mllaunch(home, tmp_path)("init", "--example", name, str(folder), check=True)
        made.append(Mllaunch(home, folder))
        return made[-1]

    yield start
    for mllaunch in made:
        mllaunch.close()


@pytest.mark.real("engine", "mmdebstrap")
def test_the_digits_example_trains_in_a_container(example: Any, python_image: str, engine: Engine) -> None:
    mllaunch = example("digits", python_image)
    done = mllaunch("run", "train.py", "--epochs", "3", timeout_s=BUILD_S)
    assert done.rc == 0, done.stderr
    assert re.search(r"epoch 3/3  loss [0-9.]+  accuracy 0\.\d+", done.stdout)
    assert "packages of requirements.txt, by Docker" in done.stderr
    document = sealed(mllaunch)
    packages = {package["name"] for package in document["environment"]["python"]["packages"]}
    assert {"numpy", "scikit-learn"} <= packages
    assert document["environment"]["lock"]["path"] == "requirements.txt"
    assert document["environment"]["lock"]["resolved"] is False
    paths = [entry["path"] for entry in document["outputs"]]
    assert paths == [f"outputs/checkpoint-{number:04}.npz" for number in (1, 2, 3)]
    again = mllaunch("run", "train.py", "--epochs", "1", "--lr", "0.2", check=True)
    assert "(cached)" in again.stderr


@pytest.mark.real("engine", "mmdebstrap")
def test_the_digits_example_goes_on_from_its_checkpoint_and_begins_anew_from_its_weights(
    example: Any, python_image: str
) -> None:
    mllaunch = example("digits", python_image)
    first = mllaunch("run", "train.py", "--epochs", "2", timeout_s=BUILD_S, check=True).run_name
    sealed(mllaunch, first)
    done = mllaunch("resume", first, "-f", "--", "--epochs", "4", check=True)
    assert re.findall(r"epoch (\d)/4", done.stdout) == ["3", "4"]
    assert f"goes on from {first} at step 2" in done.stderr
    second = done.run_name
    sealed(mllaunch, second)
    anew = mllaunch("resume", second, "--from-weights", "-f", "--", "--epochs", "1", check=True)
    assert re.findall(r"epoch (\d)/1", anew.stdout) == ["1"]
    told = sealed(mllaunch, anew.run_name)
    [parent] = told["lineage"]["parents"]
    assert (parent["name"], parent["kind"], parent["step"]) == (second, "weights", 4)
    [weights] = [entry for entry in told["inputs"] if entry["kind"] == "checkpoint"]
    assert weights["path"] == "/.mllaunch/checkpoint/checkpoint-0004.npz"
    assert weights["produced_by"]["name"] == second


@pytest.mark.real("engine", "mmdebstrap")
def test_what_processes_in_a_container_execute_and_write_is_on_record(
    repo: Any, mllaunch: Mllaunch, home: Home, python_image: str
) -> None:
    repo.write("mllaunch.yaml", f"image: {{base: {python_image}}}\n")
    repo.write("part.py", "VALUE = 1\n")
    repo.write("child.py", "import part\nopen('outputs/by-child', 'w').write('x')\n")
    repo.script(
        """
        import importlib, subprocess, sys, time
        import part
        subprocess.run([sys.executable, "-E", "child.py"], env={}, check=True)  # by the image's own .pth
        # Of another length: the child has left bytecode, and Python tells by size and whole seconds whether it is old.
        open("part.py", "w").write("VALUE = 20\\n")
        importlib.reload(part)
        time.sleep(3)
        """
    )
    name = mllaunch("run", "train.py", check=True, timeout_s=BUILD_S).run_name
    told = sealed(mllaunch, name)
    assert [node["matches_commit"] for node in told["code"]["nodes"]] == [True]
    assert [(change["path"], change["in_use"]) for change in told["code"]["changes"]] == [("part.py", "yes")]
    assert "+VALUE = 2" in told["code"]["changes"][0]["diff"]
    child = next(entry for entry in told["outputs"] if entry["path"] == "outputs/by-child")
    assert child["rank"] is not None or child["node"]
    assert not any("child process" in entry["what"] for entry in told["not_captured"]), told["not_captured"]


@pytest.mark.real("engine", "mmdebstrap", "torch")
def test_the_torch_example_trains_and_its_open_requirements_are_resolved_and_recorded(
    example: Any, torch_image: str
) -> None:
    mllaunch = example("torch", torch_image)
    done = mllaunch("run", "train.py", "--epochs", "1", timeout_s=BUILD_S)
    assert done.rc == 0, done.stderr
    assert "resolved once" in done.stderr
    document = sealed(mllaunch)
    lock = document["environment"]["lock"]
    assert (lock["path"], lock["resolved"]) == ("requirements.txt", True)
    shown = mllaunch("image", "show", "@last", "--json", check=True).document
    text = Path(shown["lock"]["file"]).read_text()
    assert re.search(r"^torch(==| @ )", text, re.MULTILINE)
    assert document["outputs"]
    until(lambda: raw(mllaunch), "its output to be there")
