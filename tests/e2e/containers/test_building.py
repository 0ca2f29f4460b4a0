"""What a submission says of the image that it needs, when that works and when it does not."""

from __future__ import annotations

import re

import pytest

from tests.conformance.images import images_of
from tests.e2e.harness import Mllaunch, Repo
from tests.testbed.engine import Engine
from tests.testbed.registry import Registry

pytestmark = pytest.mark.real("engine", "busybox")


@pytest.mark.real("docker-registry")
def test_with_a_registry_the_image_of_a_run_is_what_everybody_can_pull(
    mllaunch: Mllaunch, repo: Repo, registry: Registry, tiny_image: str, engine: Engine
) -> None:
    repo.write("mllaunch.yaml", f"image: {{base: {tiny_image}, registry: {registry.url}/team}}\n")
    repo.commit()
    document = mllaunch("submit", "--json", "--", "true", check=True).document
    reference, digest = document["image"]["reference"], document["image"]["digest"]
    assert reference == f"{registry.url}/team/project@{digest}"
    assert "(cached)" in mllaunch("run", "--", "true", check=True).stderr
    mllaunch.wait_sealed("@last")
    recorded = mllaunch("provenance", "@last", "--json", check=True).document["environment"]["image"]
    assert (recorded["reference"], recorded["digest"]) == (reference, digest)
    for name in (recorded["digest"], recorded["id"]):
        found = mllaunch("provenance", name, "--json", check=True).document
        assert len(found["image_of"]) == 2
    assert engine.docker("pull", reference).returncode == 0


@pytest.mark.real("mmdebstrap")
def test_packages_that_cannot_be_installed_are_explained_and_no_run_is_made(
    mllaunch: Mllaunch, repo: Repo, python_image: str, engine: Engine
) -> None:
    repo.write("mllaunch.yaml", f"image: {{base: {python_image}}}\n")
    repo.write("requirements.txt", "six==99.99.99\n")
    repo.script("print(1)")
    before = images_of(engine)
    done = mllaunch("submit", "train.py")
    assert done.rc == 1
    lines = done.stderr.splitlines()
    error = next(number for number, line in enumerate(lines) if line.startswith("error["))
    assert lines[error] == "error[build]: the packages could not be installed (exit code 1)"
    assert "six==99.99.99" in "\n".join(lines[error:])
    assert len(lines) - error <= 23
    assert lines[-1].startswith("hint: ")
    assert not mllaunch("ps", "-a", "--json", check=True).document
    assert images_of(engine) == before


@pytest.mark.parametrize(
    ("configuration", "rc", "says"),
    [
        ("image: {base: 'not a name!'}", 2, "the name of an image"),
        ("image: {base: '127.0.0.1:1/x:1'}", 1, "the registry of 127.0.0.1:1/x:1 does not answer"),
        ("image: {dockerfile: missing/Dockerfile}", 2, "there is no missing/Dockerfile in the commit"),
        ("image: {dependencies: missing.txt}", 2, "missing.txt"),
        ("image: {system: ['x; rm -rf /']}", 2, "a Debian package"),
        ("container: {mounts: [relative]}", 2, "expected /PATH"),
        (
            "container: {network: bridge}\nresources: {procs_per_node: 2}",
            2,
            "find each other on the host's network",
        ),
    ],
)
def test_what_cannot_be_had_is_refused_with_its_cause(
    mllaunch: Mllaunch, repo: Repo, tiny_image: str, configuration: str, rc: int, says: str
) -> None:
    if "base" not in configuration:
        base = f"base: {tiny_image}"
        is_image = configuration.startswith("image: {")
        configuration = (
            configuration.replace("image: {", f"image: {{{base}, ", 1)
            if is_image
            else f"image: {{{base}}}\n{configuration}"
        )
    repo.write("mllaunch.yaml", configuration + "\n")
    repo.commit()
    done = mllaunch("submit", "--", "true")
    assert done.rc == rc, done.stderr
    assert says in done.stderr
    assert re.search(r"^error\[[a-z_-]+\]: ", done.stderr, re.MULTILINE)
    assert not mllaunch("ps", "-a", "--json", check=True).document


@pytest.mark.real("mmdebstrap")
def test_several_candidates_for_the_packages_are_named(
    mllaunch: Mllaunch, repo: Repo, python_image: str
) -> None:
    repo.write("mllaunch.yaml", f"image: {{base: {python_image}}}\n")
    repo.write("requirements-cpu.txt", "six==1.16.0\n")
    repo.write("requirements-gpu.txt", "six==1.15.0\n")
    repo.commit()
    done = mllaunch("submit", "--", "true")
    assert done.rc == 2
    assert "requirements-cpu.txt" in done.stderr
    assert "image.dependencies" in done.stderr
    chosen = {"MLLAUNCH_IMAGE_DEPENDENCIES": "requirements-gpu.txt"}
    shown = mllaunch("submit", "--dry-run", "--", "true", env=chosen, check=True).stdout
    assert "packages from requirements-gpu.txt" in shown
