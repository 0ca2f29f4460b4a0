"""`resume` through the real command line: from a checkpoint of one run to the next run."""

from __future__ import annotations

import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Home, Mllaunch, Repo, Result, until

# Takes what it is given by mllaunch, says what it took, and writes one checkpoint after each step.
TRAIN = """\
    import os, sys, time
    import numpy as np
    import recipe

    out = os.environ["MLLAUNCH_OUTPUT_DIR"]
    resume, init = os.environ.get("MLLAUNCH_RESUME_FROM"), os.environ.get("MLLAUNCH_INIT_WEIGHTS")
    weights, first = np.zeros(50), 1
    if resume or init:
        with np.load(resume or init) as found:
            weights, first = found["w"], int(found["step"]) + 1 if resume else 1
    print("args", *sys.argv[1:], "resume", bool(resume), "init", bool(init), "rate", recipe.RATE, "first", first)
    for step in range(first, first + 2):
        weights = weights + recipe.RATE
        np.savez(os.path.join(out, f"model-{step}.npz"), w=weights, step=step)
    print("sum", weights.sum(), flush=True)
    while os.environ.get("HOLD") and not os.path.exists(os.environ["HOLD"]):
        time.sleep(0.02)
"""


class Lab:
    """A researcher with a repository whose script trains two steps at a time."""

    def __init__(self, home: Home, repo: Repo, mllaunch: Mllaunch) -> None:
        self.home = home
        self.repo = repo
        self.mllaunch = mllaunch

    def code(self, rate: str = "RATE = 1.0\n", train: str = TRAIN) -> str:
        self.repo.write("recipe.py", rate)
        self.repo.write("train.py", train)
        return self.repo.commit()

    def run(self, *args: str) -> str:
        """A run to its end, and its record complete; its name."""
        name = self.mllaunch("run", *(args or ("train.py",)), check=True).run_name
        self.mllaunch.wait_sealed(name)
        return name

    def resume(self, *args: str, env: dict[str, str] | None = None) -> tuple[str, Result]:
        """A resumed run to its end; its name and what was said."""
        done = self.mllaunch("resume", "--wait", *args, env=env, check=True)
        self.mllaunch.wait_sealed(done.run_name)
        return done.run_name, done

    def printed(self, name: str) -> str:
        return self.mllaunch("logs", name, check=True).stdout

    def told(self, name: str) -> Any:
        return self.mllaunch("provenance", name, "--json", check=True).document

    def outputs(self, name: str) -> Path:
        return self.home.attempt(self.mllaunch.row(name)["id"]) / "work" / "outputs"

    def weights(self, name: str, step: int) -> Path:
        return self.outputs(name) / f"model-{step}.npz"

    def names(self) -> list[str]:
        return [row["name"] for row in self.mllaunch("ps", "-a", "--json", check=True).document]


@pytest.fixture
def lab(home: Home, repo: Repo, mllaunch: Mllaunch) -> Lab:
    made = Lab(home, repo, mllaunch)
    made.code()
    return made


def assert_refused(lab: Lab, refused: Result, rc: int, *words: str) -> None:
    """One cause in one line, a hint, no traceback; and no run was made of it."""
    assert refused.rc == rc, refused
    assert refused.stdout == ""
    assert "Traceback" not in refused.stderr
    [cause] = [line for line in refused.stderr.splitlines() if line.startswith("error[")]
    assert re.match(r"error\[[a-z_-]+\]: .", cause), refused
    assert re.search(r"^ *hint: .", refused.stderr, re.M), refused
    for word in words:
        assert word in refused.stderr, refused


def test_the_newest_whole_checkpoint_and_the_old_code_are_taken_though_the_project_moved_on(lab: Lab) -> None:
    commit = lab.repo.git("rev-parse", "HEAD")
    first = lab.run("train.py", "--lr", "0.5")
    lab.code("RATE = 100.0\n")
    lab.repo.write("recipe.py", "RATE = 1000.0\n")  # uncommitted besides
    second, done = lab.resume(first)
    assert f"goes on from {first} at step 2\n         outputs/model-2.npz, sha256:" in done.stderr
    assert "args --lr 0.5 resume True init False rate 1.0 first 3" in lab.printed(second)
    assert "sum 200.0" in lab.printed(second)
    told = lab.told(second)
    assert told["code"]["commit"] == commit
    assert told["command"]["params"] == {"lr": "0.5"}
    [edge] = told["lineage"]["parents"]
    assert (edge["name"], edge["kind"], edge["step"], edge["path"]) == (
        first,
        "resume",
        2,
        "outputs/model-2.npz",
    )
    [child] = lab.told(first)["lineage"]["children"]
    assert (child["name"], child["kind"], child["step"], child["checkpoint"]) == (
        second,
        "resume",
        2,
        edge["checkpoint"],
    )


