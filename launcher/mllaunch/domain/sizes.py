"""Sizes for a person. Pipes get plain numbers instead."""

from __future__ import annotations

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def shown(count: int | None) -> str:
    """``17 B``, ``1.2 GiB``; ``-`` if it is not known."""
    if count is None:
        return "-"
    if count < 1024:
        return f"{count} B"
    size = count / 1024
    unit = 0
    while (
        size >= 1023.95 and unit < len(_UNITS) - 1
    ):  # what would be shown as 1024.0 belongs to the next unit
        size /= 1024
        unit += 1
    return f"{size:.1f} {_UNITS[unit]}"
