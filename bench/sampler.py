"""What the sampler costs: CPU time per sample at 1 Hz over a tree of 51 processes, beside psutil's plain
walk.

    python bench/sampler.py [--seconds 20] [--json]

Each way runs in a process of its own, on the same tree, at the same time. All of the process's CPU time
counts, the interpreter's idling included.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
WAYS = ("bare", "mllaunch", "psutil")


def ours(pid):
    from mllaunch_agent.probes.sampler import Sampler

    sampler = Sampler([pid])
    return lambda: sampler.sample(time.monotonic()).encode() + b"\n"


def naive(pid):
    import psutil

    def sample():
        total = [0.0, 0, 0, 0]
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            cpu, memory, io = process.cpu_times(), process.memory_info(), process.io_counters()
            total = [
                total[0] + cpu.user + cpu.system,
                total[1] + memory.rss,
                total[2] + io.read_bytes,
                total[3] + io.write_bytes,
            ]
        host = psutil.cpu_percent(), psutil.virtual_memory().used, *psutil.net_io_counters()[:2]
        return json.dumps([*total, *host]).encode() + b"\n"

    return sample


def measure(way, pid, seconds):
    """CPU milliseconds and bytes per sample, the first one (which warms up) left out."""
    sample = {"bare": lambda _: bytes, "mllaunch": ours, "psutil": naive}[way](pid)
    with Path(os.devnull).open("wb", buffering=0) as out:
        out.write(sample())
        size = 0
        before = time.process_time()
        for _ in range(seconds):
            time.sleep(1)
            size += out.write(sample())
        spent = time.process_time() - before
    return {"ms_per_sample": spent * 1000 / seconds, "bytes_per_sample": size / seconds}


def compare(seconds):
    command = [sys.executable, "-c", TREE]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as tree:
        try:
            tree.stdout.readline()
            runs = {}
            for way in WAYS:
                argv = [
                    sys.executable,
                    __file__,
                    "--way",
                    way,
                    "--pid",
                    str(tree.pid),
                    "--seconds",
                    str(seconds),
                ]
                runs[way] = subprocess.Popen(argv, stdout=subprocess.PIPE)
            return {way: json.loads(run.communicate()[0]) for way, run in runs.items()}
        finally:
            os.killpg(tree.pid, signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--pid", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.way, options.pid, options.seconds)))
        return
    results = compare(options.seconds)
    if options.json:
        print(json.dumps(results))
        return
    print(f"{CHILDREN + 1} processes, {options.seconds} samples at 1 Hz")
    for way, result in results.items():
        percent = result["ms_per_sample"] / 10
        print(f"{way:10} {result['ms_per_sample']:6.2f} ms/s = {percent:.2f} % of a core", end="")
        print(f"   {result['bytes_per_sample']:6.0f} bytes per sample")
    ratio = results["mllaunch"]["ms_per_sample"] / results["psutil"]["ms_per_sample"]
    print(f"mllaunch / psutil = {ratio:.2f}")


if __name__ == "__main__":
    main()
