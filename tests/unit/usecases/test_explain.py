from __future__ import annotations

import pytest

from mllaunch.domain.job import JobSpec, Resources
from mllaunch.domain.run import Run
from mllaunch.domain.snapshot import Snapshot
from mllaunch.usecases.explain import uncommitted

SNAPSHOT = Snapshot("c" * 40, "t" * 40, "c" * 40, False, (), "main", "/repo", "/repo/.git", None, "refs/x")
WORK = "/home/runs/1/work"


def run(workdir: str = "", data: tuple[str, ...] = ()) -> Run:
    job = JobSpec(("python", "train.py"), "train.py", (), workdir, Resources(), "digits", data=data)
    return Run("id", "name", job, SNAPSHOT, (), "2026-01-01T00:00:00Z", "ann", "here")


def no_file(path: str) -> str:
    return f"Traceback (most recent call last):\nFileNotFoundError: [Errno 2] No such file or directory: '{path}'\n"


@pytest.mark.parametrize(
    ("path", "workdir", "here", "data"),
    [
        ("data/train/x.csv", "", "/repo/data/train", "data/train"),
        (f"{WORK}/data/x.csv", "", "/repo/data", "data"),
        ("x.csv", "", "/repo", "x.csv"),
        ("x.csv", "sub", "/repo/sub", "x.csv"),
    ],
)
def test_a_missing_file_that_lies_in_the_working_tree_is_explained(
    path: str, workdir: str, here: str, data: str
) -> None:
    there = {here, f"{here}/x.csv"}
    (hint,) = uncommitted(no_file(path), run(workdir), WORK, there.__contains__)
    assert "x.csv is in your working tree but not in the commit" in hint and hint.endswith(f"--data {data}")


@pytest.mark.parametrize(("path", "workdir"), [("data/train/x.csv", ""), ("../data/train/x.csv", "sub")])
def test_a_missing_file_of_data_that_the_run_was_given_is_not_to_be_given_again(
    path: str, workdir: str
) -> None:
    given = run(workdir, data=("data/tr", "data/train"))
    (hint,) = uncommitted(no_file(path), given, WORK, lambda path: True)
    assert (
        hint == f"{path} is here, but was not where the run was: its data must lie there at /repo/data/train"
    )


def test_a_module_that_was_never_added_is_explained() -> None:
    (hint,) = uncommitted(
        "ModuleNotFoundError: No module named 'helper'\n", run(), WORK, {"/repo/helper.py"}.__contains__
    )
    assert "git add helper.py" in hint


@pytest.mark.parametrize("tail", ["", "ValueError: 3\n", no_file("gone.csv"), no_file("/etc/none")])
def test_nothing_is_said_where_nothing_is_known(tail: str) -> None:
    assert uncommitted(tail, run(), WORK, lambda path: False) == []
