"""An agent process on this machine, started before its specification is ready.

Its interpreter then starts while the launcher still looks at the code. Imports next to nothing, for that reason.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mllaunch_agent.protocol import TaskSpec


class AgentProcess:
    """Waits for one TaskSpec; ends by itself if none comes."""

    def __init__(self) -> None:
        spec_r, self._spec_w = os.pipe()
        self._answer_r, answer_w = os.pipe()
        null = os.open(os.devnull, os.O_WRONLY)
        spawn("supervise", files=((spec_r, 0), (answer_w, 1), (null, 2)))
        for fd in (spec_r, answer_w, null):
            os.close(fd)

    def give(self, spec: TaskSpec) -> None:
        """Hand over the specification and wait until the agent has it; InternalError if it does not take it."""
        import json

        from mllaunch.errors import InternalError

        # ensure_ascii keeps undecodable bytes of arguments and variables as \u escapes of lone surrogates.
        line = json.dumps(spec).encode("ascii") + b"\n"
        try:
            with os.fdopen(self._spec_w, "wb") as pipe:
                pipe.write(line)
            with os.fdopen(self._answer_r, "rb") as pipe:
                answer = pipe.readline()
        except BrokenPipeError:
            answer = b""
        if answer != b"ok\n":
            raise InternalError(
                "agent_start",
                "the agent did not take the run",
                evidence=(answer.decode(errors="replace").strip() or "it ended without a word",),
                hint="mllaunch doctor",
            )


def adopt(folder: str) -> None:
    """Start an agent that looks after an attempt whose own agent has died."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        spawn("adopt", folder, files=((null, 0), (null, 1), (null, 2)))
    finally:
        os.close(null)


def spawn(*arguments: str, files: tuple[tuple[int, int], ...]) -> int:
    """Start the agent's command line, detached; its pid. files: (our descriptor, its descriptor)."""
    actions = [(os.POSIX_SPAWN_DUP2, ours, theirs) for ours, theirs in files]
    return os.posix_spawn(
        sys.executable, command(*arguments), environment(), file_actions=actions, setsid=True
    )


def command(*arguments: str) -> list[str]:
    """The agent's command line: our interpreter, isolated from the user's Python settings and site-packages."""
    import mllaunch_agent

    root = os.path.dirname(os.path.dirname(os.path.abspath(mllaunch_agent.__file__)))
    code = f"import sys; sys.path.insert(0, {root!r}); from mllaunch_agent.__main__ import main; main()"
    return [sys.executable, "-I", "-S", "-c", code, *arguments]


def environment() -> dict[str, str]:
    """What the agent itself gets: enough to find programs and GPU libraries, and the mark that tells it from a task."""
    kept = ("PATH", "HOME", "USER", "LOGNAME", "LD_LIBRARY_PATH", "TMPDIR", "LANG", "LC_ALL", "TZ")
    # The last two are for developing without a GPU; see docs/developing.md.
    names = (*kept, "MLLAUNCH_FAKE_GPUS", "FAKE_NVML")
    found = {name: os.environ[name] for name in names if name in os.environ}
    return {**found, "MLLAUNCH_AGENT": "1"}
