"""The table [tool.mllaunch] of pyproject.toml into a tree of nodes."""

from __future__ import annotations

import sys
from typing import Any

from mllaunch.config.tree import Node

_TABLE = ("tool", "mllaunch")
_Path = tuple[str, ...]


def parse_toml(text: str, name: str, faults: list[str]) -> Node | None:
    """The table's value, or None if there is none. Faults read ``name:line:column: ...``."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            faults.append(f"{name}:1:1: reading [tool.mllaunch] needs Python 3.11, or: pip install tomli")
            return None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        faults.append(_syntax_fault(str(error), name))
        return None
    except RecursionError:
        faults.append(f"{name}:1:1: nested too deep")
        return None
    table: Any = document
    for key in _TABLE:
        table = table.get(key) if isinstance(table, dict) else None
    if table is None:
        return None
    try:
        return _node(table, _TABLE, f"{name}:1:1", name, _marks(text))
    except RecursionError:  # a dotted key of a thousand parts, which tomllib reads without recursion
        faults.append(f"{name}:1:1: nested too deep")
        return None


def _syntax_fault(said: str, name: str) -> str:
    """tomllib's ``... (at line 3, column 5)`` as ours."""
    message, _, place = said.rpartition(" (at ")
    numbers = [word for word in place.rstrip(")").replace(",", "").split() if word.isdecimal()]
    where = ":".join(numbers) if len(numbers) == 2 else "1:1"
    return f"{name}:{where}: not valid TOML: {message or said}"


def _node(value: Any, path: _Path, above: str, name: str, marks: dict[_Path, str]) -> Node:
    where = f"{name}:{marks[path]}" if path in marks else above
    if isinstance(value, dict):
        below: Any = {key: _node(child, (*path, key), where, name, marks) for key, child in value.items()}
    elif isinstance(value, list):
        below = [_node(child, path, where, name, marks) for child in value]
    else:
        below = value
    return Node(below, where, where)


def _marks(text: str) -> dict[_Path, str]:
    """Where keys stand, found by looking for them: tomllib keeps no positions.

    Inside an inline table or a list that spans lines, a key has the position of what holds it.
    """
    marks: dict[_Path, str] = {}
    table: _Path = ()
    for number, line in enumerate(text.split("\n"), 1):
        stripped = line.strip()
        place = f"{number}:{len(line) - len(line.lstrip()) + 1}"
        if stripped.startswith("["):
            table = _dotted(stripped.lstrip("[").partition("]")[0])
            marks.setdefault(table, place)
        elif table[: len(_TABLE)] == _TABLE and "=" in stripped and not stripped.startswith("#"):
            path = table
            for part in _dotted(stripped.partition("=")[0]):
                path = (*path, part)
                marks.setdefault(path, place)
    return marks


def _dotted(key: str) -> _Path:
    return tuple(part.strip().strip("\"'") for part in key.split(".", 10))  # ours nest three deep
