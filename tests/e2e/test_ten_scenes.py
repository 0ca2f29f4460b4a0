"""Ten scenes of "The Machine Learning Reproducibility Crisis" (P. Warden, 2018), and what the record says of each.

The scripts know nothing of mllaunch: they read and write files, as scripts do.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Home, Mllaunch, Repo, until

# Trains for as long as the test wants: after each step it waits until the file go-STEP is there.
TRAIN = """\
    import os, sys, time
    import numpy as np
    import recipe

    steps, start = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None
    out = os.environ["MLLAUNCH_OUTPUT_DIR"]
    weights = np.load(start)["w"] if start else np.zeros(50)
    for step in range(1, steps + 1):
        weights = weights + recipe.RATE * step
        np.savez(os.path.join(out, f"model-{step}.npz"), w=weights, step=step)
        print("step", step, flush=True)
        while os.environ.get("STEPPING") and not os.path.exists(f"{os.environ['STEPPING']}/go-{step}"):
            time.sleep(0.02)
"""
RELOADING = TRAIN.replace(
    "        weights = weights +",
    "        import importlib\n        importlib.reload(recipe)\n        weights = weights +",
)
RESPAWNING = """\
    import multiprocessing, os, time

    def work(_):
        import recipe
        return recipe.RATE

    if __name__ == "__main__":
        import recipe
        context = multiprocessing.get_context("spawn")
        for epoch in (1, 2):
            with context.Pool(1) as pool:
                print("epoch", epoch, pool.map(work, [0]), flush=True)
            while not os.path.exists(f"{os.environ['STEPPING']}/go-{epoch}"):
                time.sleep(0.02)
