"""What every ImageBuilder does, on a real engine and a real registry."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from mllaunch.errors import MllaunchError, NotFound, NotPermitted, UsageError
from mllaunch_agent.engine import Engine as AgentEngine
from mllaunch_agent.probes.container import why_no_c_layer
from mllaunch_agent.tracing import HOOK
from tests.conformance.images import Maker, containers_of, images_of, requirements, spec
from tests.testbed import images
from tests.testbed.engine import Engine
from tests.testbed.registry import Registry

pytestmark = pytest.mark.real("engine", "busybox")


@pytest.fixture(
    params=["loading a layer", "building", pytest.param("podman", marks=pytest.mark.real("podman"))]
)
def way(request: pytest.FixtureRequest) -> str:
    """How the code gets into an image, and in which engine."""
    return str(request.param)


@pytest.fixture(scope="session")
def stocked_podman(podman: Engine) -> Engine:
    """Podman with the images that tests build on, by the names that they have in the session's engine."""
    loads = (images.load_tiny, images.load_bare, images.load_python, images.load_foreign)
    for load in (*loads, images.load_compiler):
        load(podman)
    return podman


@pytest.fixture
def engine_of_way(way: str, request: pytest.FixtureRequest) -> Engine:
    made: Engine = request.getfixturevalue("stocked_podman" if way == "podman" else "engine")
    return made


@pytest.fixture
def maker(way: str, engine_of_way: Engine, tmp_path: Path) -> Maker:
    made = Maker(engine_of_way, tmp_path / "m", layers=way != "building")
    made.write("train.py", "print('hi')\n")
    made.write("package/module.py", "VALUE = 1\n")
    return made


def test_an_image_holds_the_code_and_says_what_it_is(maker: Maker, tiny_image: str) -> None:
    image = maker.build(spec(tiny_image))
    assert maker.run(image, "cat", "train.py", "package/module.py") == "print('hi')\nVALUE = 1\n"
    assert maker.run(image, "pwd") == "/workspace\n"
    labels = maker.engine.docker("inspect", "--format", "{{json .Config.Labels}}", image.id).stdout
    for text in ("c" * 40, "7" * 40, "https://example.org/digits.git", "2026-11-24T10:00:00Z", "0.1.0"):
        assert text in labels
    assert re.search(r'"mllaunch.code":"sha256:[0-9a-f]{64}"', labels)


def test_what_has_been_built_is_found_and_nothing_else(maker: Maker, tiny_image: str) -> None:
    wanted = spec(tiny_image, project=f"found-{os.urandom(4).hex()}")
    assert maker.builder.find(wanted) is None
    image = maker.build(wanted)
    assert maker.builder.find(wanted) == image
    other = wanted._replace(code=wanted.code._replace(tree="8" * 40))
    assert maker.builder.find(other) is None


def test_the_same_specification_gives_the_same_digest(maker: Maker, tiny_image: str) -> None:
    wanted = spec(tiny_image, project="twice")
    first = maker.build(wanted)
    assert maker.build(wanted).digest == first.digest


def test_only_the_code_is_made_anew_when_only_code_changes(maker: Maker, tiny_image: str) -> None:
    first = maker.build(spec(tiny_image, project="changes"))
    maker.write("train.py", "print('changed')\n")
    maker.said.clear()
    second = maker.build(spec(tiny_image, project="changes", commit="d" * 40, tree="9" * 40))
    assert second.digest != first.digest
    assert second.environment == first.environment
    layers = [
        maker.engine.docker("inspect", "--format", "{{json .RootFS.Layers}}", i.id).stdout.split(",")
        for i in (first, second)
    ]
    assert layers[0][:-1] == layers[1][:-1]
    assert not any("apt-get" in line or "pip" in line for line in maker.said)


def test_everybody_may_write_to_the_code_as_they_may_outside_of_a_container(
    maker: Maker, tiny_image: str
) -> None:
    image = maker.build(spec(tiny_image))
    done = maker.engine.docker(
        *("run", "--rm", "--user", "4321:4321", image.id),
        *("sh", "-c", "echo more >> train.py && echo new > package/new.py && tail -n 1 train.py"),
    )
    assert done.stdout == "more\n"


@pytest.mark.real("mmdebstrap")
def test_pinned_requirements_are_the_lock(maker: Maker, python_image: str) -> None:
    asked = requirements("six==1.16.0", pinned=True)
    image = maker.build(spec(python_image, asked, project="pinned"))
    assert maker.run(image, "python3", "-c", "import six; print(six.__version__)") == "1.16.0\n"
    assert image.lock is not None
    assert (image.lock.path, image.lock.resolved) == ("requirements.txt", False)
    assert image.lock.digest == asked.lock_digest


