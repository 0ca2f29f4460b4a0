"""GPUs in containers: which ones get in, and that a run never goes on without those that it asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.harness import Home, Mllaunch, Repo
from tests.testbed import gpus, images
from tests.testbed.engine import Engine
from tests.testbed.gpus import GpuHook
from tests.testbed.nvml import FakeNvml, fake_nvml

__all__ = ["fake_nvml"]

pytestmark = pytest.mark.real("engine", "busybox", "gcc")


@pytest.fixture(autouse=True)
def _machine(home: Home, repo: Repo, fake_nvml: FakeNvml, gpu_hook: GpuHook, tiny_image: str) -> None:
    """A machine with four GPUs, known to NVML and to the engine alike."""
    uuids = [gpus.uuid(index) for index in range(4)]
    fake_nvml.set(*[f"uuid={uuid}" for uuid in uuids])
    gpu_hook.set(*uuids)
    home.environ.update(fake_nvml.environment)
    repo.write("mllaunch.yaml", f"image: {{base: {tiny_image}}}\n")
    repo.commit()


def leased(mllaunch: Mllaunch) -> list[str]:
    mllaunch.wait_sealed("@last")
    document: Any = mllaunch("provenance", "@last", "--json", check=True).document
    return [gpu["uuid"] for gpu in document["hosts"][0]["gpus"] if gpu["leased"]]


def test_a_container_has_the_leased_gpus_and_no_others(mllaunch: Mllaunch) -> None:
    script = "ls /dev | grep -c '^nvidia[0-9]'; cat /run/visible-gpus; env"
    done = mllaunch("run", "--gpus", "2", "--", "sh", "-c", script)
    assert done.rc == 0, done.stderr
    count, *lines = done.stdout.splitlines()
    assert count == "2"
    found = leased(mllaunch)
    assert len(found) == 2
    assert all(uuid in "\n".join(lines) for uuid in found)
    assert "CUDA_VISIBLE_DEVICES" not in done.stdout
    assert "MLLAUNCH_GPUS_WANTED" not in done.stdout


def test_a_run_that_leased_none_sees_none_even_where_its_image_asks_for_all(mllaunch: Mllaunch) -> None:
    done = mllaunch("run", "--", "sh", "-c", "ls /dev | grep nvidia; echo $NVIDIA_VISIBLE_DEVICES")
    assert done.stdout == "void\n"


def test_gpus_that_do_not_arrive_in_the_container_fail_the_run_before_its_program_starts(
    mllaunch: Mllaunch, gpu_hook: GpuHook
) -> None:
    gpu_hook.set(*[gpus.uuid(index) for index in range(4)], silent=True)
    done = mllaunch("run", "--gpus", "1", "--", "echo", "started")
    assert done.rc not in (0, None)
    assert "started" not in done.stdout
    assert "GPUs were asked for, and the container has none" in done.stderr
    assert mllaunch.row("@last")["reason"]["code"] == "not_started"


def test_an_engine_without_the_nvidia_runtime_is_said_to_be_one(
    mllaunch: Mllaunch, home: Home, repo: Repo, new_engine: Callable[..., Engine]
) -> None:
    engine = new_engine()
    home.environ.update(engine.environment)
    repo.write("mllaunch.yaml", f"image: {{base: {images.load_tiny(engine)}}}\n")
    repo.commit()
    done = mllaunch("run", "--gpus", "1", "--", "echo", "started")
    assert done.rc not in (0, None)
    assert "is the NVIDIA container toolkit installed on this node?" in done.stderr
    mllaunch.wait_sealed("@last")
    assert not engine.docker("ps", "--all", "--quiet").stdout