def test_a_step_can_be_named_and_one_that_is_not_there_lists_those_that_are(lab: Lab) -> None:
    first = lab.run()
    second, _ = lab.resume("--step", "1", first)
    assert "first 2" in lab.printed(second)
    before = lab.names()
    refused = lab.mllaunch("resume", "--step", "7", first)
    assert_refused(lab, refused, 3, "error[no_such_step]", "step 7", "steps: 1, 2", "--step 2")
    assert lab.names() == before


def test_the_current_code_is_taken_if_asked_for_and_what_differs_is_said_before_it_starts(lab: Lab) -> None:
    first = lab.run()
    lab.code("RATE = 3.0\nTWICE = 6.0\n")
    before = lab.names()
    planned = lab.mllaunch("resume", "--code", "current", "--dry-run", first, check=True)
    assert f"differs from {first}: recipe.py +2 -1" in planned.stderr
    assert lab.names() == before
    second, done = lab.resume("--code", "current", first)
    assert done.stderr.index("recipe.py +2 -1") < done.stderr.index("placed")
    assert "train.py" not in done.stderr
    assert "resume True init False rate 3.0 first 3" in lab.printed(second)
    lab.repo.write("recipe.py", "RATE = 5.0\n")
    refused = lab.mllaunch("resume", "--code", "current", first)
    assert_refused(lab, refused, 2, "recipe.py")
    third, _ = lab.resume("--code", "current", "--allow-dirty", first)
    assert "rate 5.0" in lab.printed(third)


def test_weights_start_another_run_with_the_current_code_and_the_record_says_so(lab: Lab) -> None:
    first = lab.run()
    commit = lab.code("RATE = 0.25\n")
    second, done = lab.resume("--from-weights", "--step", "1", first)
    assert f"begins with the weights of {first} at step 1" in done.stderr
    assert "resume False init True rate 0.25 first 1" in lab.printed(second)
    assert "sum 75.0" in lab.printed(second)
    told = lab.told(second)
    assert told["code"]["commit"] == commit
    [parent] = told["lineage"]["parents"]
    [child] = lab.told(first)["lineage"]["children"]
    [checkpoint] = [o for o in lab.told(first)["outputs"] if o["step"] == 1]
    for edge, name in ((parent, first), (child, second)):
        assert (edge["name"], edge["kind"], edge["step"]) == (name, "weights", 1)
        assert edge["checkpoint"] == checkpoint["digest"]


def test_arguments_after_two_dashes_are_added_and_what_they_change_is_said(lab: Lab) -> None:
    first = lab.run("train.py", "--lr", "0.5", "--seed", "1")
    second, done = lab.resume(first, "--", "--lr", "0.1", "--step", "9", "--json")
    assert "args --lr 0.5 --seed 1 --lr 0.1 --step 9 --json resume True" in lab.printed(second)
    assert "lr: 0.5 → 0.1" in done.stderr
    assert lab.told(second)["command"]["params"] == {"lr": "0.1", "seed": "1", "step": "9", "json": "true"}


def test_the_configuration_maps_the_checkpoint_to_flags_that_do_not_pile_up(lab: Lab) -> None:
    lab.repo.write(
        "mllaunch.yaml",
        """\
        resume_args: ["--resume", "{checkpoint}"]
        weights_args: ["--init={checkpoint}"]
        """,
    )
    lab.repo.commit()
    first = lab.run("train.py", "--lr", "0.5")
    second, _ = lab.resume(first)
    third, _ = lab.resume(second, "--", "--fast")
    fourth, _ = lab.resume("--from-weights", third)
    folder = lab.home.path / "runs"
    for name, expected in (
        (second, "--lr 0.5 --resume {0}/checkpoint/model-2.npz"),
        (third, "--lr 0.5 --resume {0}/checkpoint/model-4.npz --fast"),
        (fourth, "--lr 0.5 --fast --init={0}/checkpoint/model-6.npz"),
    ):
        told = lab.told(name)
        assert " ".join(told["command"]["args"]) == expected.format(folder / told["run"]["id"] / "1"), name
        assert f"args {' '.join(told['command']['args'])} resume" in lab.printed(name)
    assert lab.told(fourth)["command"]["params"].keys() == {"lr", "fast", "init"}
    assert "first 5" in lab.printed(third)


