"""Starting an agent process, detached from whoever asks. Imports next to nothing: a submission waits for it."""

from __future__ import annotations

import os
import sys
from typing import Dict, List, Tuple

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
