"""Every implementation of RunLog and BlobStore, by name, and programs that tests start as other processes.

``python -m tests.conformance.stores PROGRAM IMPLEMENTATION PLACE ARGUMENT...``
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mllaunch.ports import BlobStore, RunLog, StreamRef
from mllaunch.runlog.blobs import FileBlobStore
from mllaunch.runlog.sqlite import SqliteRunLog

from .runs import QUEUED, make_run

ROOT = Path(__file__).parents[2]


class ClosableRunLog(RunLog, Protocol):
    def close(self) -> None: ...


# Opens the store at a place; opening it twice gives two connections to the same runs.
RUN_LOGS: dict[str, Callable[[str], ClosableRunLog]] = {"sqlite": SqliteRunLog}
BLOB_STORES: dict[str, Callable[[str], BlobStore]] = {"files": FileBlobStore}


def start(program: str, *arguments: str) -> subprocess.Popen[str]:
    """One of the programs below as its own process; what it prints is its acknowledgements."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.conformance.stores", program, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def add_runs(log: ClosableRunLog, first: int, count: int) -> None:
    """Acknowledge each run once it is stored, and each view that covers it."""
    for number in range(first, first + count):
        run = make_run(number, params=(("number", str(number)),))
        log.add(run, QUEUED)
        print(run.name, flush=True)


def count_up(log: ClosableRunLog, run_id: str, times: int) -> None:
    """Raise the counter of one view, again and again, as collectors that race for it do."""
    from mllaunch.ports import AttemptRef

    attempt = AttemptRef(run_id, 1)
    while times:
        view, was = log.view(attempt, "node")
        counted = {"count": view.get("count", 0) + 1}
        times -= log.set_view(attempt, "node", counted, was=was, now=was + 1, status=QUEUED)


def append_numbers(blobs: BlobStore, count: int, width: int) -> None:
    """Append blocks that say where they belong; acknowledge each length."""
    ref = StreamRef("run", 1, "node", "stdout.0")
    for number in range(blobs.length(ref) // width, count):
        offset = number * width
        print(blobs.append(ref, offset, block(number, width)), flush=True)


def block(number: int, width: int) -> bytes:
    return (b"%08d " % number) * (width // 9)


def main(program: str, implementation: str, place: str, *arguments: str) -> None:
    print("ready", flush=True)
    sys.stdin.readline()  # all processes start to write together
    if program == "append_numbers":
        append_numbers(BLOB_STORES[implementation](place), int(arguments[0]), int(arguments[1]))
        return
    log = RUN_LOGS[implementation](place)
    if program == "add_runs":
        add_runs(log, int(arguments[0]), int(arguments[1]))
    elif program == "count_up":
        count_up(log, arguments[0], int(arguments[1]))
    log.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)
