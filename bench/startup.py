"""How long after `mllaunch submit` a job's first line appears, beside the bare `python t.py`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.harness import until

from bench.measuring import Row, in_turns
from bench.user import User

FILES = 500
SCRIPT = "import time\nprint(time.time_ns())\n"


def rows(quick: bool) -> Iterator[Row]:
    rounds = 7 if quick else 15
    with User() as user:
        for number in range(FILES):
            user.repo.write(f"package{number % 20}/module{number}.py", f"VALUE = {number}\n" * 50)
        user.repo.script(SCRIPT, "t.py")
        numbers = itertools.count()

        def bare() -> float:
            began_ns = user.bare("t.py")
            return first_line_ms(user.output, began_ns)

        def submitted() -> float:
            began_ns = user.mllaunch("submit", "t.py")
            first_ms = first_line_ms(user.newest_stream(), began_ns)
            user.settle()
            return first_ms

        def submitted_after_commit() -> float:
            user.repo.write("package0/module0.py", f"VALUE = {next(numbers)}\n")
            user.repo.commit()
            return submitted()

        what = f"submit -> first line, {FILES} files"
        yield Row(f"{what}, as submitted before", *in_turns(bare, submitted, rounds), at_most_ratio=12)
        both = in_turns(bare, submitted_after_commit, rounds)
        yield Row(f"{what}, after a commit", *both, at_most_ratio=12)


def first_line_ms(output: Path, began_ns: int) -> float:
    """From the start of the command to the first line, by the time that the job itself printed."""
    until(lambda: output.exists() and output.read_bytes().endswith(b"\n"), "a job to print")
    return (int(output.read_bytes()) - began_ns) / 1e6
