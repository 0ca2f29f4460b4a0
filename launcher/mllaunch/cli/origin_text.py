"""Where a file came from, as a person reads it."""

from __future__ import annotations

from typing import IO, Any

from mllaunch.cli import terminal, times
from mllaunch.cli.sheet import Sheet

_LISTED = 10
_SHORT_COMMIT = 12


def render(document: dict[str, Any], now: str, stream: IO[Any]) -> str:
    """Who wrote these bytes, then who was given them. document: of usecases.provenance.origin."""
    sheet = Sheet(stream)
    sheet.headline(document["digest"], times.bytes(document["size_bytes"]))
    if document["image_of"]:
        _image(sheet, document["image_of"], now)
        return sheet.text()
    if not document["written_by"]:
        sheet.row("written by", "no run that is known here")
    shown = document["written_by"][:_LISTED] if sheet.on_terminal else document["written_by"]
    for place in shown:
        _writer(sheet, place, now)
    if len(shown) < len(document["written_by"]):
        sheet.row("", f"... and by {len(document['written_by']) - len(shown)} more")
    sheet.items("read by", [f"{p['run']['name']}  as {p['path']}" for p in document["read_by"]], _LISTED)
    missing = "; ".join(entry["what"].rpartition(": ")[2] for entry in document["not_captured"])
    sheet.row("not captured", f"not recorded by this version: {missing}")
    if document["written_by"]:
        sheet.gap()
        sheet.row("more", f"mllaunch provenance {document['written_by'][0]['run']['name']}")
    return sheet.text()


def _image(sheet: Sheet, places: list[dict[str, Any]], now: str) -> None:
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


def _writer(sheet: Sheet, place: dict[str, Any], now: str) -> None:
    from shlex import join

    run, code = place["run"], place["code"]
    commit = code["commit"][:_SHORT_COMMIT] if sheet.on_terminal else code["commit"]
    dirty = " and uncommitted changes" if code["dirty"] else ""
    at = times.when(run["submitted_at"], now, terminal=sheet.on_terminal)
    sheet.row(
        "written by",
        f"{run['name']}, attempt {place['attempt']}, on {place['node']}; submitted {at}, {run['state']}",
        f"as {place['path']}",
        f"with code {commit} on {code['branch'] or 'no branch'}{dirty}",
        f"by {join(place['command']['argv'])}",
        paint=lambda text: text.replace(run["name"], sheet.styled(terminal.bold, run["name"]), 1),
    )
