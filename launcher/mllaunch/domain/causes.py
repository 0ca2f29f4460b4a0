"""What keeps nodes from being used: where it is the same of many it is told once; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

_LIKEWISE = 3  # nodes that are named beside the first


class Problem(NamedTuple):
    """What is wrong with one node. host: by which the message may name it, too."""

    node: str
    host: str | None
    message: str
    hint: str | None = None


class Cause(NamedTuple):
    """What is wrong with some. message, hint: in the words that concern the first of them."""

    names: list[str]
    message: str
    hint: str | None

    @property
    def words(self) -> str:
        """The message, and which others it holds for."""
        others, more = self.names[1 : 1 + _LIKEWISE], len(self.names) - 1 - _LIKEWISE
        words = f"; likewise {', '.join(others)}" if others else ""
        return self.message + words + (f" and {more} more" if more > 0 else "")


def together(problems: Iterable[Problem]) -> list[Cause]:
    """Each cause once, in the order of the nodes: those whose messages differ in their own names alone share one."""
    found: dict[str, Cause] = {}
    for problem in problems:
        new = Cause([], problem.message, problem.hint)
        found.setdefault(_without_names(problem), new).names.append(problem.node)
    return list(found.values())


def _without_names(problem: Problem) -> str:
    names = sorted(filter(None, (problem.node, problem.host)), key=len, reverse=True)
    either = "|".join(map(re.escape, names))
    return re.sub(rf"(?<![\w.-])(?:{either})(?![\w-]|\.\w)", "", problem.message)
