"""What a target is: a program that reads and writes files in one particular way, and what it then has done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import dedent
from typing import NamedTuple

__all__ = ["GIVEN", "IN", "OUT", "Code", "Target", "target"]

GIVEN = "given.txt"  # there before every target, with one line
IN = (GIVEN,)
OUT = ("out.txt",)


class Code(NamedTuple):
    """Code that is executed. content: exactly what, or None where no source tells."""

    path: str
    content: str | bytes | None


class Target(NamedTuple):
    """All paths are relative to the folder in which it runs, which plays the checkout."""

    name: str
    script: str  # run as ``python target.py``
    reads: Sequence[str]
    writes: Sequence[str]
    folders: Sequence[str]  # of so many files that each is one input
    code: Sequence[Code]  # beside the script itself
    files: Mapping[str, str | bytes]  # there before it starts, beside GIVEN
    build: Sequence[str]  # shell commands before it starts, which nobody watches
    touches: Sequence[str]  # also read or written, but of no importance: its seeing is not asked for
    needs: Sequence[str]  # modules beyond Python's own, and programs
    status: int  # how it ends


def target(
    name: str,
    script: str,
    reads: Sequence[str] = (),
    writes: Sequence[str] = (),
    *,
    folders: Sequence[str] = (),
    code: Sequence[Code] = (),
    files: Mapping[str, str | bytes] | None = None,
    build: Sequence[str] = (),
    touches: Sequence[str] = (),
    needs: Sequence[str] = (),
    status: int = 0,
) -> Target:
    texts = {path: _text(content) for path, content in (files or {}).items()}
    return Target(name, _dedent(script), reads, writes, folders, code, texts, build, touches, needs, status)


def _text(content: str | bytes) -> str | bytes:
    return _dedent(content) if isinstance(content, str) else content


def _dedent(text: str) -> str:
    return dedent(text).lstrip("\n")
