"""What the record of a run does not hold, and why; pure. An answer without this list would claim too much."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from mllaunch.domain.run import Run, RunStatus
from mllaunch.domain.usage import AMOUNTS, Views, of_node

Entry = dict[str, Any]
Line = tuple[int, str, dict[str, Any]]

_LATER = "not recorded by this version"
_NAMED = 5  # files named in one entry

_NEVER = (
    ("code.nodes: which code each process executed", _LATER),
    (
        "inputs: checkpoints and other files that the program opened by itself",
        f"only --data is; the rest is {_LATER}",
    ),
    ("inputs.opened_at, inputs.by: when and by which process an input was opened", _LATER),
    ("inputs.produced_by: which run made an input", _LATER),
    ("outputs.step, outputs.rank: at which step and by which process a file was written", _LATER),
    ("outputs.kind: which outputs are checkpoints", _LATER),
    ("outputs.code: which code was live when a file was written", _LATER),
    ("lineage: which runs this one continued, and which continued it", _LATER),
)

_PROBLEMS = {
    "torn": "it kept changing while it was read",
    "unreadable": "it could not be read",
}
_UNLISTED = {
    "symlink": "symbolic link",
    "special": "pipe, socket or device",
    "deleted": "deleted path",
    "folder": "unreadable folder",
}


def not_captured(run: Run, status: RunStatus, views: Views, files: Iterable[Line]) -> list[Entry]:
    """[{what, why, attempt, node}]; attempt and node are None for what concerns the whole run.

    First what this version never records, then what it could not record this time.
    """
    files = list(files)
    entries = [_entry(what, why) for what, why in _always(run)]
    entries += [_entry(what, why) for what, why in _unfinished(run, status, views)]
    for (number, node), view in views.items():
        lines = [line for attempt, where, line in files if (attempt, where) == (number, node)]
        found = [*_said(view), *_missing(run, view), *_lost(view), *_unhashed(lines)]
        entries += [_entry(what, why, number, node) for what, why in found]
    return entries


def _entry(what: str, why: str, attempt: int | None = None, node: str | None = None) -> Entry:
    return {"what": what, "why": why, "attempt": attempt, "node": node}


def _always(run: Run) -> Iterator[tuple[str, str]]:
    if run.image is None:
        if run.spec.in_place:
            why = f"the run worked in the working tree itself, and edits made there meanwhile are {_LATER}"
        else:
            why = f"the run had a checkout of its own; edits made inside of it meanwhile are {_LATER}"
        yield "code.changes: edits to the code during the run", why
        yield "environment.image: a container image", f"the {run.spec.runtime} runtime uses none"
        yield (
            "environment.lock: a lock file of the environment",
            f"the {run.spec.runtime} runtime installs nothing",
        )
    else:
        yield (
            "outputs: files that were written outside of the code and the output folder",
            "they went with the container",
        )
        yield "code.changes.diff, code.changes.in_use: what a change was, and whether it took effect", _LATER
        if run.image.lock is None:
            yield "environment.lock: a lock file of the environment", "no file says which packages are needed"
    yield "hosts.scheduler: a job number and a queue", f"the {run.spec.backend} scheduler has none"
    yield from _NEVER


def _unfinished(run: Run, status: RunStatus, views: Views) -> Iterator[tuple[str, str]]:
    if status.seal is None:
        why = "its record is not sealed yet" if status.state.is_final else f"the run is {status.state.value}"
        yield "outputs, usage, seal: what is stated at the end", why
    elif status.seal == "unsealed" or not views:
        lost = status.reason.message if status.reason else "the node can say nothing more"
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
    unknown += ["usage.gpu"] if view["gpus"] and used["gpu"] is None else []
    if unknown and "usage" not in said:
        yield f"{', '.join(unknown)}: resources that were used", "the tasks ended before they were sampled"
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
