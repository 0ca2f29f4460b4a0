"""Starting an agent process, detached from whoever asks. Imports next to nothing: a submission waits for it."""

from __future__ import annotations

import os
import sys
from typing import Callable, Dict, List, Tuple

# Enough to find programs and GPU libraries. The last two are for developing without a GPU; see docs/developing.md.
_KEPT = (
    *("PATH", "HOME", "USER", "LOGNAME", "LD_LIBRARY_PATH", "TMPDIR", "LANG", "LC_ALL", "TZ"),
    *("MLLAUNCH_FAKE_GPUS", "FAKE_NVML"),
)


def spawn(*arguments: str, files: Tuple[Tuple[int, int], ...]) -> int:
    """Start the agent's command line, detached; its pid. files: (our descriptor, its descriptor)."""
    actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in files]
    return os.posix_spawn(
        sys.executable, command(*arguments), environment(), file_actions=actions, setsid=True
    )


def fork(act: Callable[[], object], answer: int) -> int:
    """As spawn, but out of this process's memory, which is there already: its pid. What act leaves is its end.

    answer: a descriptor that becomes its stdout. Only for a process without threads.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        from mllaunch_agent import system

        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for ours, theirs in ((null, 0), (answer, 1), (null, 2)):
            os.dup2(ours, theirs)
        system.close_all_but({0, 1, 2})
        kept = environment()
        os.environ.clear()
        os.environ.update(kept)
        act()
    finally:
        os._exit(1)


def adopt(folder: str) -> None:
    """Start an agent that looks after an attempt whose own agent has died."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        spawn("adopt", folder, files=((null, 0), (null, 1), (null, 2)))
    finally:
        os.close(null)


def command(*arguments: str) -> List[str]:
    """The agent's command line: our interpreter, isolated from the user's Python settings and site-packages."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    code = "import sys; sys.path.insert(0, %r); from mllaunch_agent.__main__ import main; main()" % root
    return [sys.executable, "-I", "-S", "-c", code, *arguments]


def environment() -> Dict[str, str]:
    """What the agent itself gets, with the mark that tells it from a task."""
    return {**{name: os.environ[name] for name in _KEPT if name in os.environ}, "MLLAUNCH_AGENT": "1"}