"""


class Study:
    """A researcher with a repository, a cluster of one machine, and a place for the signs that scripts wait for."""

    def __init__(self, home: Home, repo: Repo, mllaunch: Mllaunch, signs: Path) -> None:
        self.home = home
        self.repo = repo
        self.mllaunch = mllaunch
        self.signs = signs
        signs.mkdir()

    def code(self, train: str = TRAIN, rate: str = "RATE = 1.0\n") -> str:
        self.repo.write("recipe.py", rate)
        self.repo.write("train.py", train)
        return self.repo.commit()

    def run(self, *args: str, options: tuple[str, ...] = ()) -> str:
        """A run to its end, and its record complete; its name."""
        name = self.mllaunch("run", *options, "train.py", *args, check=True).run_name
        self.mllaunch.wait_sealed(name)
        return name

    def begin(self, *args: str, printed: str = "step 1") -> str:
        """A run that waits for signs; its name, once it has begun."""
        option = f"STEPPING={self.signs}"
        _, name = self.mllaunch.submit("--env", option, "train.py", *args)
        until(lambda: printed in self.mllaunch("logs", name).stdout, f"{name} to print {printed}")
        return name

    def sign(self, number: int) -> None:
        (self.signs / f"go-{number}").touch()

    def finish(self, name: str, last: int) -> Any:
        for number in range(1, last + 1):
            self.sign(number)
        self.mllaunch.wait_sealed(name)
        return self.told(name)

    def told(self, name: str) -> Any:
        return self.mllaunch("provenance", name, "--json", check=True).document

    def work(self, name: str) -> Path:
        """The folder that a run works in."""
        return self.home.attempt(self.mllaunch.row(name)["id"]) / "work"

    def weights(self, name: str, step: int) -> Path:
        return self.work(name) / "outputs" / f"model-{step}.npz"

    def changes(self, told: Any) -> list[tuple[str, str]]:
        return [(change["path"], change["in_use"]) for change in told["code"]["changes"]]

    def wait_for_change(self, name: str) -> None:
        until(lambda: self.told(name)["code"]["changes"], f"a change to the code of {name} to be noticed")

    def origin(self, what: Path | str) -> Any:
        return self.mllaunch("provenance", os.fspath(what), "--json", check=True).document


@pytest.fixture
def study(home: Home, repo: Repo, mllaunch: Mllaunch, tmp_path: Path) -> Study:
    return Study(home, repo, mllaunch, tmp_path / "signs")


def test_scene_1_code_is_edited_at_home_while_the_job_runs(study: Study) -> None:
    commit = study.code()
    name = study.begin("2")
    study.repo.write("recipe.py", "RATE = 100.0\n")
    told = study.finish(name, 2)
    assert (told["code"]["commit"], told["code"]["changes"]) == (commit, [])
    assert [node["matches_commit"] for node in told["code"]["nodes"]] == [True]
    assert told["outputs"][0]["code"] == [told["code"]["tree"]]


def test_scene_2_a_file_is_edited_in_the_runs_folder_and_never_loaded_again(study: Study) -> None:
    study.code()
    name = study.begin("2")
    (study.work(name) / "recipe.py").write_text("RATE = 100.0\n")
    study.wait_for_change(name)
    told = study.finish(name, 2)
    assert study.changes(told) == [("recipe.py", "no")]
    assert told["outputs"][-1]["code"] == [told["code"]["tree"]]
    assert "was not loaded afterwards: recipe.py" in study.mllaunch("show", name).stdout


def test_scene_2_a_file_is_edited_in_the_runs_folder_and_reloaded(study: Study) -> None:
    study.code(RELOADING)
    name = study.begin("2")
    (study.work(name) / "recipe.py").write_text("RATE = 100.0\n")
    told = study.finish(name, 2)
    assert study.changes(told) == [("recipe.py", "yes")]
    trees = {Path(o["path"]).name: o["code"] for o in told["outputs"] if o["kind"] == "checkpoint"}
    assert trees["model-1.npz"] == [told["code"]["tree"]]
    assert len(trees["model-2.npz"]) == 2  # that of the commit, then that with the edit
    patch = study.mllaunch("provenance", name, "--diff", check=True).stdout
    assert "-RATE = 1.0\n+RATE = 100.0\n" in patch
    study.repo.write("../patch", patch)
    study.repo.git("apply", "--check", "../patch")
    study.repo.git("apply", "../patch")
    assert (study.repo.root / "recipe.py").read_text() == "RATE = 100.0\n"


def test_scene_2_a_file_is_edited_in_the_runs_folder_and_loaded_by_new_workers(study: Study) -> None:
    study.code(RESPAWNING)
    name = study.begin(printed="epoch 1 [1.0]")
    (study.work(name) / "recipe.py").write_text("RATE = 100.0\n")
    told = study.finish(name, 2)
    assert "epoch 2 [100.0]" in study.mllaunch("logs", name).stdout
    assert study.changes(told) == [("recipe.py", "yes")]
    [mixed] = told["code"]["mixed"]
    assert (mixed["path"], len(mixed["versions"])) == ("recipe.py", 2)
    assert "mixed code" in study.mllaunch("ps").stdout
    assert study.mllaunch.row(name)["mixed_code"] is True
    assert "mixed code" in study.mllaunch("show", name).stdout
    assert "MIXED CODE" in study.mllaunch("provenance", name).stdout


def test_scene_3_a_file_is_changed_between_two_attempts(study: Study) -> None:
    failing = TRAIN.replace(
        "        while os.environ",
        "        if not os.path.exists(os.environ['SIGN']): sys.exit(3)\n        while os.environ",
    )
    study.code(failing)
    sign = study.signs / "second"
    # The first attempt fails at once; the second works on what the first was given, whatever the repository holds.
    study.repo.write("train.py", failing)
    study.repo.commit()
    _, name = study.mllaunch.submit("--max-retries", "50", "--env", f"SIGN={sign}", "train.py", "1")
    until(lambda: study.mllaunch.row(name)["attempt"] > 1, "a second attempt")
    study.repo.write("recipe.py", "RATE = 100.0\n")
    sign.touch()
    study.mllaunch.wait_sealed(name)
    told = study.told(name)
    assert told["run"]["state"] == "succeeded"
    assert len(told["attempts"]) > 1
    assert {node["attempt"] for node in told["code"]["nodes"]} == {a["number"] for a in told["attempts"]}
    assert all(node["matches_commit"] for node in told["code"]["nodes"])
    assert told["code"]["changes"] == []


def test_scene_4_weights_of_one_run_start_another_with_other_code(study: Study) -> None:
    study.code()
    first = study.run("2")
    study.code(rate="RATE = 0.5\n")
    second = study.run("1", os.fspath(study.weights(first, 2)))
    told = study.told(second)
    [parent] = told["lineage"]["parents"]
    assert (parent["name"], parent["kind"], parent["step"], parent["evidence"]) == (
        first,
        "weights",
        2,
        "content",
    )
    [weights] = [entry for entry in told["inputs"] if entry["kind"] == "checkpoint"]
    assert weights["produced_by"]["name"] == first
    assert [child["name"] for child in study.told(first)["lineage"]["children"]] == [second]


def test_scene_5_weights_are_copied_renamed_and_start_a_third_run(study: Study, tmp_path: Path) -> None:
    study.code()
    first = study.run("2")
    second = study.run("3", os.fspath(study.weights(first, 2)))
    elsewhere = tmp_path / "shared" / "good-one.npz"
    elsewhere.parent.mkdir()
    shutil.copy(study.weights(second, 3), elsewhere)
    third = study.run("1", os.fspath(elsewhere))
    [parent] = study.told(third)["lineage"]["parents"]
    assert (parent["name"], parent["step"], parent["path"]) == (second, 3, "outputs/model-3.npz")
    made = study.origin(study.weights(third, 1))
    assert made["written_by"][0]["run"]["name"] == third
    [from_second] = made["ancestors"]
    [from_first] = from_second["from"]
    assert (from_second["produced_by"]["name"], from_first["produced_by"]["name"]) == (second, first)
    graph = study.mllaunch("provenance", os.fspath(study.weights(third, 1)), "--dot", check=True).stdout
    assert all(name in graph for name in (first, second, third))


READ_ALL = """\
    import os
    total = sum(len(open(os.path.join("data", name)).read()) for name in sorted(os.listdir("data")))
    print("read", total)
