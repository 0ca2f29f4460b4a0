"""One run on one screen. Works on the document that `show --json` prints."""

from __future__ import annotations

from typing import IO, Any

from mllaunch.cli import provenance_text as parts
from mllaunch.cli import terminal, times
from mllaunch.cli.sheet import Sheet

_TASKS = 8


def render(document: dict[str, Any], now: str, stream: IO[Any] | None) -> str:
    """stream: where it goes to; None for a file."""
    sheet = Sheet(stream)
    run = document["run"]
    parts.headline(sheet, run)
    sheet.row("waiting", document["waiting"])
    for silence in document["unreachable"]:
        since = times.since(silence["since"], now, terminal=sheet.on_terminal)
        sheet.row("unreachable", f"{silence['node']} {since}")
    _times(sheet, document, now)
    parts.notes(sheet, run)
    parts.command(sheet, document["command"])
    parts.code(sheet, document["code"])
    if document["parent"]:
        parent = document["parent"]
        how = "goes on from" if parent["kind"] == "resume" else "began with weights of"
        step = f" at step {parent['step']}" if parent["step"] is not None else ""
        sheet.row("started from", f"{how} {parent['run_name']}{step}, {parent['path']}")
    if document["image"]:
        parts.image(sheet, document["image"])
    for place in document["places"]:
        _place(sheet, place)
    sheet.items("data", [entry["path"] for entry in document["inputs"]], _TASKS)
    sheet.row("usage", parts.usage_words(document["usage"]))
    if document["outputs"] is not None:
        count = document["outputs"]["files"]
        size = times.bytes(document["outputs"]["size_bytes"])
        sheet.row("wrote", f"{count} file{'s' if count != 1 else ''}, {size}   mllaunch files {run['name']}")
    parts.attempts(sheet, document["attempts"], run["tasks"], now)
    sheet.row("warnings", *document["warnings"], paint=lambda text: sheet.styled(terminal.yellow, text))
    if document["not_captured"]:
        count = len(document["not_captured"])
        sheet.row(
            "not captured", f"{count} thing{'s' if count != 1 else ''}   mllaunch provenance {run['name']}"
        )
    parts.seal(sheet, document["seal"])
    sheet.row("hint", *document["hints"])
    return sheet.text()


def _times(sheet: Sheet, document: dict[str, Any], now: str) -> None:
    run = document["run"]
    by = run["submitted_by"]

    def at(time: str | None) -> str:
        return times.when(time, now, terminal=sheet.on_terminal)

    sheet.row("submitted", f"{at(run['submitted_at'])} by {by['user']} on {by['host']}")
    if run["started_at"]:
        sheet.row("started", at(run["started_at"]))
    for stop in document["stops"]:
        how = "to end at once" if stop["now"] else "to stop"
        sheet.row("asked", f"{how} {at(stop['at'])} by {stop['by']}")
    if document["not_told"]:
        verb = "does" if len(document["not_told"]) == 1 else "do"
        sheet.row("to stop", f"{', '.join(document['not_told'])} {verb} not know yet")
    if run["ended_at"]:
        sheet.row("ended", at(run["ended_at"]))
    if document["timeout_s"] is not None and not run["ended_at"]:
        sheet.row("timeout", times.duration(document["timeout_s"]))


def _place(sheet: Sheet, place: dict[str, Any]) -> None:
    sheet.row("where", place["node"], place["workdir"])
    sheet.items("gpus", [f"{gpu['uuid']}  {gpu['name'] or ''}" for gpu in place["gpus"]])
    if len(place["tasks"]) > 1:
        sheet.items("ranks", [_task(task) for task in place["tasks"]], _TASKS)


def _task(task: dict[str, Any]) -> str:
    if task["signal"] is not None:
        ended = f"killed by signal {task['signal']}"
    elif task["exit_code"] is not None:
        ended = f"exit code {task['exit_code']}"
    else:
        ended = "ended, exit code unknown" if task["ended_at"] else f"running, pid {task['pid']}"
    return f"{task['rank']}  {ended}{times.between(task['started_at'], task['ended_at'])}"
