"""Where a file came from, as a person reads it: who made it, and as a tree what that goes back to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, Any

from mllaunch.cli import terminal, times
from mllaunch.cli.sheet import Sheet

_LISTED = 10
_SHORT_COMMIT = 12
_MARGIN = 16  # columns left of the text
_NARROWEST = 20
_SHORT_DIGEST = len("sha256:") + 12

Document = dict[str, Any]


def render(document: Document, now: str, stream: IO[Any]) -> str:
    """document: of usecases/origin.py."""
    sheet = Sheet(stream)
    sheet.headline(document["digest"], times.bytes(document["size_bytes"]))
    if document["image_of"]:
        _image(sheet, document["image_of"], now)
        return sheet.text()
    makers = document["written_by"] or document["same_weights"]
    if not makers:
        sheet.row("written by", "no run that is known here")
    if document["same_weights"]:
        sheet.row("", "no run has written these bytes; these have written the same weights in another file")
    shown = makers[:_LISTED] if sheet.on_terminal else makers
    for place in shown:
        _writer(sheet, place, now)
    if len(shown) < len(makers):
        sheet.row("", f"... and by {len(makers) - len(shown)} more")
    if makers:
        width = terminal.width(stream)
        space = None if width is None else max(_NARROWEST, width - _MARGIN)
        sheet.items(
            "made from", list(tree(sheet, document["ancestors"], space)) or ["nothing that is known here"]
        )
    sheet.items("read by", [f"{p['run']['name']}  as {p['path']}" for p in document["read_by"]], _LISTED)
    if makers:
        sheet.gap()
        name = makers[0]["run"]["name"]
        sheet.row("more", f"mllaunch provenance {name}", f"mllaunch checkout {name} DIR")
    return sheet.text()


def tree(sheet: Sheet, ancestors: list[Document], width: int | None, indent: str = "") -> Iterator[str]:
    """One line for each file that went in, and below it what its maker was made from; two where one is too wide."""
    for number, entry in enumerate(ancestors):
        is_last = number == len(ancestors) - 1
        file, maker = _made_from(sheet, entry)
        head, below = indent + ("└─ " if is_last else "├─ "), indent + ("   " if is_last else "│  ")
        if width is not None and len(head) + len(file) + len(maker) > width:
            yield head + file
            yield below + ("│  " if entry["from"] else "   ") + maker.lstrip(", ")
        else:
            yield head + file + maker
        yield from tree(sheet, entry["from"], width, below)


def _made_from(sheet: Sheet, entry: Document) -> tuple[str, str]:
    """The file, and who made it."""
    digest = entry["digest"][:_SHORT_DIGEST] if sheet.on_terminal else entry["digest"]
    made = entry["produced_by"]
    words = f"{entry['kind']}: {entry['path']}  {digest}"
    if made is None:
        return words, ", made by no run that is known here"
    step = f" at step {made['step']}" if made["step"] is not None else ""
    known = f", as {made['path']}" if made["path"] != entry["path"] else ""
    code = made["code"]
    commit = f", code {code['commit'][:_SHORT_COMMIT]}" if code else ", a run that was forgotten"
    return words, f" of {made['name'] or made['run']}{step}{known}{commit}"


def _image(sheet: Sheet, places: list[Document], now: str) -> None:
    """A container image: its code, and the runs that used it, newest first."""
    code = places[0]["code"]
    sheet.row("image", *dict.fromkeys(place["path"] for place in places))
    sheet.row("code", f"{code['commit']} on {code['branch'] or 'no branch'}")
    places = sorted(places, key=lambda place: place["run"]["submitted_at"], reverse=True)
    runs = [
        f"{p['run']['name']}  {p['run']['state']}, submitted "
        f"{times.when(p['run']['submitted_at'], now, terminal=sheet.on_terminal)}"
        for p in places
    ]
    sheet.items("runs", runs, _LISTED)


def _writer(sheet: Sheet, place: Document, now: str) -> None:
    from shlex import join

    run, code = place["run"], place["code"]
    commit = code["commit"][:_SHORT_COMMIT] if sheet.on_terminal else code["commit"]
    dirty = " and uncommitted changes" if code["dirty"] else ""
    at = times.when(run["submitted_at"], now, terminal=sheet.on_terminal)
    step = f", at step {place['step']}" if place["step"] is not None else ""
    changed = place["code"].get("changes") or 0
    effect = f", and {changed} change{'s' if changed != 1 else ''} made while it ran" if changed else ""
    mixed = ["MIXED CODE: its processes executed different versions of a file"] if run["mixed_code"] else []
    sheet.row(
        "written by",
        f"{run['name']}, attempt {place['attempt']}{step}, on {place['node']}; submitted {at}, {run['state']}",
        f"as {place['path']}",
        f"with code {commit} on {code['branch'] or 'no branch'}{dirty}{effect}",
        f"by {join(place['command']['argv'])}",
        *mixed,
        paint=lambda text: text.replace(run["name"], sheet.styled(terminal.bold, run["name"]), 1),
    )
