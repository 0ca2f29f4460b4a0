"""Times, durations and sizes for a person. Pipes get RFC 3339 and plain numbers instead."""

from __future__ import annotations

from datetime import datetime

from mllaunch.domain.sizes import shown as bytes

__all__ = ["ago", "between", "bytes", "duration", "seconds_between", "when"]


def when(at: str | None, now: str, *, terminal: bool) -> str:
    """A time (RFC 3339, UTC) as ``3m ago`` on a terminal and as it is on a pipe; ``-`` if it is not known."""
    if at is None:
        return "-"
    return ago(at, now) if terminal else at


def since(at: str, now: str, *, terminal: bool) -> str:
    """From a time on: ``for 14s`` on a terminal, ``since`` that time on a pipe."""
    seconds = seconds_between(at, now)
    return f"for {duration(seconds)}" if terminal and seconds is not None else f"since {at}"


def ago(at: str, now: str) -> str:
    """``3m ago``; from 30 days on the date; ``at`` itself when it lies ahead or is not a time."""
    try:
        passed = (_parsed(now) - _parsed(at)).total_seconds()
    except (ValueError, TypeError):  # no time, or one of the two without a zone
        return at
    if passed < -60:  # clocks of two machines may differ by a little; by more, it should be seen
        return at
    if passed < 1:
        return "just now"
    if passed >= 30 * 86_400:
        return at[:10]
    for unit, seconds in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if passed >= seconds:
            return f"{int(passed // seconds)}{unit} ago"
    return f"{int(passed)}s ago"


def seconds_between(start: str | None, end: str | None) -> float | None:
    """How long from one time to another; None if either is not known."""
    if start is None or end is None:
        return None
    return max(0.0, (_parsed(end) - _parsed(start)).total_seconds())


def duration(seconds: float | None) -> str:
    """``0.4s``, ``12s``, ``3m 05s``, ``2h 03m``, ``4d 01h``; ``-`` if it is not known."""
    if seconds is None:
        return "-"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3_600:
        return f"{whole // 60}m {whole % 60:02}s"
    if whole < 86_400:
        return f"{whole // 3_600}h {whole % 3_600 // 60:02}m"
    return f"{whole // 86_400}d {whole % 86_400 // 3_600:02}h"


def between(start: str | None, end: str | None) -> str:
    """`` after 3m 05s``, to be put behind a verb; nothing if either time is not known."""
    try:
        return f" after {duration((_parsed(end) - _parsed(start)).total_seconds())}" if start and end else ""
    except (ValueError, TypeError):
        return ""


def _parsed(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 does not know the Z
