"""How soon a command that waits returns after its job has ended.

The reference is how soon a shell would know: the same for the bare script.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from bench.measuring import Row, in_turns
from bench.user import User

ROUNDS = 20
# Its last act is to say when that was; nothing of the interpreter's own end comes after it.
SCRIPT = "import os, time\ntime.sleep(0.3)\nos.write(1, b'%d' % time.time_ns())\nos._exit(0)\n"


def rows(quick: bool) -> Iterator[Row]:
    with User() as user:
        user.repo.script(SCRIPT, "t.py")

        def bare() -> float:
            user.bare("t.py")
            return (time.time_ns() - int(user.output.read_bytes())) / 1e6

        def waiting(*command: str) -> float:
            user.mllaunch(*command, "t.py")
            delay_ms = (time.time_ns() - int(user.newest_stream().read_bytes())) / 1e6
            user.settle()
            return delay_ms

        for command in (("run",), ("submit", "--wait")):
            both = in_turns(bare, partial(waiting, *command), 5 if quick else ROUNDS)
            yield Row(f"{' '.join(command)} returns after the job's end", *both, at_most=100)
