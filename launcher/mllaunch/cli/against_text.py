"""Code and files from elsewhere against the record, as a person reads it."""

from __future__ import annotations

from typing import IO, Any

from mllaunch.cli import terminal
from mllaunch.cli.sheet import Sheet

_LISTED = 20

Document = dict[str, Any]


def render_commit(document: Document, stream: IO[Any]) -> str:
    sheet = Sheet(stream)
    sheet.headline(document["run"]["name"], f"against {document['commit'][:12]}")
    _code(sheet, document)
    return sheet.text()


def render_folder(document: Document, stream: IO[Any]) -> str:
    sheet = Sheet(stream)
    known = [file for file in document["files"] if file["made_by"]]
    sheet.headline(
        document["path"], f"{len(known)} of {len(document['files'])} files were made by known runs"
    )
    lines = []
    for file in known:
        made = file["made_by"]
        step = f" at step {made['step']}" if made["step"] is not None else ""
        lines.append(f"{file['path']}   {made['run']['name']}{step}, as {made['path']}")
    sheet.items("made by", lines, _LISTED)
    for compared in document["code"]:
        sheet.gap()
        sheet.row("run", compared["run"]["name"])
        _code(sheet, compared)
    return sheet.text()


def _code(sheet: Sheet, compared: Document) -> None:
    """How the executed files are there."""
    total = sum(len(compared[part]) for part in ("same", "differs", "missing"))
    is_same = len(compared["same"]) == total
    words = f"{len(compared['same'])} of {total} files that it executed are the same"
    sheet.row(
        "code", words, paint=lambda text: sheet.styled(terminal.green if is_same else terminal.yellow, text)
    )
    sheet.items("differs", compared["differs"], _LISTED)
    sheet.items("missing", compared["missing"], _LISTED)
