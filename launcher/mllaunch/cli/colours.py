"""The few colours in use, each only where the stream wants colours."""

from __future__ import annotations

import os
from typing import IO, Any

from mllaunch.cli import terminal

_CODES = {"succeeded": "32", "failed": "31", "cancelled": "33", "running": "36", "stopping": "33"}


def red(text: str, stream: IO[Any]) -> str:
    return _styled(text, "31", stream)


def green(text: str, stream: IO[Any]) -> str:
    return _styled(text, "32", stream)


def dim(text: str, stream: IO[Any]) -> str:
    return _styled(text, "2", stream)


def state(text: str, name: str, stream: IO[Any]) -> str:
    """Text in the colour of a run's state."""
    return _styled(text, _CODES[name], stream) if name in _CODES else text


def _styled(text: str, code: str, stream: IO[Any]) -> str:
    return terminal.styled(text, code, on=terminal.wants_colour(stream, os.environ))
