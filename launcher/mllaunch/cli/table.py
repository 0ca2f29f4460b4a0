"""Aligned tables of foreign text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mllaunch.domain.render import escape

_GAP = "  "
_NARROWEST = 4  # columns that a cut column keeps: three characters and the ellipsis


def table(
    rows: Sequence[Sequence[str]],
    headers: Sequence[str],
    width: int | None,
    paint: Callable[[int, str], str] | None = None,
) -> str:
    """Rows below their headers, each line with its end.

    width: columns of the terminal, to which the widest cells are cut with an ellipsis; None (a pipe): nothing
    is cut. paint(column, cell) may colour a cell after it was measured. Control characters in cells are
    escaped.
    """
    cells = [[escape(cell) for cell in row] for row in (headers, *rows)]
    widths = [max(map(text_width, column)) for column in zip(*cells, strict=True)]
    if width is not None:
        widths = _fitting(widths, width - len(_GAP) * (len(widths) - 1))
    lines = []
    for number, row in enumerate(cells):
        line = []
        for column, (cell, space) in enumerate(zip(row, widths, strict=True)):
            shown = cut(cell, space)
            padding = " " * (space - text_width(shown))
            line.append((paint(column, shown) if paint and number else shown) + padding)
        lines.append(_GAP.join(line).rstrip() + "\n")
    return "".join(lines)


def text_width(text: str) -> int:
    """Columns of the text on a terminal: two for East Asian wide characters, none for combining ones."""
    if text.isascii():
        return len(text)
    return sum(map(_character_width, text))


def _character_width(character: str) -> int:
    import unicodedata

    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _fitting(widths: list[int], space: int) -> list[int]:
    """The widths, with the widest made narrower until all fit into the space or none can give any more."""
    widths = list(widths)
    while sum(widths) > space:
        widest = max(widths)
        if widest <= _NARROWEST:
            break
        # At once down to the next widest, or to what is missing, rather than column by column.
        second = max([width for width in widths if width < widest], default=0)
        share = -(-(sum(widths) - space) // widths.count(widest))
        widths[widths.index(widest)] = max(_NARROWEST, second, widest - share)
    return widths


def cut(text: str, space: int) -> str:
    """The text, or as much of it as fits into so many columns with an ellipsis."""
    if text_width(text) <= space:
        return text
    used = 0
    for end, character in enumerate(text):
        used += _character_width(character)
        if used > space - 1:
            return text[:end] + "…"
    return text
