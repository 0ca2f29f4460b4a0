"""The repository's files as text and as TOML, and what is said of them."""

from __future__ import annotations

import posixpath
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from mllaunch_containers.spec import WORKSPACE, ImageError

__all__ = ["SET", "Tree", "left_out", "parsed_toml", "shown", "unreadable"]

SET = "set image.dependencies"


class Tree(NamedTuple):
    """The files of the repository."""

    paths: frozenset[str]
    read: Callable[[str], bytes]

    def text(self, path: str) -> str:
        """UTF-8, or what a byte order mark says, as pip reads it."""
        content = self.read(path)
        found = [(mark, encoding) for mark, encoding in _MARKS if content.startswith(mark)]
        mark, encoding = found[0] if found else (b"", "utf-8")
        try:
            return content[len(mark) :].decode(encoding)
        except UnicodeDecodeError as error:
            raise unreadable(path, f"not {encoding.upper()}: {error.reason}") from error

    def toml(self, path: str) -> dict[str, Any]:
        return parsed_toml(path, self.text(path))


_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\0\0", "utf-32-le"),  # before UTF-16, whose mark is its beginning
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)


def parsed_toml(path: str, text: str) -> dict[str, Any]:
    """path: what the file is called if it cannot be read."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise unreadable(path, "needs Python 3.11, or: pip install tomli") from error
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except RecursionError as error:
        raise unreadable(path, "nested too deep") from error
    except ValueError as error:  # also a number of more digits than Python reads
        raise unreadable(path, f"not valid TOML: {error}") from error
    return document


def left_out(path: str, line: str) -> str:
    """The note about a line that would install the repository itself."""
    folder = posixpath.normpath(posixpath.join(WORKSPACE, posixpath.dirname(path)))
    return (
        f"{shown(path)}: left out {shown(line)}, as the code comes after the packages; "
        f"it can be imported from {shown(folder)} and its src"
    )


def unreadable(path: str, cause: str) -> ImageError:
    """``dependencies_unreadable``."""
    said = shown(" ".join(cause.split()))
    return ImageError(
        "dependencies_unreadable", f"{shown(path)} cannot be read: {said}", hint=f"mend it, or {SET}"
    )


def shown(text: str) -> str:
    """On one line whatever it holds."""
    return text if text.isprintable() else repr(text)[1:-1]
