"""What the terminal behind a stream is and wants. Each stream is judged by itself: only one may be a pipe."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import IO, Any

_STATES = {"succeeded": "32", "failed": "31", "cancelled": "33", "running": "36", "stopping": "33"}
_RANKS = ("36", "35", "34", "32", "33")


def is_terminal(stream: IO[Any]) -> bool:
    """Whether a person reads the stream. A closed stream is no terminal."""
    try:
        return stream.isatty()
    except ValueError:  # closed
        return False


def wants_colour(stream: IO[Any], environ: Mapping[str, str] = os.environ) -> bool:
    """Whether to colour what goes to the stream.

    NO_COLOR (no-color.org) and FORCE_COLOR (force-color.org) count when they are set and not empty, whatever
    their value. With both set NO_COLOR wins: plain text harms nobody. Without either, terminals other than
    ``TERM=dumb`` get colours.
    """
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return is_terminal(stream) and environ.get("TERM") != "dumb"


def width(stream: IO[Any], environ: Mapping[str, str] = os.environ) -> int | None:
    """How many columns the terminal has; None if the stream is no terminal: then nothing may be cut."""
    if not is_terminal(stream):
        return None
    columns = environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return int(columns)
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):  # a terminal that does not say
        return 80


def red(text: str, stream: IO[Any]) -> str:
    return _styled(text, "31", stream)


def green(text: str, stream: IO[Any]) -> str:
    return _styled(text, "32", stream)


def yellow(text: str, stream: IO[Any]) -> str:
    return _styled(text, "33", stream)


def rank(number: int, stream: IO[Any]) -> str:
    """What stands before a line of one rank of several."""
    return _styled(f"[{number}]", _RANKS[number % len(_RANKS)], stream) + " "


def dim(text: str, stream: IO[Any]) -> str:
    return _styled(text, "2", stream)


def bold(text: str, stream: IO[Any]) -> str:
    return _styled(text, "1", stream)


def state(name: str, stream: IO[Any]) -> str:
    """The name of a run's state, in the colour that goes with it."""
    return _styled(name, _STATES[name], stream) if name in _STATES else name


def _styled(text: str, code: str, stream: IO[Any]) -> str:
    """The text in a colour (SGR), if the stream wants colours."""
    return f"\x1b[{code}m{text}\x1b[0m" if text and wants_colour(stream) else text
