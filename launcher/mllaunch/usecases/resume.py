"""From a run that was to a run that goes on from its checkpoint, or begins anew from its weights; decided as values."""

from __future__ import annotations

import os.path
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from mllaunch.domain.job import JobSpec, Resources
from mllaunch.domain.lineage import RESUME, WEIGHTS
from mllaunch.domain.params import from_args
from mllaunch.domain.run import Parent, Run, RunStatus
from mllaunch.errors import MllaunchError, NotFound, UsageError
from mllaunch_agent import redaction

__all__ = [
    "RESUME",
    "WEIGHTS",
    "Candidate",
    "Found",
    "arguments",
    "candidates",
    "check_has",
    "check_may_resume",
    "choose",
    "differences",
    "environment_of",
    "job_of",
    "kind_of",
    "name_of",
    "params_of",
    "parent_of",
    "resized",
]

_LISTED = 20
PLACEHOLDER = "{checkpoint}"
# What took the place of a secret; nobody types so many of them, nor a URL with one.
_MASK = re.compile(rf"\*{{{redaction.MIN_VALUE}}}|://[^/]*\*@")


class Candidate(NamedTuple):
    """A checkpoint that a run wrote. digest: 64 hex digits; None: it was torn when the run ended."""

    path: str
    attempt: int
    node: str
    sha256: str | None
    size_bytes: int | None
    step: int | None
    written_at: str | None
    is_folder: bool


class Found(NamedTuple):
    """The one to start from: its place on the machine that has it, and what it was like when its digest was verified.

    remote: what the scheduler said of it, where that machine is a node.
    """

    candidate: Candidate
    place: str
    verified: list[list[int]]
    remote: Any = None


def candidates(outputs: Iterable[dict[str, Any]]) -> list[Candidate]:
    """The checkpoints among the outputs of a provenance document, the best to go on from first.

    A file within a checkpoint of many files is none by itself. One whose step is known is preferred to one without:
    that is more likely an export. Then the newest counts.
    """
    found = [
        Candidate(
            entry["path"],
            entry["attempt"],
            entry["node"],
            entry["digest"].rpartition(":")[2] if entry["digest"] else None,
            entry["size_bytes"],
            entry["step"],
            entry["written_at"],
            entry["form"] == "folder",
        )
        for entry in outputs
        if entry["kind"] == "checkpoint" and not entry["replaced"]
    ]
    folders = {(c.attempt, c.node, c.path) for c in found if c.is_folder}
    whole = [c for c in found if not _is_within(c, folders)]
    return sorted(
        whole, key=lambda c: (c.step is not None, c.attempt, c.written_at or "", c.step or 0), reverse=True
    )


def _is_within(candidate: Candidate, folders: set[tuple[int, str, str]]) -> bool:
    parts = candidate.path.split("/")
    above = ["/".join(parts[:count]) for count in range(1, len(parts))]
    return any((candidate.attempt, candidate.node, folder) in folders for folder in above)


def check_has(run: Run, found: Sequence[Candidate], step: int | None) -> None:
    """NotFound if there is none to choose."""
    if not _wanted(found, step):
        raise _none(run, found, step)


def _wanted(found: Sequence[Candidate], step: int | None) -> list[Candidate]:
    return [candidate for candidate in found if step is None or candidate.step == step]


def choose(
    run: Run, found: Sequence[Candidate], step: int | None, verify: Callable[[Candidate], Found | str]
) -> tuple[Found, list[str]]:
    """The first that is there and whole; and in words which were passed over, and why.

    verify: finds and reads it, or says what is wrong with it. MllaunchError if none is.
    """
    passed = []
    for candidate in _wanted(found, step):
        name = candidate.path + (f" (step {candidate.step})" if candidate.step is not None else "")
        if candidate.sha256 is None:
            passed.append(f"{name}: it was being written when the run ended")
            continue
        result = verify(candidate)
        if isinstance(result, Found):
            return result, passed
        passed.append(f"{name}: {result}")
    raise MllaunchError(
        "no_whole_checkpoint",
        f"no checkpoint of {run.name} is whole",
        evidence=tuple(passed[:_LISTED]),
        hint="mllaunch files " + run.name + "   shows what it wrote",
    )


def _none(run: Run, found: Sequence[Candidate], step: int | None) -> NotFound:
    steps = sorted({candidate.step for candidate in found if candidate.step is not None})
    if step is None or not found:
        hint = f"mllaunch files {run.name}   shows what it wrote"
        return NotFound(
            "no_checkpoint", f"{run.name} wrote nothing that is known to be a checkpoint", hint=hint
        )
    shown = ("..., " if len(steps) > _LISTED else "") + ", ".join(map(str, steps[-_LISTED:]))
    return NotFound(
        "no_such_step",
        f"{run.name} has no checkpoint of step {step}",
        evidence=(f"steps: {shown}",) if steps else ("of its checkpoints no step is known",),
        hint=f"--step {steps[-1]}" if steps else "leave out --step to take the newest",
    )


def check_may_resume(run: Run, status: RunStatus, kind: str) -> None:
    """What goes on from a run that still runs would be its twin. Weights may be taken any time."""
    if kind == RESUME and not status.state.is_final:
        raise UsageError(
            "still_running",
            f"{run.name} is {status.state.value}",
            hint=f"mllaunch stop {run.name}   or begin from its weights: --from-weights",
        )


