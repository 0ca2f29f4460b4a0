"""The C layer in containers: programs that are not Python are seen where the image brought a compiler."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.containers.test_running import sealed
from tests.e2e.harness import Mllaunch, Repo

pytestmark = pytest.mark.real("engine", "busybox")


@pytest.fixture(autouse=True)
def _wanted(repo: Repo) -> None:
    repo.write("data.txt", "as committed\n")
    repo.commit()


def configure(repo: Repo, base: str) -> None:
    repo.write("mllaunch.yaml", f"c_layer: on\nimage: {{base: {base}}}\n")
    repo.commit()


def reasons(found: Any) -> list[str]:
    return [f"{entry['what']}: {entry['why']}" for entry in found["not_captured"]]


@pytest.mark.real("mmdebstrap")
def test_what_a_shell_reads_is_seen_where_the_image_has_a_compiler(
    mllaunch: Mllaunch, repo: Repo, compiler_image: str
) -> None:
    configure(repo, compiler_image)
    script = "cat data.txt; echo $LD_PRELOAD; cp data.txt copy.txt"
    done = mllaunch("run", "--env", "LD_PRELOAD=libdl.so.2", "--", "sh", "-c", script)
    assert (done.rc, done.stdout) == (0, "as committed\nlibdl.so.2 /.mllaunch/c-layer/preload.so\n")
    found = sealed(mllaunch)
    print(found)
    assert 0


def test_where_the_image_has_no_compiler_the_record_says_so(
    mllaunch: Mllaunch, repo: Repo, tiny_image: str
) -> None:
    configure(repo, tiny_image)
    done = mllaunch("run", "--", "sh", "-c", "cat data.txt; echo $LD_PRELOAD")
    assert (done.rc, done.stdout) == (0, "as committed\n\n")
    why = "the image has no C compiler, which image.system: [gcc, libc6-dev] brings on Debian"
    assert any(why in reason for reason in reasons(sealed(mllaunch)))


def test_an_image_of_somebody_elses_has_none_and_the_record_says_so(
    mllaunch: Mllaunch, repo: Repo, tiny_image: str
) -> None:
    configure(repo, tiny_image)
    assert mllaunch("run", "--image", tiny_image, "--", "cat", "data.txt").stdout == "as committed\n"
    why = "no C layer: the image is none of those that mllaunch builds by itself"
    assert any(why in reason for reason in reasons(sealed(mllaunch)))