@pytest.mark.real("mmdebstrap")
def test_open_requirements_are_resolved_once_and_the_resolution_is_the_lock(
    maker: Maker, python_image: str
) -> None:
    wanted = spec(python_image, requirements("six", f"# {os.urandom(4).hex()}", pinned=False), project="open")
    image = maker.build(wanted)
    assert image.lock is not None
    assert image.lock.resolved
    resolved = maker.locks.get(image.environment)
    assert resolved is not None
    assert re.search(rb"^six==[0-9.]+$", resolved, re.MULTILINE)
    maker.engine.docker("rmi", "--force", image.id, f"mllaunch/environment:{image.environment[:32]}")
    maker.said.clear()
    again = maker.build(wanted)
    assert again.lock == image.lock
    assert any("requirements.lock" in line for line in maker.said), "it was resolved a second time"


@pytest.mark.real("mmdebstrap")
def test_a_lock_that_cannot_be_installed_shows_the_end_of_what_pip_said_and_leaves_nothing(
    maker: Maker, python_image: str
) -> None:
    images, containers = images_of(maker.engine), containers_of(maker.engine)
    with pytest.raises(MllaunchError) as raised:
        maker.build(spec(python_image, requirements("six==99.99.99", pinned=True)))
    assert raised.value.code == "build"
    assert "six==99.99.99" in "\n".join(raised.value.evidence)
    assert len(raised.value.evidence) <= 20
    assert raised.value.hint
    assert images_of(maker.engine) == images
    assert containers_of(maker.engine) == containers


@pytest.mark.real("mmdebstrap")
def test_the_c_layer_is_compiled_where_there_is_a_compiler_and_the_agent_finds_it(
    maker: Maker, compiler_image: str, tiny_image: str
) -> None:
    source = (Path(HOOK) / "preload.c").read_bytes()
    engine = AgentEngine(str(maker.engine.socket))
    image = maker.build(spec(compiler_image, c_layer=source))
    assert why_no_c_layer(engine, image.id) is None
    program = "LD_PRELOAD=/.mllaunch/c-layer/preload.so cat train.py 2>&1"
    assert maker.run(image, "sh", "-c", program) == "print('hi')\n"
    image = maker.build(spec(compiler_image, c_layer=b"int broken"))
    assert "preload.c:1" in str(why_no_c_layer(engine, image.id))
    image = maker.build(spec(tiny_image, c_layer=source))
    assert "the image has no C compiler" in str(why_no_c_layer(engine, image.id))
    image = maker.build(spec(tiny_image))
    assert "none of those that mllaunch builds" in str(why_no_c_layer(engine, image.id))
    assert not containers_of(maker.engine)


def test_a_dockerfile_of_the_users_is_built_from_the_tree(maker: Maker, tiny_image: str) -> None:
    text = f"FROM {tiny_image}\nCOPY package/module.py /copied.py\nENV FROM_THE_DOCKERFILE=yes\n"
    maker.write("docker/Dockerfile", text)
    image = maker.build(spec("unused", dockerfile=("docker/Dockerfile", text), project="own"))
    assert maker.run(image, "cat", "/copied.py", "/workspace/train.py") == "VALUE = 1\nprint('hi')\n"
    assert "FROM_THE_DOCKERFILE=yes" in maker.run(image, "env")


@pytest.mark.parametrize("line", ["RUN exit 7", "COPY missing.txt /", "NOT-AN-INSTRUCTION"])
def test_a_dockerfile_that_breaks_says_where_and_leaves_nothing(
    maker: Maker, tiny_image: str, line: str
) -> None:
    images, containers = images_of(maker.engine), containers_of(maker.engine)
    text = f"FROM {tiny_image}\nRUN echo fine-{os.getpid()} > /fine\n{line}\n"
    maker.write("Dockerfile", text)
    with pytest.raises(MllaunchError) as raised:
        maker.build(spec("unused", dockerfile=("Dockerfile", text)))
    assert raised.value.code == "build"
    assert images_of(maker.engine) == images
    assert containers_of(maker.engine) == containers


def test_a_finished_image_gets_the_code_and_keeps_the_rest(maker: Maker, bare_image: str) -> None:
    image = maker.build(spec("unused", reference=bare_image, project="finished"))
    config = maker.engine.docker("inspect", "--format", "{{.Config.WorkingDir}}", image.id).stdout
    assert config == "/workspace\n"
    assert image.lock is None


