"""What an engine can do to a run, and to a submission."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conformance.images import images_of
from tests.e2e.harness import Home, Mllaunch, Repo, until
from tests.testbed import images
from tests.testbed.engine import Engine

pytestmark = pytest.mark.real("engine", "busybox")

LINES = 60
DISK_BYTES = 48 << 20
SCRIPT = f"i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); sleep 0.1; done; exit 6"
EVERYTHING = b"".join(b"line %d\n" % i for i in range(LINES))


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """Without an engine, which each test brings."""
    made = Home(tmp_path / "h")
    yield made
    left = made.close()
    assert not left, f"processes were left behind (and have been killed): {left}"
    assert not made.complaints()


@pytest.fixture
def own(home: Home, repo: Repo, new_engine: Callable[..., Engine]) -> Callable[..., Engine]:
    """Start an engine that belongs to the test, for the user to work with."""

    def start(**options: object) -> Engine:
        engine = new_engine(**options)
        home.environ.update(engine.environment)
        repo.write("mllaunch.yaml", f"image: {{base: {images.load_tiny(engine)}}}\n")
        repo.commit()
        return engine

    return start


def printed(mllaunch: Mllaunch) -> bytes:
    return bytes(mllaunch("logs", "@last", "--raw", check=True).stdout_bytes)


def begin(mllaunch: Mllaunch) -> str:
    run = mllaunch("submit", "--", "sh", "-c", SCRIPT, check=True).run_name
    until(lambda: b"line 3\n" in printed(mllaunch), "the run to print")
    return run


@pytest.mark.parametrize("kill", [False, True], ids=["asked to end", "killed"])
def test_an_engine_that_restarts_under_a_run_loses_no_byte_and_no_exit_code(
    mllaunch: Mllaunch, own: Callable[..., Engine], kill: bool
) -> None:
    engine = own(live_restore=True)
    run = begin(mllaunch)
    engine.restart(kill=kill)
    assert mllaunch.wait_sealed(run)["exit_code"] == 6
    assert printed(mllaunch) == EVERYTHING


def test_a_task_that_ends_while_its_engine_is_away_still_has_its_exit_code(
    mllaunch: Mllaunch, own: Callable[..., Engine]
) -> None:
    engine = own(live_restore=True)
    run = begin(mllaunch)
    engine.halt(kill=True)
    until(lambda: printed(mllaunch) == EVERYTHING, "the task to end by itself")
    engine.start()
    assert mllaunch.wait_sealed(run)["exit_code"] == 6


def test_an_engine_that_takes_its_containers_along_is_named_as_the_cause(
    mllaunch: Mllaunch, own: Callable[..., Engine]
) -> None:
    engine = own()
    run = begin(mllaunch)
    engine.restart()
    row = mllaunch.wait_sealed(run)
    assert (row["state"], row["reason"]["code"]) == ("failed", "engine_stopped")
    assert row["reason"]["origin"] == "infrastructure"
    assert printed(mllaunch).startswith(b"line 0\nline 1\n")


def test_a_container_that_somebody_stops_is_no_failure_of_the_program(
    mllaunch: Mllaunch, own: Callable[..., Engine]
) -> None:
    engine = own()
    run = begin(mllaunch)
    engine.docker("kill", engine.docker("ps", "--quiet").stdout.strip())
    assert mllaunch.wait_sealed(run)["reason"]["code"] == "engine_stopped"


def test_a_container_that_somebody_removes_has_an_exit_that_nobody_knows(
    mllaunch: Mllaunch, own: Callable[..., Engine]
) -> None:
    engine = own()
    run = begin(mllaunch)
    engine.docker("rm", "--force", engine.docker("ps", "--quiet").stdout.strip())
    row = mllaunch.wait_sealed(run)
    assert row["state"] == "failed"
    assert row["exit_code"] in (None, 137)
    missing = mllaunch("provenance", run, "--json", check=True).document["not_captured"]
    assert any("outside of the output folder" in entry["what"] for entry in missing)


def test_an_engine_that_ends_in_the_midst_of_a_build_leaves_no_run_and_no_debris(
    mllaunch: Mllaunch, own: Callable[..., Engine], repo: Repo
) -> None:
    engine = own()
    base = images.load_tiny(engine)
    repo.write("Dockerfile", f"FROM {base}\nRUN echo begun && sleep 30\n")
    repo.write("mllaunch.yaml", "image: {dockerfile: Dockerfile}\n")
    repo.commit()
    before = images_of(engine)
    started = mllaunch.start("submit", "--", "true")
    started.wait_for("Step 2/")
    until(lambda: engine.docker("ps", "--quiet").stdout, "the build to run")
    engine.halt(kill=True)
    done = started.end()
    assert done.rc == 1
    assert re.search(r"error\[engine_gone\]: the container engine stopped answering", done.stderr)
    engine.start()
    assert images_of(engine) == before
    assert not mllaunch("ps", "-a", "--json", check=True).document
    engine.docker("container", "prune", "--force")


def test_ctrl_c_in_the_midst_of_a_build_leaves_nothing(
    mllaunch: Mllaunch, own: Callable[..., Engine], repo: Repo
) -> None:
    engine = own()
    base = images.load_tiny(engine)
    repo.write("Dockerfile", f"FROM {base}\nRUN echo begun > /begun\nRUN sleep 30\n")
    repo.write("mllaunch.yaml", "image: {dockerfile: Dockerfile}\n")
    repo.commit()
    before = images_of(engine)
    started = mllaunch.start("submit", "--", "true")
    started.wait_for("Step 3/")
    until(lambda: engine.docker("ps", "--quiet").stdout, "the build to run")
    started.interrupt()
    assert started.end().rc == 130
    until(lambda: not engine.docker("ps", "--all", "--quiet").stdout, "the build's container to go")
    assert images_of(engine) == before


@pytest.mark.parametrize("what", ["the code", "a step of the build"])
def test_an_engine_whose_disk_is_full_says_so_and_keeps_nothing_half_made(
    mllaunch: Mllaunch, own: Callable[..., Engine], repo: Repo, what: str, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", disk], check=True)
    folder = tmp_path / "mounted"
    folder.mkdir()
    subprocess.run(["mount", "-o", "loop", disk, folder], check=True)
    try:
        engine = own(arguments=[f"--data-root={folder}/data"])
        base = images.load_tiny(engine)
        if what == "the code":
            repo.write("large.bin", os.urandom(DISK_BYTES))
        else:
            fill = f"RUN dd if=/dev/zero of=/large bs=1048576 count={DISK_BYTES >> 20}"
            repo.write("Dockerfile", f"FROM {base}\n{fill}\n")
            repo.write("mllaunch.yaml", "image: {dockerfile: Dockerfile}\n")
        repo.commit()
        done = mllaunch("submit", "--", "true")
        assert done.rc == 1
        assert "error[disk_full]: the engine has no room for it" in done.stderr
        assert "hint: mllaunch image prune" in done.stderr
        assert not mllaunch("ps", "-a", "--json", check=True).document
        assert not engine.docker("ps", "--all", "--quiet").stdout
        assert not engine.docker("images", "--quiet", "--filter", "dangling=true").stdout
        engine.stop()
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_an_engine_that_is_not_there_or_not_permitted_is_said_in_one_line(
    mllaunch: Mllaunch, home: Home, repo: Repo, tmp_path: Path
) -> None:
    repo.commit()
    done = mllaunch("submit", "--runtime", "docker", "--", "true")
    assert done.rc == 1
    assert "error[no_engine]: no container engine answers at" in done.stderr
    assert "hint:" in done.stderr
    remote = mllaunch("run", "--", "true", env={"DOCKER_HOST": "tcp://127.0.0.1:1"})
    assert "DOCKER_HOST=tcp://127.0.0.1:1 is no unix socket of this machine" in remote.stderr
    assert remote.rc == 0
    dead = tmp_path / "not-a-socket"
    dead.write_text("")
    assert mllaunch("run", "--", "true", env={"DOCKER_HOST": f"unix://{dead}"}).rc == 0


def test_an_image_that_has_been_removed_since_is_made_again(
    mllaunch: Mllaunch, own: Callable[..., Engine]
) -> None:
    engine = own()
    first = mllaunch("submit", "--json", "--", "true", check=True).document["image"]["digest"]
    mllaunch.wait_sealed("@last")
    engine.docker("rmi", "--force", first)
    assert mllaunch("submit", "--json", "--", "true", check=True).document["image"]["digest"] == first
    mllaunch.wait_sealed("@last")


def test_another_user_of_the_engine_is_no_concern_of_ours(
    mllaunch: Mllaunch, own: Callable[..., Engine]
) -> None:
    engine = own()
    base = images.load_tiny(engine)
    engine.docker("run", "--detach", "--name", "somebody-elses", base, "sleep", "100")
    engine.docker("run", "--name", "ended-long-ago", base, "true")
    assert mllaunch("run", "--", "true").rc == 0
    mllaunch.wait_sealed("@last")
    names = engine.docker("ps", "--all", "--format", "{{.Names}}").stdout.split()
    assert sorted(names) == ["ended-long-ago", "somebody-elses"]
