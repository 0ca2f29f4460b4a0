"""Whether tasks run in containers or as processes; pure but for one question to the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from mllaunch.errors import MllaunchError, NotPermitted, UsageError

if TYPE_CHECKING:
    from mllaunch.ports import EngineAnswer

DOCKER, PROCESS = "docker", "process"


class Choice(NamedTuple):
    """runtime: DOCKER or PROCESS. why: in words. engine: what answered, with DOCKER."""

    runtime: str
    why: str
    engine: EngineAnswer | None = None


def choose(
    configured: str, *, in_place: bool, python: str | None, image: str | None, ask: Callable[[], EngineAnswer]
) -> Choice:
    """configured: auto, docker or process. python, image: an interpreter, or an image, that the user has named.

    Raises UsageError, NotPermitted or MllaunchError if what was asked for cannot be had.
    """
    if configured == PROCESS:
        if image is not None:
            raise UsageError(
                "runtime", f"--image {image}: the process runtime uses none", hint="--runtime docker"
            )
        return Choice(PROCESS, "it was asked for")
    if configured == DOCKER and in_place:
        raise UsageError(
            "runtime",
            "--in-place runs in the working tree, and a container has its code from a commit",
            hint="--runtime process",
        )
    if configured != DOCKER:
        if in_place:
            return Choice(PROCESS, "it runs in place")
        if python is not None and image is None:
            return Choice(PROCESS, f"the interpreter {python} was asked for")
    answer = ask()
    if answer.version is not None:
        return Choice(
            DOCKER, "it was asked for" if configured == DOCKER else f"{answer.title} answers", answer
        )
    if configured != DOCKER and image is None:
        return Choice(PROCESS, answer.problem or "no container engine answers")
    error: type[MllaunchError] = NotPermitted if answer.is_denied else MllaunchError
    hint = answer.remedy or (
        "sudo usermod -aG docker $USER, and log in again"
        if answer.is_denied
        else "is it started? docker info"
    )
    raise error(
        "no_engine", answer.problem or "no container engine answers", hint=f"{hint}; or: --runtime process"
    )