def test_a_base_that_cannot_be_pulled_is_named(maker: Maker) -> None:
    images = images_of(maker.engine)
    with pytest.raises(MllaunchError) as raised:
        maker.build(spec("127.0.0.1:1/nobody/home:1"))
    assert raised.value.code == "registry_gone"
    assert "127.0.0.1:1/nobody/home:1" in raised.value.message
    assert images_of(maker.engine) == images


def test_a_base_for_another_architecture_is_refused_before_anything_is_built(
    maker: Maker, foreign_image: str
) -> None:
    with pytest.raises(UsageError) as raised:
        maker.build(spec(foreign_image))
    assert raised.value.code == "foreign_image"
    assert "arm64" in raised.value.message


# --- registries


@pytest.mark.real("docker-registry")
def test_an_image_is_pushed_and_known_by_the_digest_that_the_registry_has(
    engine: Engine, registry: Registry, tiny_image: str, tmp_path: Path
) -> None:
    maker = Maker(engine, tmp_path / "m", layers=True, registry=f"{registry.url}/team")
    maker.write("train.py", "1\n")
    wanted = spec(tiny_image, project="pushed")
    image = maker.build(wanted)
    assert image.reference == f"{registry.url}/team/pushed@{image.digest}"
    assert maker.builder.find(wanted) == image
    engine.docker("rmi", "--force", image.id)
    engine.docker("pull", image.reference)
    assert maker.run(image, "cat", "train.py") == "1\n"


@pytest.mark.real("docker-registry")
def test_a_change_of_the_code_sends_the_code_and_no_more(
    engine: Engine, registry: Registry, tiny_image: str, tmp_path: Path
) -> None:
    maker = Maker(engine, tmp_path / "m", layers=True, registry=f"{registry.url}/team")
    maker.write("train.py", "1\n")
    maker.build(spec(tiny_image, project="moves"))
    before = registry.received_bytes
    maker.write("weights.bin", os.urandom(1 << 20).hex())
    maker.build(spec(tiny_image, project="moves", commit="e" * 40, tree="e" * 40))
    sent = registry.received_bytes - before
    assert sent < 1.1 * (2 << 20), sent


@pytest.mark.real("docker-registry")
def test_another_machine_takes_the_environment_from_the_registry(
    engine: Engine,
    new_engine: Callable[..., Engine],
    registry: Registry,
    tiny_image: str,
    tmp_path: Path,
) -> None:
    wanted = spec(tiny_image, project="shared", system=())
    maker = Maker(engine, tmp_path / "one", layers=True, registry=f"{registry.url}/team")
    first = maker.build(wanted)
    other = Maker(new_engine(), tmp_path / "two", layers=True, registry=f"{registry.url}/team")
    again = other.build(wanted)
    assert not any(line.startswith("Step") for line in other.said), "it built what the registry has"
    assert again.digest == first.digest


@pytest.mark.real("docker-registry")
def test_a_registry_that_demands_a_login_is_said_to(
    engine: Engine, private_registry: Registry, tiny_image: str, tmp_path: Path
) -> None:
    maker = Maker(engine, tmp_path / "m", layers=True, registry=f"{private_registry.url}/team")
    with pytest.raises(NotPermitted) as raised:
        maker.build(spec(tiny_image, project="private"))
    assert raised.value.hint is not None
    assert f"docker login {private_registry.url}" in raised.value.hint


@pytest.mark.real("docker-registry")
def test_a_registry_that_is_down_is_said_to_be(
    engine: Engine, registry: Registry, tiny_image: str, tmp_path: Path
) -> None:
    maker = Maker(engine, tmp_path / "m", layers=True, registry=f"{registry.url}/team")
    registry.stop()
    with pytest.raises(MllaunchError) as raised:
        maker.build(spec(tiny_image, project="down"))
    assert raised.value.code == "registry_gone"


@pytest.mark.real("docker-registry")
def test_a_registry_that_serves_other_bytes_than_the_digest_is_not_believed(
    engine: Engine, registry: Registry, tiny_image: str, tmp_path: Path
) -> None:
    maker = Maker(engine, tmp_path / "m", layers=True, registry=f"{registry.url}/team")
    maker.write("train.py", f"{os.getpid()}\n")
    image = maker.build(spec(tiny_image, project="damaged"))
    engine.docker("rmi", "--force", image.id)
    for digest in registry.blobs():
        registry.corrupt(digest)
    plain = Maker(engine, tmp_path / "n", layers=True)
    with pytest.raises((MllaunchError, NotFound)) as raised:
        plain.build(spec("unused", reference=image.reference))
    assert raised.value.code == "damaged_image", raised.value.evidence
