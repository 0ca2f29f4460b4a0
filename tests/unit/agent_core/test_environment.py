from __future__ import annotations

from mllaunch_agent.environment import AGENT_MARK, Inside, task_environment
from mllaunch_agent.protocol import TaskPlace, TaskSpec
from tests.unit.agent_core.specs import spec


def made(task: TaskSpec, rank: int = 0, gpus: tuple[str, ...] = ()) -> dict[str, str]:
    place: TaskPlace = {"rank": rank, "local_rank": rank}
    return task_environment(
        task, place, gpus, ("127.0.0.1", 29500), "/work", Inside("/trace", "/hook", "/work", None)
    )


def test_the_users_variables_come_first_and_ours_define_the_place() -> None:
    task = spec(environment={"MINE": "1", "RANK": "77", "PWD": "/elsewhere"})
    environ = made(task)
    assert (environ["MINE"], environ["RANK"], environ["PWD"]) == ("1", "0", "/work")


def test_the_mark_of_our_own_processes_is_never_a_tasks() -> None:
    assert AGENT_MARK not in made(spec(environment={AGENT_MARK: "1"}))


def test_buffering_and_bytecode_are_the_users_to_choose() -> None:
    assert made(spec())["PYTHONUNBUFFERED"] == "1"
    chosen = made(spec(environment={"PYTHONUNBUFFERED": "", "PYTHONDONTWRITEBYTECODE": ""}))
    assert (chosen["PYTHONUNBUFFERED"], chosen["PYTHONDONTWRITEBYTECODE"]) == ("", "")


def test_a_run_without_gpus_sees_none_and_one_with_gpus_only_its_own() -> None:
    assert made(spec())["CUDA_VISIBLE_DEVICES"] == ""
    assert made(spec(), gpus=("GPU-a", "GPU-b"))["CUDA_VISIBLE_DEVICES"] == "GPU-a,GPU-b"


def test_torchrun_is_told_one_worker_for_each_gpu_or_each_task() -> None:
    two = spec(tasks=[{"rank": 0, "local_rank": 0}, {"rank": 1, "local_rank": 1}], world_size=2)
    assert made(spec())["PET_NPROC_PER_NODE"] == "1"
    assert made(spec(), gpus=("a", "b", "c"))["PET_NPROC_PER_NODE"] == "3"
    assert made(two, 1, gpus=("a", "b", "c"))["PET_NPROC_PER_NODE"] == "2"
    assert (made(two, 1)["RANK"], made(two, 1)["WORLD_SIZE"], made(two, 1)["LOCAL_WORLD_SIZE"]) == (
        "1",
        "2",
        "2",
    )


def test_the_output_folder_is_absolute_also_when_it_was_asked_for_so() -> None:
    assert made(spec(output="results"))["MLLAUNCH_OUTPUT_DIR"] == "/work/results"
    assert made(spec(output="/data/results"))["MLLAUNCH_OUTPUT_DIR"] == "/data/results"