def arguments(
    run: Run, template: Sequence[str], path: str, extra: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The new run's arguments, and those of them that name the checkpoint.

    Those of the parent, without what named the checkpoint that it was itself started from; then the checkpoint's, then
    the extra ones. UsageError if one was a secret, which is not recorded, and no extra one takes its place.
    """
    args = list(run.spec.args)
    before = list(run.parent.args) if run.parent is not None else []
    for start in range(len(args) - len(before) + 1) if before else ():
        if args[start : start + len(before)] == before:
            del args[start : start + len(before)]
            break
    given = {name for name, _ in from_args(extra)}
    args = [word for words in _settings(args) for word in words if not _is_given_anew(words, given)]
    own = tuple(word.replace(PLACEHOLDER, path) for word in template)
    return (*args, *own, *extra), own


def _settings(args: Sequence[str]) -> Iterator[list[str]]:
    """The words, but an option whose name says that it takes a secret together with that."""
    words = list(args)
    while words:
        word = words.pop(0)
        takes = word.startswith("-") and "=" not in word and redaction.looks_secret(word)
        yield [word, words.pop(0)] if takes and words and not words[0].startswith("-") else [word]


def _is_given_anew(words: list[str], given: set[str]) -> bool:
    """Whether it was a secret of which there is a new value. UsageError if there is none."""
    option, equals, value = words[0].partition("=")
    is_named = redaction.looks_secret(option) and (bool(equals) or len(words) == 2)
    secret = words[-1] if len(words) == 2 else value
    is_masked = bool(secret) and not secret.strip("*") if is_named else bool(_MASK.search(words[0]))
    if not is_masked:
        return False
    name = next((name for name, _ in from_args(words)), None)
    if name in given:
        return True
    raise UsageError(
        "secret",
        f"the value of {option if name else 'an argument'} was not recorded, because it looks like a secret",
        hint=f"give it again at the end: -- {option}{'=' if equals else ' '}VALUE"
        if name
        else "submit it anew",
    )


def job_of(run: Run, args: Sequence[str], environment: Sequence[tuple[str, str]], **changes: Any) -> JobSpec:
    """The parent's job with other arguments; note and tags are a run's own."""
    spec = run.spec
    head = spec.argv[: len(spec.argv) - len(spec.args)] if spec.args else spec.argv
    fresh = {"note": None, "tags": (), **changes}
    return spec._replace(argv=(*head, *args), args=tuple(args), environment=tuple(environment), **fresh)


def environment_of(run: Run, given: Sequence[tuple[str, str | None]], environ: Any) -> list[tuple[str, str]]:
    """The variables of the parent's --env, with what is given now. A secret's value was never recorded: it is taken
    from this environment. UsageError if it is not there."""
    values = dict(run.spec.environment)
    for name, value in given:
        if value is not None or name in environ:
            values[name] = value if value is not None else environ[name]
    overridden = {name for name, value in given if value is not None or name in environ}
    for name, value in values.items():
        is_masked = (
            _MASK.search(value) if not redaction.looks_secret(name) else value and not value.strip("*")
        )
        if name not in overridden and is_masked:
            if name not in environ:
                raise UsageError(
                    "secret",
                    f"the value of {name} was not recorded, because it looks like a secret",
                    hint=f"--env {name}=VALUE, or set it in this environment",
                )
            values[name] = environ[name]
    return list(values.items())


def params_of(run: Run, own: Sequence[str], extra: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The new run's parameters: the parent's, where an extra argument does not take their place."""
    from_parent = run.parent.args if run.parent is not None else ()
    left_out = {name for name, _ in from_args(from_parent)}
    kept = {name: value for name, value in run.params if name not in left_out}
    return tuple({**kept, **dict(from_args(own)), **dict(from_args(extra))}.items())


def differences(
    run: Run, params: Sequence[tuple[str, str]], own: Sequence[str]
) -> tuple[tuple[str, str | None, str | None], ...]:
    """Parameters that are not the parent's: (name, its value, the new one); None where there is none. Those that name
    a checkpoint are no difference."""
    from_parent = run.parent.args if run.parent is not None else ()
    left_out = {name for name, _ in (*from_args(from_parent), *from_args(own))}
    before, after = dict(run.params), dict(params)
    names = [name for name in dict.fromkeys([*before, *after]) if name not in left_out]
    return tuple((n, before.get(n), after.get(n)) for n in names if before.get(n) != after.get(n))


def resized(run: Run, resources: Resources) -> str | None:
    """In words, that there are other tasks than the parent had; None if there are as many on as many nodes."""
    before = run.spec.resources
    if (before.nodes, before.world_size) == (resources.nodes, resources.world_size):
        return None
    return f"{_tasks(resources)}; {run.name} had {_tasks(before)}"


def _tasks(resources: Resources) -> str:
    tasks, nodes = resources.world_size, resources.nodes
    return f"{tasks} task{'s' if tasks != 1 else ''} on {nodes} node{'s' if nodes != 1 else ''}"


def parent_of(
    run: Run,
    kind: str,
    found: Candidate,
    own_args: Sequence[str],
    changed: Sequence[tuple[str, str | None, str | None]],
    files: Sequence[str],
) -> Parent:
    """The edge to the parent, as the new run records it."""
    assert found.sha256 is not None
    return Parent(
        run_id=run.id,
        run_name=run.name,
        kind=kind,
        attempt=found.attempt,
        step=found.step,
        path=found.path,
        sha256=found.sha256,
        commit=run.snapshot.commit,
        differences=tuple(changed),
        files=tuple(files),
        args=tuple(own_args),
    )


def kind_of(from_weights: bool) -> str:
    return WEIGHTS if from_weights else RESUME


def name_of(candidate: Candidate) -> str:
    """Of the file or folder."""
    return os.path.basename(candidate.path)
