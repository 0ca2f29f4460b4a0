"""The C layer in containers: programs that are not Python are seen where the image has a C compiler."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.e2e.containers.test_running import raw, sealed
from tests.e2e.harness import Mllaunch, Repo

pytestmark = pytest.mark.real("engine", "busybox")
SCRIPT = "cat data.txt /shared/data.txt >outputs/copy; echo $LD_PRELOAD"


@pytest.fixture(autouse=True)
def shared(repo: Repo, tmp_path: Path) -> Path:
    """A folder for configure() to mount: what the image itself holds goes with a container."""
    repo.write("data.txt", "as committed\n")
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "data.txt").write_text("shared\n")
    return tmp_path / "shared"


def configure(repo: Repo, shared: Path, image: str) -> None:
    mounts = f"container: {{mounts: ['{shared}:/shared']}}"
    repo.write("mllaunch.yaml", f"c_layer: on\nimage: {{{image}}}\n{mounts}\n")
    repo.commit()


def why_not(mllaunch: Mllaunch) -> list[str]:
    """What the record says of the C layer."""
    whys = [entry["why"] for entry in sealed(mllaunch)["not_captured"]]
    return [why for why in whys if "C layer" in why]


@pytest.mark.real("mmdebstrap")
def test_what_a_shell_reads_is_seen_where_the_image_has_a_compiler(
    mllaunch: Mllaunch, repo: Repo, shared: Path, compiler_image: str
) -> None:
    configure(repo, shared, f"base: {compiler_image}")
    # What is there already stays, and comes first.
    done = mllaunch("run", "--env", "LD_PRELOAD=libdl.so.2", "--", "sh", "-c", SCRIPT, check=True)
    assert done.stdout == "libdl.so.2 /.mllaunch/c-layer/preload.so\n"
    assert raw(mllaunch, "--stderr") == b"", "the loader has no complaints"
    assert why_not(mllaunch) == []
    found = sealed(mllaunch)
    assert [(entry["path"], entry["digest"]) for entry in found["inputs"]] == [
        ("/shared/data.txt", "sha256:" + hashlib.sha256(b"shared\n").hexdigest())
    ]
    assert [entry["rank"] for entry in found["outputs"] if entry["path"] == "outputs/copy"] == [0]


def test_an_image_without_a_compiler_is_built_and_the_record_says_what_is_missing(
    mllaunch: Mllaunch, repo: Repo, shared: Path, tiny_image: str
) -> None:
    configure(repo, shared, f"base: {tiny_image}")
    assert mllaunch("run", "--", "sh", "-c", SCRIPT, check=True).stdout == "\n"
    missing = "the image has no C compiler, which image.system: [gcc, libc6-dev] brings on Debian"
    assert f"no C layer: {missing}" in why_not(mllaunch)
    assert sealed(mllaunch)["inputs"] == []


def test_a_finished_image_has_none_and_the_record_says_so(
    mllaunch: Mllaunch, repo: Repo, shared: Path, tiny_image: str
) -> None:
    configure(repo, shared, f"reference: {tiny_image}")
    assert mllaunch("run", "--", "sh", "-c", SCRIPT, check=True).stdout == "\n"
    assert "no C layer: the image is none of those that mllaunch builds by itself" in why_not(mllaunch)
