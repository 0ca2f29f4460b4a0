from __future__ import annotations

from collections.abc import Callable

import pytest

from mllaunch.errors import MllaunchError, NotPermitted, UsageError
from mllaunch.images.asking import Answer
from mllaunch.usecases.runtime import Choice, choose

DOCKER = Answer(
    "/d.sock", {"Version": "28.2.2", "Os": "linux", "Arch": "amd64", "Components": [{"Name": "Engine"}]}
)
PODMAN = Answer("/p.sock", {"Version": "4.3.1", "Components": [{"Name": "Podman Engine"}]})
ABSENT = Answer("/d.sock", None, "no container engine answers at /d.sock")
DENIED = Answer("/d.sock", None, "you may not use the container engine at /d.sock", is_denied=True)


def chosen(
    configured: str,
    answer: Answer,
    *,
    in_place: bool = False,
    python: str | None = None,
    image: str | None = None,
) -> Choice:
    return choose(configured, in_place=in_place, python=python, image=image, ask=lambda: answer)


def never() -> Answer:
    raise AssertionError("the engine was asked, and need not have been")


def test_auto_takes_the_engine_that_answers_and_says_which() -> None:
    assert chosen("auto", DOCKER) == Choice("docker", "Docker 28.2.2 answers", DOCKER)
    assert chosen("auto", PODMAN).why == "Podman 4.3.1 answers"


@pytest.mark.parametrize("answer", [ABSENT, DENIED])
def test_auto_runs_a_process_where_no_engine_can_be_used_and_says_why(answer: Answer) -> None:
    assert chosen("auto", answer) == Choice("process", answer.problem or "")


def test_what_makes_a_container_pointless_is_decided_without_asking_an_engine() -> None:
    ask: Callable[[], Answer] = never
    assert choose("process", in_place=False, python=None, image=None, ask=ask).runtime == "process"
    assert choose("auto", in_place=True, python=None, image=None, ask=ask).why == "it runs in place"
    assert "/venv/python" in choose("auto", in_place=False, python="/venv/python", image=None, ask=ask).why


def test_an_image_that_is_named_is_never_ignored() -> None:
    assert chosen("auto", DOCKER, python="/venv/python", image="x:1").runtime == "docker"
    with pytest.raises(MllaunchError):
        chosen("auto", ABSENT, image="x:1")
    with pytest.raises(UsageError):
        chosen("process", DOCKER, image="x:1")


def test_what_was_asked_for_and_cannot_be_had_is_an_error_with_its_own_exit_code() -> None:
    with pytest.raises(MllaunchError) as absent:
        chosen("docker", ABSENT)
    with pytest.raises(NotPermitted) as denied:
        chosen("docker", DENIED)
    with pytest.raises(UsageError) as in_place:
        chosen("docker", DOCKER, in_place=True)
    assert [raised.value.exit_code for raised in (absent, denied, in_place)] == [1, 4, 2]
    assert denied.value.hint is not None
    assert "docker" in denied.value.hint
