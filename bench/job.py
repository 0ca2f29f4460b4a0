"""What a job itself notices: computing, printing, opening files, each timed by the job's own clock.

The reference runs in the repository itself. Where the checkout is an overlay mount, the kernel takes about 2 us
longer to open a file of it than one of the file system beneath (`open` and `close` alone: 2.6 and 4.3 us); data
linked into it, and whatever lies elsewhere, is opened as fast as ever.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial

from bench.measuring import Row, in_turns
from bench.user import SCRIPT, User

TIMED = """\
import os, sys, time
began = time.perf_counter()
{work}
took = time.perf_counter() - began
os.write(2, b"%.6f" % took)
"""
COMPUTING = "total = 0\nfor i in range({steps}):\n    total += i * i % 7"
PRINTING = "for i in range({lines}):\n    print(f'line {{i:9}} of the output of a program, as it is')"
OPENING = "for i in range({opens}):\n    with open(f'{folder}/{{i % 100}}'):\n        pass"


def rows(quick: bool) -> Iterator[Row]:
    rounds = 3 if quick else 5
    steps, lines, opens = (6_000_000, 200_000, 50_000) if quick else (24_000_000, 1_000_000, 200_000)
    with User() as user:
        data = user.folder / "data"
        data.mkdir()
        for number in range(100):
            user.repo.write(f"package/{number}", "x")
            (data / str(number)).write_text("x")
        jobs = {
            "computing.py": (f"{steps // 1_000_000} million steps of pure Python", COMPUTING, 1.02),
            "printing.py": (f"{lines:,} lines of 52 bytes", PRINTING, 1.05),
            "opening.py": (f"{opens:,} small opens, of data", OPENING, 1.05),
            "opening_code.py": (f"{opens:,} small opens, of files of the checkout", OPENING, 1.05),
        }
        for name, (what, work, target) in jobs.items():
            folder = data if name == "opening.py" else "package"
            sized = work.format(steps=steps, lines=lines, opens=opens, folder=folder)
            user.repo.script(TIMED.format(work=sized), name)
            both = in_turns(partial(_bare_ms, user, name), partial(_run_ms, user, name), rounds, warm_up=0)
            yield Row(what, *both, at_most_ratio=target)
            if name == "printing.py":
                _check_complete(user, lines)


def _bare_ms(user: User, script: str) -> float:
    user.bare(script)
    return float(user.errors.read_bytes()) * 1000


def _run_ms(user: User, script: str) -> float:
    user.mllaunch("submit", "--wait", script)
    took = user.newest_stream("stderr.0").read_bytes()
    user.settle()
    return float(took) * 1000


def _check_complete(user: User, lines: int) -> None:
    """What the run log holds of the last run is all that was printed, in order."""
    expected = hashlib.sha256()
    for number in range(lines):
        expected.update(b"line %9d of the output of a program, as it is\n" % number)
    user.call([str(SCRIPT), "logs", "@last", "--raw"])
    found = hashlib.sha256(user.output.read_bytes())
    assert found.digest() == expected.digest(), "the log is not what was printed"
