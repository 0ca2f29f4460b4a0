"""An agent process on this machine, started before its specification is ready.

Its interpreter then starts while the launcher still looks at the code. Imports next to nothing, for that reason.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mllaunch_agent.starting import spawn

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
