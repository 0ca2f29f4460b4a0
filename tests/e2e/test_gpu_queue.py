"""The queue for GPUs: first come, first served; everyone is told whom they wait for."""

from __future__ import annotations

from pathlib import Path

from tests.e2e.harness import Home, Mllaunch, Repo, until

GPUS = {"MLLAUNCH_FAKE_GPUS": "4"}


def held(mllaunch: Mllaunch, name: str, gpus: int) -> str:
    """A run that keeps its GPUs until the file of its name appears; returned once it waits or runs."""
    wait = f"echo {name} >> $HOME/started; until [ -e $HOME/end-{name} ]; do sleep 0.05; done"
    mllaunch("submit", "--gpus", str(gpus), "--name", name, "--", "sh", "-c", wait, env=GPUS, check=True)
    until(
        lambda: mllaunch.row(name)["waiting"] or mllaunch.row(name)["state"] == "running",
        f"{name} to wait or run",
    )
    return name


def release(mllaunch: Mllaunch, name: str) -> None:
    (mllaunch.home.user / f"end-{name}").touch()


def test_first_come_is_first_served_and_ps_says_who_waits_for_whom(mllaunch: Mllaunch) -> None:
    held(mllaunch, "holder", 3)
    assert mllaunch.row("holder")["state"] == "running"
    held(mllaunch, "large", 2)
    held(mllaunch, "small", 1)
    # One GPU is free, and yet the small run does not overtake the large one.
    large, small = mllaunch.row("large"), mllaunch.row("small")
    assert (large["state"], small["state"]) == ("queued", "queued")
    assert "waits for 2 GPUs" in large["waiting"] and "held by holder (" in large["waiting"]
    until(lambda: "behind large" in mllaunch.row("small")["waiting"], "the small run to know whom it follows")
    assert "held by holder" in mllaunch("ps", check=True).stdout
    release(mllaunch, "holder")
    mllaunch.wait("large", "running")
    mllaunch.wait("small", "running")
    started = (mllaunch.home.user / "started").read_text().split()
    assert started[0] == "holder" and set(started[1:]) == {"large", "small"}
    for name in ("large", "small"):
        release(mllaunch, name)
        assert mllaunch.wait(name)["state"] == "succeeded"


def test_runs_at_the_same_time_never_share_a_gpu(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script(
        """
        import os, sys, time
        mine = [os.environ["HOME"] + "/gpu-" + uuid for uuid in os.environ["CUDA_VISIBLE_DEVICES"].split(",")]
        for path in mine:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
        time.sleep(0.2)
        for path in mine:
            os.unlink(path)
        """
    )
    names = [mllaunch.submit("--gpus", str(1 + n % 3), "train.py", env=GPUS)[1] for n in range(8)]
    assert [mllaunch.wait(name)["exit_code"] for name in names] == [0] * 8


def test_more_than_the_machine_has_is_refused_at_once(mllaunch: Mllaunch) -> None:
    refused = mllaunch("submit", "--gpus", "5", "--", "true", env=GPUS)
    assert refused.rc == 2
    assert "--gpus 5: this machine has 4 GPUs" in refused.stderr
    assert not (mllaunch.home.path / "runs").exists()


def test_without_any_gpu_it_says_why_none_can_be_used(mllaunch: Mllaunch) -> None:
    refused = mllaunch("submit", "--gpus", "1", "--", "true")
    if refused.rc == 0:  # a machine that has one
        mllaunch("stop", "--now", "@last")
        return
    assert refused.rc == 2 and "this machine has no GPU that can be used" in refused.stderr


def test_a_killed_task_frees_its_gpus(mllaunch: Mllaunch) -> None:
    done = mllaunch("run", "--gpus", "4", "--", "sh", "-c", "kill -9 $$", env=GPUS)
    assert done.rc == 128 + 9
    assert mllaunch("run", "--gpus", "4", "--", "true", env=GPUS).rc == 0


def test_the_leases_are_shared_by_all_homes_of_the_node(
    mllaunch: Mllaunch, other_home: Home, repo: Repo, tmp_path: Path
) -> None:
    other = Mllaunch(other_home, repo.root)
    held(other, "theirs", 4)
    held(mllaunch, "ours", 1)
    assert "held by theirs (" in mllaunch.row("ours")["waiting"]
    release(other, "theirs")
    mllaunch.wait("ours", "running")
    release(mllaunch, "ours")
    assert mllaunch.wait("ours")["state"] == other.wait("theirs")["state"] == "succeeded"