"""


def with_data(study: Study) -> Path:
    study.repo.write(".gitignore", "data/\noutputs/\n")
    study.repo.write("train.py", READ_ALL)
    study.repo.commit()
    for number in range(5):
        study.repo.write(f"data/{number}.csv", f"{number},1\n")
    return study.repo.root / "data"


def test_scene_6_a_file_is_removed_from_the_data_between_two_runs(study: Study) -> None:
    data = with_data(study)
    first = study.run(options=("--data", "data"))
    (data / "3.csv").unlink()
    second = study.run(options=("--data", "data"))
    [before], [after] = (study.told(name)["inputs"] for name in (first, second))
    assert (before["files"], after["files"]) == (5, 4)
    assert before["digest"] != after["digest"]
    assert (before["read"], after["read"]) == ({"count": 5, "exact": True}, {"count": 4, "exact": True})


def test_scene_7_a_data_file_is_edited_in_place_and_its_times_are_restored(study: Study) -> None:
    data = with_data(study)
    first = study.run(options=("--data", "data"))
    times = (data / "2.csv").stat()
    with (data / "2.csv").open("r+") as file:
        file.write("9")
    os.utime(data / "2.csv", ns=(times.st_atime_ns, times.st_mtime_ns))
    second = study.run(options=("--data", "data"))
    [before], [after] = (study.told(name)["inputs"] for name in (first, second))
    assert before["size_bytes"] == after["size_bytes"]
    assert before["digest"] != after["digest"]


def test_scene_8_the_best_weights_are_found_months_later_and_asked_where_they_come_from(
    study: Study, tmp_path: Path
) -> None:
    commit = study.code()
    name = study.run("3", options=("--note", "the good one"))
    best = tmp_path / "best-FINAL-v2.npz"
    shutil.copy(study.weights(name, 2), best)
    study.code(rate="RATE = 7.0\n")  # the project has moved on, and the runs' folders are cleared away
    study.mllaunch("prune", name, "--outputs", "--yes", check=True)
    shutil.rmtree(study.repo.root / ".git")
    made = study.origin(best)
    [place] = made["written_by"]
    assert (place["run"]["name"], place["step"], place["path"]) == (name, 2, "outputs/model-2.npz")
    assert place["code"]["commit"] == commit
    study.mllaunch("checkout", name, os.fspath(tmp_path / "then"), check=True)
    assert (tmp_path / "then" / "recipe.py").read_text() == "RATE = 1.0\n"


def test_scene_9_the_final_code_is_committed_in_another_repository(
    study: Study, home: Home, tmp_path: Path
) -> None:
    study.code()
    name = study.run("1")
    published = Repo(tmp_path / "published", home.environ)
    for file in ("train.py", "recipe.py"):
        shutil.copy(study.repo.root / file, published.root / file)
    published.write("README.md", "Our paper's code")
    commit = published.commit("release")
    same = study.mllaunch("provenance", name, "--against", "HEAD", "--json", cwd=published.root)
    assert (same.rc, same.document["commit"]) == (0, commit)
    assert same.document["same"] == ["recipe.py", "train.py"]
    published.write("recipe.py", "RATE = 0.999\n")
    published.commit("tidy up")
    other = study.mllaunch("provenance", name, "--against", "HEAD", cwd=published.root)
    assert other.rc == 1
    assert "1 of 2 files that it executed are the same" in other.stdout
    assert "recipe.py" in other.stdout


def test_scene_10_a_published_folder_of_code_and_weights_is_checked(study: Study, tmp_path: Path) -> None:
    study.code()
    name = study.run("2")
    folder = tmp_path / "release"
    folder.mkdir()
    for file in ("train.py", "recipe.py"):
        shutil.copy(study.repo.root / file, folder / file)
    shutil.copy(study.weights(name, 2), folder / "weights.npz")
    found = study.mllaunch("provenance", os.fspath(folder), "--json")
    assert found.rc == 0
    [known] = [file for file in found.document["files"] if file["made_by"]]
    assert (known["path"], known["made_by"]["run"]["name"], known["made_by"]["step"]) == (
        "weights.npz",
        name,
        2,
    )
    [compared] = found.document["code"]
    assert compared["same"] == ["recipe.py", "train.py"]
    (folder / "recipe.py").write_text("RATE = 3.0\n")
    assert study.mllaunch("provenance", os.fspath(folder)).rc == 1
