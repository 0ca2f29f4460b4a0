"""What the record of a run does not hold, and why; pure. An answer without this list would claim too much."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mllaunch.domain.run import Run, RunStatus
from mllaunch.domain.usage import AMOUNTS, Views, of_node

Entry = dict[str, Any]
Line = tuple[int, str, dict[str, Any]]

_NAMED = 5  # files named in one entry

_PROBLEMS = {
    "torn": "it kept changing while it was read",
    "unreadable": "it could not be read",
}
_INPUT_PROBLEMS = {
    **_PROBLEMS,
    "changed": "it was changed after it was opened; what is recorded is what it became",
}
_UNLISTED = {
    "symlink": "symbolic link",
    "special": "pipe, socket or device",
    "deleted": "deleted path",
    "folder": "unreadable folder",
}


def not_captured(
    run: Run, status: RunStatus, views: Views, files: Iterable[Line], traced: Iterable[Line] = ()
) -> list[Entry]:
    """[{what, why, attempt, node}]; attempt and node are None for what concerns the whole run.

    First what this version never records, then what it could not record this time.
    """
    files, notes = list(files), list(traced)
    entries = [_entry(what, why) for what, why in _always(run)]
    entries += [_entry(what, why) for what, why in _unfinished(run, status, views)]
    for (number, node), view in views.items():
        lines = [line for attempt, where, line in files if (attempt, where) == (number, node)]
        opened = [line for attempt, where, line in notes if (attempt, where) == (number, node)]
        found = [*_said(view), *_missing(run, view), *_lost(view), *_unhashed(lines), *_unread(opened)]
        entries += [_entry(what, why, number, node) for what, why in found]
    return entries


def _entry(what: str, why: str, attempt: int | None = None, node: str | None = None) -> Entry:
    return {"what": what, "why": why, "attempt": attempt, "node": node}


def _always(run: Run) -> Iterator[tuple[str, str]]:
    if run.image is None:
        yield "environment.image: a container image", f"the {run.spec.runtime} runtime uses none"
        if run.lock is None:
            yield (
                "environment.lock: a lock file of the environment",
                f"the {run.spec.runtime} runtime installs nothing",
            )
    else:
        yield (
            "outputs: files that were written outside of the code and the output folder",
            "they went with the container",
        )
        if run.image.lock is None:
            yield "environment.lock: a lock file of the environment", "no file says which packages are needed"
    yield "hosts.scheduler: a job number and a queue", f"the {run.spec.backend} scheduler has none"


def _unfinished(run: Run, status: RunStatus, views: Views) -> Iterator[tuple[str, str]]:
    if status.shown_seal is None:
        why = "its record is not sealed yet" if status.state.is_final else f"the run is {status.state.value}"
        yield "outputs, usage, seal: what is stated at the end", why
    elif status.shown_seal == "unsealed" or not views:
        lost = (
            status.reason.words(run.spec.resources.world_size)
            if status.reason
            else "the node can say nothing more"
        )
        yield "seal: whether the record is complete", f"it was never sealed: {lost}"


def _said(view: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What the agent itself could not record."""
    for entry in view["not_captured"]:
        yield entry["what"], entry["why"]
    for restart in view["restarts"]:
        yield (
            "telemetry",
            f"the agent died and was replaced at {restart['at']}; nothing was sampled in between",
        )


def _missing(run: Run, view: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Facts that every sealed attempt should have."""
    if not view["seal"]:
        return
    said = {entry["what"] for entry in view["not_captured"]}
    if view["host"] is None:
        yield "hosts, environment.variables: facts of the node", "the attempt ended before they were taken"
    if view["python"] is None and "python" not in said:
        if run.spec.script is None:
            yield "environment.python: the interpreter and its packages", "the command is not a Python script"
        else:
            yield (
                "environment.python: the interpreter and its packages",
                "the attempt ended before it was asked",
            )
    used = of_node(0, "", view)
    unknown = [f"usage.{name}" for name in AMOUNTS if used[name] is None]
    if view["gpus"] and used["gpu"] is None:
        if view["usage"]:
            yield "usage.gpu: what the GPUs did", "no sample of them gave a value"
        else:
            unknown.append("usage.gpu")
    if unknown and "usage" not in said:
        yield f"{', '.join(unknown)}: resources that were used", "the tasks ended before they were sampled"
    if "trace" not in view["seal"]["streams"] and not any(what.startswith("code,") for what in said):
        what = "code, inputs, lineage: what the tasks' processes executed and opened"
        yield what, "they have left no notes"
    if not view.get("code_verified") and not any(what.startswith("code.nodes") for what in said):
        yield "code.nodes: whether the code was the commit's", "the attempt ended before it was compared"
    if "files" not in view["seal"]["streams"] and "files written" not in said:
        yield "outputs: what the attempt wrote", "the agent made no list of it"


def _lost(view: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Ranges of streams that are gone; those of output are in the document's ``logs`` as well."""
    streams = (view["seal"] or {}).get("streams")
    if streams is None:
        gaps = [(gap["stream"], gap) for gap in view["gaps"]]
    else:
        gaps = [(name, gap) for name, stream in streams.items() for gap in stream["gaps"]]
    for name, gap in gaps:
        yield f"{gap['size_bytes']} bytes of {name} from offset {gap['offset']} on", str(gap["reason"])


def _unread(lines: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Inputs that are listed without their content, or whose content may be another than what the program read."""
    for problem, why in _INPUT_PROBLEMS.items():
        paths = [
            line["path"] for line in lines if line.get("record") == "input" and line.get("problem") == problem
        ]
        if paths:
            more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
            yield f"inputs: the content of {', '.join(paths[:_NAMED])}{more}", why


def _unhashed(lines: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Files that are listed without their content, and names that are not listed at all."""
    regular = [line for line in lines if line.get("kind") == "file"]
    for problem, why in _PROBLEMS.items():
        paths = [line["path"] for line in regular if line.get("problem") == problem]
        if paths:
            more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
            yield f"outputs: the content of {', '.join(paths[:_NAMED])}{more}", why
    counts = {words: sum(line.get("kind") == kind for line in lines) for kind, words in _UNLISTED.items()}
    unlisted = [f"{words} ({count})" for words, count in counts.items() if count]
    if unlisted:
        yield (
            f"outputs: {', '.join(unlisted)}",
            "only regular files are listed; mllaunch files lists everything",
        )
