"""docs/capture-coverage.md: the table of targets, which people and tests read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.coverage.running import Finding

__all__ = ["MISSED", "PAGE", "SEEN", "UNKNOWN", "Row", "row", "rows", "table"]

PAGE = Path(__file__).parents[2] / "docs" / "capture-coverage.md"
SEEN = "seen"
MISSED = "missed"  # and the record names the program or child that it cannot see into
UNSAID = "missed, not said"
FALSE = ", told too much"
UNKNOWN = "-"
_HEAD = ("target", "hook", "hook + C layer", "why")


class Row(NamedTuple):
    """hook, c_layer: what became of a target with the hook alone, and with the C layer."""

    target: str
    hook: str
    c_layer: str
    why: str


def verdict(finding: Finding) -> str:
    said = SEEN if finding.is_seen else MISSED if finding.is_said else UNSAID
    return said + (FALSE if finding.false else "")


def row(name: str, hook: Finding, c_layer: Finding | None, why: str) -> Row:
    return Row(name, verdict(hook), verdict(c_layer) if c_layer else UNKNOWN, why)


def table(made: Iterable[Row]) -> str:
    lines = [_HEAD, ("---",) * len(_HEAD), *made]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def rows() -> Mapping[str, Row]:
    """The table as it stands on the page, by target."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines() if PAGE.exists() else ():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) in (3, 4) and cells[0] not in (_HEAD[0], "---"):
            found[cells[0]] = Row(cells[0], cells[1], cells[2], cells[3] if len(cells) == 4 else "")
    return found