def test_a_run_that_still_runs_cannot_be_resumed_but_its_weights_start_another(
    lab: Lab, tmp_path: Path
) -> None:
    _, first = lab.mllaunch.submit("--env", f"HOLD={tmp_path / 'go'}", "train.py")
    until(lambda: "sum" in lab.printed(first), f"{first} to have trained")

    def known() -> bool:
        return any(o["step"] == 2 and o["digest"] for o in lab.told(first)["outputs"])

    until(known, "its checkpoints to be known")
    before = lab.names()
    refused = lab.mllaunch("resume", first)
    assert_refused(lab, refused, 2, "error[still_running]", f"mllaunch stop {first}", "--from-weights")
    assert lab.names() == before
    (tmp_path / "gone").touch()
    second, _ = lab.resume("--from-weights", "--env", f"HOLD={tmp_path / 'gone'}", first)
    assert "init True" in lab.printed(second)
    (tmp_path / "go").touch()
    lab.mllaunch.wait_sealed(first)


def test_a_dry_run_starts_nothing_and_json_is_one_document(lab: Lab) -> None:
    first = lab.run()
    planned = lab.mllaunch("resume", "--dry-run", first, check=True)
    assert planned.stdout.startswith("would run   ")
    assert lab.names() == [first]
    as_json = lab.mllaunch("resume", "--dry-run", "--json", first, check=True)
    assert as_json.document["snapshot"]["commit"] == lab.repo.git("rev-parse", "HEAD")
    assert as_json.stderr == ""
    started = lab.mllaunch("resume", "--json", "--name", "again", first, check=True)
    submitted = lab.mllaunch("submit", "--json", "train.py", check=True)
    assert started.document.keys() == submitted.document.keys()
    assert started.document["run"]["name"] == "again"
    for name in ("again", submitted.document["run"]["name"]):
        lab.mllaunch.wait_sealed(name)
    folders = {path.name for path in (lab.home.path / "runs").iterdir()}
    assert folders == {row["id"] for row in lab.mllaunch("ps", "-a", "--json").document}


def test_the_same_code_comes_from_the_run_log_once_the_repository_is_gone(lab: Lab, tmp_path: Path) -> None:
    first = lab.run()
    shutil.rmtree(lab.repo.root)
    lab.mllaunch.cwd = tmp_path
    second, _ = lab.resume(first)
    assert "resume True init False rate 1.0 first 3" in lab.printed(second)
    third, _ = lab.resume(second)
    assert "first 5" in lab.printed(third)
    before = lab.names()
    refused = lab.mllaunch("resume", "--from-weights", first)
    assert_refused(lab, refused, 3, str(lab.repo.root), "--code same")
    assert lab.names() == before


def test_a_secret_of_the_first_run_is_asked_for_again(lab: Lab) -> None:
    train = TRAIN + '    print("key", len(os.environ["API_TOKEN"]), os.environ["COLOUR"], flush=True)\n'
    lab.code(train=train)
    first = lab.run("--env", "API_TOKEN=hunter2hunter2", "--env", "COLOUR=red", "train.py")
    before = lab.names()
    refused = lab.mllaunch("resume", first)
    assert_refused(lab, refused, 2, "API_TOKEN", "--env API_TOKEN=VALUE")
    assert lab.names() == before
    second, _ = lab.resume("--env", "API_TOKEN=swordfish-99", first)
    assert "key 12 red" in lab.printed(second)
    third, _ = lab.resume(first, env={"API_TOKEN": "from-the-environment"})
    assert "key 20 red" in lab.printed(third)
    assert "swordfish" not in lab.mllaunch("provenance", second, "--json").stdout
    fourth, done = lab.resume(third, "--", "--api-key", "open-sesame-7", env={"API_TOKEN": "t" * 8})
    assert "args --api-key" in lab.printed(fourth)
    for shown in (done.stderr, lab.mllaunch("provenance", fourth, "--json").stdout):
        assert "open-sesame" not in shown
    refused = lab.mllaunch("resume", fourth, env={"API_TOKEN": "t" * 8})
    assert_refused(lab, refused, 2, "error[secret]", "-- --api-key VALUE")


