"""What a task finds in its environment: the contract with the user's program."""

from __future__ import annotations

import json

import pytest

from tests.e2e.harness import Mllaunch, Repo

PRINT = "import json, os\nprint(json.dumps({**os.environ, 'cwd': os.getcwd()}))"


def environments(mllaunch: Mllaunch, ranks: int) -> list[dict[str, str]]:
    return [
        json.loads(mllaunch("logs", "--raw", "--rank", str(rank), "@last", check=True).stdout)
        for rank in range(ranks)
    ]


def test_each_rank_finds_its_place_in_the_words_of_torch(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script(PRINT)
    mllaunch("run", "--procs-per-node", "3", "--name", "ranks", "train.py", check=True)
    found = environments(mllaunch, 3)
    run = mllaunch.row("ranks")
    for rank, environ in enumerate(found):
        expected = {
            "MLLAUNCH_RUN_ID": run["id"],
            "MLLAUNCH_RUN_NAME": "ranks",
            "MLLAUNCH_ATTEMPT": "1",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "NODE_RANK": "0",
            "WORLD_SIZE": "3",
            "LOCAL_WORLD_SIZE": "3",
            "PET_NNODES": "1",
            "PET_NODE_RANK": "0",
            "PET_NPROC_PER_NODE": "3",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        assert {name: environ.get(name) for name in expected} == expected
        assert environ["MLLAUNCH_OUTPUT_DIR"] == f"{environ['cwd']}/outputs"
        assert environ["MASTER_ADDR"] == environ["PET_MASTER_ADDR"] == "127.0.0.1"
        assert environ["MASTER_PORT"] == environ["PET_MASTER_PORT"]
        # What belongs to us alone is not the task's concern.
        assert "MLLAUNCH_AGENT" not in environ
    assert len({environ["MASTER_PORT"] for environ in found}) == 1


def test_the_submitters_environment_is_the_tasks_and_theirs_is_the_last_word(
    mllaunch: Mllaunch, repo: Repo
) -> None:
    repo.script(PRINT)
    env = {"MINE": "kept", "PYTHONUNBUFFERED": "", "HF_HOME": "/hf"}
    mllaunch("run", "--env", "ADDED=a=b", "--env", "HF_HOME", "train.py", env=env, check=True)
    (environ,) = environments(mllaunch, 1)
    assert (environ["MINE"], environ["ADDED"], environ["HF_HOME"]) == ("kept", "a=b", "/hf")
    assert environ["PYTHONUNBUFFERED"] == ""


def test_the_output_folder_is_what_was_asked_for_and_is_there(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script("import os\nprint(os.path.isdir(os.environ['MLLAUNCH_OUTPUT_DIR']))\n" + PRINT)
    done = mllaunch("run", "--output", "results/today", "train.py", check=True)
    first, second = done.stdout.splitlines()
    assert first == "True"
    environ = json.loads(second)
    assert environ["MLLAUNCH_OUTPUT_DIR"] == environ["cwd"] + "/results/today"


def test_standard_input_is_empty_and_no_foreign_file_is_open(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script(
        """
        import os, sys
        print(repr(sys.stdin.read()))
        print(sorted(int(fd) for fd in os.listdir("/proc/self/fd"))[:4])
        """
    )
    done = mllaunch("run", "train.py", stdin=b"not for the task", check=True)
    # 3 is the listing itself.
    assert done.stdout == "''\n[0, 1, 2, 3]\n"


@pytest.mark.parametrize("gpus", [1, 2])
def test_leased_gpus_are_the_visible_ones(mllaunch: Mllaunch, repo: Repo, gpus: int) -> None:
    repo.script(PRINT)
    fake = {"MLLAUNCH_FAKE_GPUS": "4"}
    mllaunch("run", "--gpus", str(gpus), "train.py", env=fake, check=True)
    (environ,) = environments(mllaunch, 1)
    assert len(set(environ["CUDA_VISIBLE_DEVICES"].split(","))) == gpus
    assert environ["PET_NPROC_PER_NODE"] == str(gpus)


def test_one_task_for_each_gpu(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script(PRINT)
    fake = {"MLLAUNCH_FAKE_GPUS": "4"}
    mllaunch("run", "--gpus", "2", "--procs-per-node", "auto", "train.py", env=fake, check=True)
    found = environments(mllaunch, 2)
    assert [environ["WORLD_SIZE"] for environ in found] == ["2", "2"]
    # torchrun's convention: each process sees all of them and takes the one of its LOCAL_RANK.
    assert len({environ["CUDA_VISIBLE_DEVICES"] for environ in found}) == 1
