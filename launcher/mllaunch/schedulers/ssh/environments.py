"""Has a node make the virtual environment that a lock asks for, and waits for it.

The node makes it in a process of its own and is asked again and again how that stands: so no call takes long, and
whoever comes meanwhile waits for the same one.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from mllaunch.errors import MllaunchError

if TYPE_CHECKING:
    from mllaunch.schedulers.ssh.calls import Calls
    from mllaunch_containers.spec import Dependencies

__all__ = ["Made", "make"]

_PAUSE_S = 0.2
_EVIDENCE = 8  # lines


class Made(NamedTuple):
    """path: the environment's folder on the node. is_new: whether it was not there before."""

    path: str
    is_new: bool


def make(calls: Calls, wanted: Dependencies, say: Callable[[str], None]) -> Made:
    """say: takes lines of progress. MllaunchError: "environment" if it could not be made."""
    content = b"".join(content for _, content in wanted.files)
    sizes = [(path, len(content)) for path, content in wanted.files]
    key = calls.call("make_environment", content, kind=wanted.kind, sizes=sizes)
    last: deque[str] = deque(maxlen=_EVIDENCE)
    offset, rest, is_new = 0, "", False
    while True:
        found = calls.call("environment", key=key, offset=offset)
        offset = found["offset"]
        if found["state"] == "ready":
            return Made(found["path"], is_new)
        is_new = True
        *lines, rest = (rest + found["log"]).split("\n")
        for line in filter(None, map(str.strip, lines)):
            last.append(line)
            say(line)
        if found["state"] == "failed":
            raise _failed(calls, wanted, found["why"], tuple(last))
        time.sleep(_PAUSE_S)


def _failed(calls: Calls, wanted: Dependencies, why: str, evidence: tuple[str, ...]) -> MllaunchError:
    name = calls.address.name
    return MllaunchError(
        "environment",
        f"{name}: the packages of {wanted.path} could not be installed: {why}",
        evidence=evidence,
        hint=f"or name an interpreter that has them: nodes: [{{name: {name}, python: /PATH/TO/python}}]",
    )
