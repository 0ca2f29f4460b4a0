"""The Dockerfiles, as golden files, and that nothing from a repository can say more in them than it should.

UPDATE_GOLDEN=1 writes the golden files anew.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch_agent import container, preload
from mllaunch_containers.dockerfile import environment, files, labels, whole
from mllaunch_containers.spec import Code, Dependencies, Environment, ImageError, ImageSpec

GOLDEN = Path(__file__).parent / "golden"
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"
PLATFORM = "linux/amd64"
CODE = Code("c" * 40, "d" * 40, "2026-02-03T04:05:06Z", "https://host.invalid/demo")
LOCK = Dependencies("uv.lock", "uv.lock", (("uv.lock", b"version = 1\n"), ("pyproject.toml", b"")), True)


def asked(kind: str, name: str) -> Dependencies:
    return Dependencies(kind, name, ((name.rpartition("/")[2], b"x"),), False)


ENVIRONMENTS = {
    "none": Environment("debian:12"),
    "system": Environment(
        "debian:12", ("libgl1", "git=1:2.39.5-0+deb12u2~x", "g++", "git=1:2.39.5-0+deb12u2~x")
    ),
    "requirements": Environment("python:3.12-slim", (), asked("requirements", "a/requirements.txt")),
    "pyproject": Environment(
        "python:3.12-slim", (), asked("pyproject.toml", "pyproject.toml"), "/opt/venv/bin/python"
    ),
    "uv": Environment("host.invalid:5000/team/base@sha256:" + "a" * 64, (), LOCK),
    "pylock": Environment("python:3.12", (), asked("pylock.toml", "pylock.gpu.toml")),
    "poetry": Environment("python:3.12", (), asked("poetry.lock", "poetry.lock")),
    "conda": Environment("mambaorg/micromamba:2", (), asked("environment.yml", "environment.yml")),
    "c_layer": Environment("debian:12", ("gcc", "libc6-dev"), c_layer=b"int x;\n"),
    "reference": Environment("", reference="host.invalid/team/finished:1"),
    "dockerfile": Environment(
        "", dockerfile=("Dockerfile", "# syntax=docker/dockerfile:1\nFROM debian:12\n\n")
    ),
}


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_dockerfile_of_an_environment_is_the_golden_one(name: str) -> None:
    golden(f"{name}.Dockerfile", environment(ENVIRONMENTS[name], PLATFORM))


def test_the_dockerfile_of_a_whole_image_is_the_golden_one() -> None:
    text = whole(ImageSpec("demo", ENVIRONMENTS["uv"], CODE, "0.1.0"), PLATFORM)
    assert text.startswith(environment(ENVIRONMENTS["uv"], PLATFORM))
    # How an environment is named is not this file's concern.
    golden("whole.Dockerfile", text.replace(ENVIRONMENTS["uv"].key(PLATFORM, CODE.tree), "e" * 64))


def golden(name: str, text: str) -> None:
    if UPDATE:
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text(), "UPDATE_GOLDEN=1 accepts it"


@pytest.mark.parametrize("name", [name for name in ENVIRONMENTS if name != "dockerfile"])
def test_docker_20_10_can_build_it(name: str) -> None:
    text = environment(ENVIRONMENTS[name], PLATFORM)
    assert "=" not in text.splitlines()[0]  # `# name=value` would be a directive
    assert "syntax" not in text
    assert "<<" not in text
    assert "--mount" not in text


def test_the_context_is_the_files_in_a_folder_of_their_own() -> None:
    assert files(ENVIRONMENTS["uv"]) == {
        "dependencies/uv.lock": b"version = 1\n",
        "dependencies/pyproject.toml": b"",
    }
    assert files(ENVIRONMENTS["none"]) == {}
    assert files(ENVIRONMENTS["reference"]._replace(dependencies=LOCK)) == {}
    assert files(ENVIRONMENTS["dockerfile"]._replace(dependencies=LOCK)) == {}


def test_the_c_layer_is_a_file_of_the_context_of_our_recipe_alone() -> None:
    assert files(ENVIRONMENTS["c_layer"]) == {"c-layer/preload.c": b"int x;\n"}
    assert "int x;" not in environment(ENVIRONMENTS["c_layer"], PLATFORM)
    for name in ("reference", "dockerfile"):
        wanted = ENVIRONMENTS[name]._replace(c_layer=b"int x;\n")
        assert files(wanted) == {}
        assert environment(wanted, PLATFORM) == environment(ENVIRONMENTS[name], PLATFORM)
        assert wanted.key(PLATFORM, CODE.tree) == ENVIRONMENTS[name].key(PLATFORM, CODE.tree)


def test_the_c_layer_is_compiled_as_the_agent_does_it() -> None:
    flags = " ".join(preload._FLAGS)
    libraries = " ".join(preload._LIBRARIES)
    text = environment(ENVIRONMENTS["c_layer"], PLATFORM)
    assert f"{flags} -o preload.so preload.c {libraries} " in text
    assert container.C_LAYER in text


def test_an_environment_is_another_with_the_c_layer_and_without_it_what_it_was() -> None:
    plain = Environment("debian:12")
    one, two = plain._replace(c_layer=b"int x;\n"), plain._replace(c_layer=b"int y;\n")
    assert len({wanted.key(PLATFORM, CODE.tree) for wanted in (plain, one, two)}) == 3
    # What images in registries are named by: a change makes everybody build anew.
    known = "ac9e39c5532595730583faf32a9f1e543759659b1fdaf57a856487fd937d8f51"
    assert plain.key(PLATFORM, CODE.tree) == known


def test_labels_leave_out_what_is_not_known() -> None:
    spec = ImageSpec("demo", ENVIRONMENTS["uv"], CODE, "0.1.0")
    assert labels(spec, PLATFORM) == {
        "org.opencontainers.image.revision": "c" * 40,
        "org.opencontainers.image.source": "https://host.invalid/demo",
        "org.opencontainers.image.created": "2026-02-03T04:05:06Z",
        "mllaunch.tree": "d" * 40,
        "mllaunch.lock": LOCK.lock_digest,
        "mllaunch.environment": spec.environment.key(PLATFORM, CODE.tree),
        "mllaunch.version": "0.1.0",
    }
    bare = labels(ImageSpec("demo", ENVIRONMENTS["none"], CODE._replace(source=None), "0.1.0"), PLATFORM)
    assert "mllaunch.lock" not in bare
    assert "org.opencontainers.image.source" not in bare


def test_a_label_says_what_it_says() -> None:
    spec = ImageSpec("demo", ENVIRONMENTS["none"], CODE._replace(source='a "$HOME" \\ `b`'), "0.1.0")
    assert 'org.opencontainers.image.source="a \\"\\$HOME\\" \\\\ `b`"' in whole(spec, PLATFORM)
    with pytest.raises(ImageError):
        whole(spec._replace(code=CODE._replace(source="a\nRUN false")), PLATFORM)


@pytest.mark.parametrize(
    "base",
    [
        "debian",
        "debian:12",
        "localhost:5000/a/b_c/d--e:Tag.1_x-y",
        "[::1]:5000/a",
        "Host.invalid/a",
        "a@sha256:" + "0" * 64,
        "a:1@sha256:" + "0" * 64,
        "sha256:" + "0" * 64,
    ],
)
def test_a_base_may_be_whatever_names_an_image(base: str) -> None:
    assert f"FROM --platform={PLATFORM} {base}\n" in environment(Environment(base), PLATFORM)


@pytest.mark.parametrize(
    "base",
    [
        "",
        "Debian",
        "debian 12",
        "debian\n",
        "debian:12 AS x",
        "a//b",
        "-a",
        "$BASE",
        "a:",
        "a:" + "x" * 129,
        "a@b",
        "à",
    ],
)
def test_what_names_no_image_is_no_base(base: str) -> None:
    for env in (Environment(base), Environment("debian", reference=base)):
        with pytest.raises(ImageError) as caught:
            environment(env, PLATFORM)
        assert caught.value.code == "bad_name"


@pytest.mark.parametrize(
    "package",
    [
        "",
        "git;id",
        "git ",
        "-y",
        "git-",
        "Git",
        "git=$(id)",
        "git=1 2",
        "git\n",
        "git=",
        "./x.deb",
        "g*t",
        "git/sid",
    ],
)
def test_what_names_no_debian_package_is_refused(package: str) -> None:
    with pytest.raises(ImageError) as caught:
        environment(Environment("debian", ("curl", package)), PLATFORM)
    assert caught.value.code == "bad_name"


@pytest.mark.parametrize("python", ["", "python3;id", "python3 -u", "$x", "-c", "python\n"])
def test_what_is_no_interpreter_is_refused(python: str) -> None:
    with pytest.raises(ImageError):
        environment(Environment("debian", python=python), PLATFORM)
    with pytest.raises(ImageError):
        environment(Environment("debian"), "linux/amd64 x")


@given(folder=st.text(min_size=1, max_size=12), name=st.text(min_size=1, max_size=12))
def test_a_path_of_the_repository_is_one_word_for_the_shell_or_refused(folder: str, name: str) -> None:
    path = f"{folder}/{name}"
    env = Environment("debian", (), Dependencies("requirements", path, ((path, b""),), False))
    plain = environment(env._replace(dependencies=asked("requirements", "a/b")), PLATFORM)
    try:
        text = environment(env, PLATFORM)
    except ImageError as error:
        assert error.code == "bad_name"
        assert not path.isprintable()
        return
    assert text.count("\n") == plain.count("\n")
    words, expected = (shlex.split(one.rpartition("RUN ")[2].replace("\\\n", "")) for one in (text, plain))
    assert len(words) == len(expected)


def test_a_path_that_is_no_text_is_refused() -> None:
    with pytest.raises(ImageError):
        environment(Environment("debian", (), asked("requirements", "a\udcff/requirements.txt")), PLATFORM)