def test_data_that_are_gone_are_asked_for_before_anything_starts(lab: Lab) -> None:
    lab.repo.write(".gitignore", "data/\noutputs/\n__pycache__/\n")
    lab.code()
    lab.repo.write("data/a.csv", "1\n")
    first = lab.run("--data", "data", "train.py")
    (lab.repo.root / "data").rename(lab.repo.root.with_name("moved"))
    refused = lab.mllaunch("resume", first)
    assert_refused(lab, refused, 3, "error[data]", str(lab.repo.root / "data"))
    assert lab.names() == [first]


# --- 29: bad checkpoints ------------------------------------------------------------------------------------------


def spoil(path: Path, how: str) -> None:
    """Make what is there something that must not be started from."""
    content = path.read_bytes()
    path.unlink()
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif how == "other-bytes":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif how == "link-loop":
        path.symlink_to(path.name)
    elif how == "pipe":
        os.mkfifo(path)
    elif how == "folder":
        path.mkdir()


BAD = {
    "missing": "it is not there any more",
    "truncated": "bytes are there of",
    "other-bytes": "its bytes are not those that the run wrote",
    "link-loop": "it cannot be read: Too many levels of symbolic links",
    "pipe": "it is no regular file",
    "folder": "its bytes are not those that the run wrote",
}


@pytest.mark.parametrize("how", BAD)
def test_29_a_bad_checkpoint_is_passed_over_for_an_older_whole_one_until_none_is_left(
    lab: Lab, how: str
) -> None:
    first = lab.run()
    spoil(lab.weights(first, 2), how)
    if how in ("missing", "other-bytes"):  # the rest is the same for all of them
        second, done = lab.resume(first)
        assert "first 2" in lab.printed(second)
        assert lab.told(second)["lineage"]["parents"][0]["step"] == 1
    else:
        done = lab.mllaunch("resume", "--dry-run", first, check=True)
    assert "passed over outputs/model-2.npz (step 2): " in done.stderr
    assert BAD[how] in done.stderr
    refused = lab.mllaunch("resume", "--step", "2", first)
    assert_refused(lab, refused, 1, "error[no_whole_checkpoint]", BAD[how])
    before = lab.names()
    spoil(lab.weights(first, 1), how)
    refused = lab.mllaunch("resume", first)
    assert_refused(lab, refused, 1, "error[no_whole_checkpoint]", "model-2.npz", "model-1.npz", BAD[how])
    assert lab.names() == before
    assert len(list((lab.home.path / "runs").iterdir())) == len(before)


def test_29_a_run_without_any_checkpoint_cannot_be_resumed(lab: Lab) -> None:
    lab.code(
        train='import os\nopen(os.environ["MLLAUNCH_OUTPUT_DIR"] + "/notes.txt", "w").write("nothing")\n'
    )
    first = lab.run()
    for options in ((), ("--from-weights",), ("--step", "1")):
        refused = lab.mllaunch("resume", *options, first)
        assert_refused(lab, refused, 3, "error[no_checkpoint]", f"mllaunch files {first}")
    assert lab.names() == [first]


class Bomb:
    """Whoever unpickles it makes a file."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return os.mknod, (self._path,)


def test_29_a_pickle_that_would_run_code_is_never_loaded_by_us(lab: Lab, tmp_path: Path) -> None:
    sign = tmp_path / "it-was-loaded"
    lab.repo.write("bomb.pkl", pickle.dumps(Bomb(str(sign))))
    copying = """\
        import os, shutil
        shutil.copy("bomb.pkl", os.path.join(os.environ["MLLAUNCH_OUTPUT_DIR"], "checkpoint-3.pkl"))
        shutil.copy("bomb.pkl", os.path.join(os.environ["MLLAUNCH_OUTPUT_DIR"], "model_step_4.pt"))
    """
    lab.code(train=copying)
    first = lab.run()
    for options in ((), ("--from-weights",), ("--step", "3"), ("--step", "4")):
        done = lab.mllaunch("resume", "--wait", *options, first)
        assert done.rc in (0, 3), done
        assert "Traceback" not in done.stderr
        if done.rc == 0:
            lab.mllaunch.wait_sealed(done.run_name)
    lab.mllaunch("provenance", os.fspath(lab.outputs(first) / "checkpoint-3.pkl"), check=True)
    lab.mllaunch("provenance", os.fspath(lab.outputs(first)), check=False)
    assert not sign.exists()
