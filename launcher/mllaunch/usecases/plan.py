"""From what the user typed and configured to a JobSpec; pure but for the questions asked through ``Look``."""

from __future__ import annotations

import os.path
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from mllaunch.domain.job import LOCAL, JobSpec, Resources
from mllaunch.errors import NotFound, UsageError
from mllaunch.usecases.runtime import DOCKER

# The one name that Python has on Debian's, Docker's and conda's machines and images alike.
IMAGE_PYTHON = "python3"


class Request(NamedTuple):
    """One submission as typed, configuration already applied.

    words: the script and its arguments, or the command. is_command: words came after ``--``. python: the
    configured interpreter, a name or an absolute path; None for the one on PATH. data: absolute paths.
    """

    words: tuple[str, ...]
    is_command: bool
    resources: Resources
    project: str | None
    backend: str
    runtime: str
    runtime_why: str
    in_place: bool
    python: str | None
    environment: tuple[tuple[str, str | None], ...]
    data: tuple[str, ...]
    output: str
    note: str | None
    tags: tuple[str, ...]
    max_retries: int
    timeout_s: float | None
    grace_s: float
    c_layer: bool = False


class Look(NamedTuple):
    """What the plan needs to know of the machine: does a path exist, where is a program, is a path a folder."""

    exists: Callable[[str], bool]
    which: Callable[[str], str | None]
    is_folder: Callable[[str], bool]


class Plan(NamedTuple):
    job: JobSpec
    python: str | None  # the interpreter, where the run is a Python script


def check_script(words: Sequence[str], is_command: bool, root: str, cwd: str, look: Look) -> None:
    """Raise what ``plan`` would for a script that is none."""
    if words and words[0] and not is_command:
        _script(words[0], root, cwd, look)


def plan(request: Request, root: str, cwd: str, environ: Mapping[str, str], look: Look) -> Plan:
    """What will be run. root: the repository's root folder; cwd: where the command was typed, inside root."""
    if not request.words or not request.words[0]:
        raise UsageError(
            "command", "nothing to run", hint="mllaunch submit train.py, or mllaunch submit -- COMMAND"
        )
    workdir = os.path.relpath(cwd, root)
    workdir = "" if workdir == "." else workdir
    script, python = None, None
    if request.is_command:
        argv, args = list(request.words), request.words[1:]
    else:
        script = _script(request.words[0], root, cwd, look)
        python = _interpreter(request, environ, look)
        shown = os.path.relpath(os.path.join(root, script), cwd)
        # A name that begins with a dash would be an option of the interpreter's.
        argv = [python, f"./{shown}" if shown.startswith("-") else shown, *request.words[1:]]
        args = request.words[1:]
    job = JobSpec(
        argv=tuple(argv),
        script=script,
        args=tuple(args),
        workdir=workdir,
        resources=request.resources,
        project=request.project or os.path.basename(root),
        backend=request.backend,
        runtime=request.runtime,
        runtime_why=request.runtime_why,
        in_place=request.in_place,
        data=tuple(_data(path, root, look) for path in request.data),
        output=request.output,
        environment=_environment(request.environment, environ),
        note=request.note,
        tags=request.tags,
        max_retries=request.max_retries,
        timeout_s=request.timeout_s,
        grace_s=request.grace_s,
        c_layer=request.c_layer,
    )
    return Plan(job, python)


def _script(word: str, root: str, cwd: str, look: Look) -> str:
    """The script relative to the root."""
    path = os.path.normpath(os.path.join(cwd, word))
    if path != root and not path.startswith(root + os.sep):
        raise UsageError(
            "script", f"{word} is outside the repository {root}", hint="a run is made of committed code"
        )
    if not look.exists(path):
        hint = f"mllaunch submit -- {word} ...   runs a command" if look.which(word) else None
        raise NotFound("script", f"there is no {word} here", hint=hint)
    if look.is_folder(path):
        raise UsageError("script", f"{word} is a folder, not a script", hint="mllaunch submit train.py")
    if not word.endswith(".py"):
        raise UsageError(
            "script",
            f"{word} is not a Python script",
            hint=f"mllaunch submit -- ./{os.path.relpath(path, cwd)} ...",
        )
    return os.path.relpath(path, root)


def _interpreter(request: Request, environ: Mapping[str, str], look: Look) -> str:
    """Neither an image nor another machine is this one: whatever Python it has is found there."""
    if request.runtime == DOCKER:
        return IMAGE_PYTHON
    if request.backend != LOCAL:
        return request.python or IMAGE_PYTHON
    return _python(request.python, environ, look)


def _python(configured: str | None, environ: Mapping[str, str], look: Look) -> str:
    for name in [configured] if configured else ["python", "python3"]:
        found = look.which(name)
        if found:
            return found
    hint = "set `python:` in mllaunch.yaml"
    if configured:
        raise NotFound("python", f"{configured} is not an executable program", hint=hint)
    raise NotFound("python", "no interpreter: neither python nor python3 is on PATH", hint=hint)


def _data(path: str, root: str, look: Look) -> str:
    """The path relative to the root, where the run will find it."""
    full = os.path.normpath(path)
    if not look.exists(full):
        raise NotFound("data", f"--data {path}: there is no such file or folder")
    if not full.startswith(root + os.sep):
        raise UsageError(
            "data",
            f"--data {path} is outside the repository {root}",
            hint="make a symbolic link to it inside the repository, or read it by its absolute path",
        )
    return os.path.relpath(full, root)


def _environment(
    wanted: Sequence[tuple[str, str | None]], environ: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    """NAME=VALUE as given; NAME alone is taken from the environment, if it is there. The last of a name wins."""
    values: dict[str, str] = {}
    for name, value in wanted:
        if value is not None:
            values[name] = value
        elif name in environ:
            values[name] = environ[name]
    return tuple(values.items())
