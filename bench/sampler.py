"""The sampler at 1 Hz over a tree of 51 processes, beside psutil's plain walk of the same tree.

Each way runs in a process of its own, at the same time as the others. All of the process's CPU time counts,
the interpreter's idling included; the first sample, which warms up, does not.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.measuring import Row, Spread, spread

CHILDREN = 50
TREE = f"""
import os, time
for _ in range({CHILDREN}):
    if os.fork() == 0:
        time.sleep(3600)
        os._exit(0)
print("ready", flush=True)
time.sleep(3600)
"""


def rows(quick: bool) -> Iterator[Row]:
    found = _compare(seconds=5 if quick else 20)
    what = f"sampler, {CHILDREN + 1} processes at 1 Hz"
    yield Row(what, found["psutil"], found["mllaunch"], "% core", at_most=0.6)
    yield Row("the same with nothing sampled (information)", None, found["idle"], "% core")


def _compare(seconds: int) -> dict[str, Spread]:
    with subprocess.Popen(
        [sys.executable, "-c", TREE], stdout=subprocess.PIPE, start_new_session=True
    ) as tree:
        try:
            assert tree.stdout is not None
            tree.stdout.readline()
            running = {way: _start(way, tree.pid, seconds) for way in WAYS}
            return {way: spread(json.loads(run.communicate()[0])) for way, run in running.items()}
        finally:
            os.killpg(tree.pid, signal.SIGKILL)


def _start(way: str, pid: int, seconds: int) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "bench.sampler", way, str(pid), str(seconds)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE)


def _idle(_: int) -> Callable[[], bytes]:
    return bytes


def _ours(pid: int) -> Callable[[], bytes]:
    from mllaunch_agent.probes.sampler import Sampler

    sampler = Sampler([pid])
    return lambda: sampler.sample(time.monotonic()).encode() + b"\n"


def _naive(pid: int) -> Callable[[], bytes]:
    import psutil

    def sample() -> bytes:
        total = [0.0, 0, 0, 0]
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            cpu, memory, io = process.cpu_times(), process.memory_info(), process.io_counters()
            read = (cpu.user + cpu.system, memory.rss, io.read_bytes, io.write_bytes)
            total = [a + b for a, b in zip(total, read, strict=True)]
        host = psutil.cpu_percent(), psutil.virtual_memory().used, *psutil.net_io_counters()[:2]
        return json.dumps([*total, *host]).encode() + b"\n"

    return sample


WAYS = {"idle": _idle, "mllaunch": _ours, "psutil": _naive}


def _percents(way: str, pid: int, seconds: int) -> list[float]:
    """Of each second, the share of a core that was used."""
    sample = WAYS[way](pid)
    percents = []
    with Path(os.devnull).open("wb", buffering=0) as out:
        out.write(sample())
        for _ in range(seconds):
            before = time.process_time()
            time.sleep(1)
            out.write(sample())
            percents.append((time.process_time() - before) * 100)
    return percents


if __name__ == "__main__":
    print(json.dumps(_percents(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
