"""What the capture costs a job, how fast contents are identified, and how fast a file's origin is told.

The reference of the first rows is the script by itself. Each job times itself, its imports included where they are what
is measured. With the C layer: what `c_layer: on` adds.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.coverage import packages

from bench.measuring import Row, in_turns, ms, spread
from bench.store import a_run, filled_log
from bench.user import PYTHON, SCRIPT, User
from mllaunch.domain.artifact import CHECKPOINT, OPENED, WRITTEN, Artifact
from mllaunch.runlog.sqlite import SqliteRunLog
from mllaunch_agent import hashing

TIMED = """\
import os, sys, time
began = time.perf_counter()
{work}
took = time.perf_counter() - began
os.write(2, b"%.6f" % took)
"""
IMPORTING = "import torch"
# In a function: names of a module are looked up in a table, whose layout is another in each process.
COMPUTING = """\
def compute():
    total = 0
    for i in range({steps}):
        total += i * i % 7
compute()"""
OPENING = "for i in range({opens}):\n    with open(f'{folder}/{{i % 1000}}') as file:\n        file.read()"
TRAINING = """\
import torch
torch.set_num_threads(1)
began = time.perf_counter()
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range({opens} // 32):
    rows = []
    for i in range(32):
        with open(f'{folder}/{{(step * 32 + i) % 36000}}') as file:
            rows.append(float(file.read()))
    batch = torch.tensor(rows).unsqueeze(1).repeat(1, 64)
    loss = model(batch).square().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 200 == 0:
        checkpoint = {{"step": step, "model": model.state_dict()}}
        torch.save(checkpoint, os.environ.get("MLLAUNCH_OUTPUT_DIR", "outputs") + "/last.pt")"""
# Steps that compute and read from the disk itself, while the checkpoint that was written before them is identified.
STEPPING = """\
with open(os.environ.get("MLLAUNCH_OUTPUT_DIR", "outputs") + "/last.pt", "wb") as file:
    file.writelines([os.urandom(1 << 20)] * {megabytes})
    os.fsync(file.fileno())
with open("{folder}/batches", "rb", buffering=0) as data:
    began = time.perf_counter()
    for step in range({disk_steps}):
        os.posix_fadvise(data.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        os.pread(data.fileno(), 1 << 20, (step % 256) << 20)
        sum(range(300_000))"""
C_PROGRAM = """\
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int main(int count, char **argument) {
    struct timespec a, b;
    char name[4096];
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (int i = 0; i < atoi(argument[2]); i++) {
        snprintf(name, sizeof name, "%s/%d", argument[1], i % 1000);
        close(open(name, O_RDONLY));
    }
    clock_gettime(CLOCK_MONOTONIC, &b);
    fprintf(stderr, "%.6f", (b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) / 1e9);
    return count != 3;
}
"""
LAYERS = (("off", ""), ("on", ", with the C layer"))


class Job(NamedTuple):
    """name: of the script. python: its interpreter."""

    what: str
    name: str
    work: str
    target: float
    python: str


def rows(quick: bool) -> Iterator[Row]:
    rounds = 3 if quick else 5
    torch, problem = packages.python()
    if torch is None:
        print(f"(without torch: {problem})")
    with User() as user:
        yield from _jobs(user, torch, rounds, quick)
        yield from _c_program(user, rounds, quick)
    yield from _hashing(quick)
    yield from _origin(quick)


def _jobs(user: User, torch: str | None, rounds: int, quick: bool) -> Iterator[Row]:
    steps, opens, train = (6_000_000, 50_000, 9_000) if quick else (24_000_000, 200_000, 36_000)
    disk_steps, megabytes = (100, 256) if quick else (400, 1024)
    data = user.folder / "data"
    data.mkdir()
    for number in range(36_000):
        (data / str(number)).write_text(str(number % 10))
    (user.folder / "data" / "batches").write_bytes(os.urandom(256 << 20))
    (user.repo.root / "outputs").mkdir()
    disk = f"{disk_steps} steps that read from the disk, while {megabytes:,} MiB of weights are identified"
    jobs = [
        Job(disk, "stepping.py", STEPPING, 1.01, PYTHON),
        Job("a CPU loop", "computing.py", COMPUTING, 1.01, PYTHON),
        Job(f"{opens:,} opens in Python", "opening.py", OPENING, 1.25, PYTHON),
    ]
    if torch is not None:
        jobs += [
            Job("import torch", "importing.py", IMPORTING, 1.03, torch),
            Job(f"a torch training loop with {train:,} opens", "training.py", TRAINING, 1.06, torch),
        ]
    for job in jobs:
        count = train if job.name == "training.py" else opens
        sized = job.work.format(
            steps=steps, opens=count, disk_steps=disk_steps, megabytes=megabytes, folder=data
        )
        user.repo.script(TIMED.format(work=sized), job.name)
        for layer, words in LAYERS if job.work is not STEPPING else LAYERS[:1]:
            ours = partial(_run_ms, user, job, layer)
            yield Row(
                job.what + words,
                *in_turns(partial(_bare_ms, user, job), ours, rounds),
                at_most_ratio=job.target,
            )


def _bare_ms(user: User, job: Job) -> float:
    user.call([job.python, job.name], PYTHONUNBUFFERED="1", PYTHONDONTWRITEBYTECODE="1")
    return float(user.errors.read_bytes()) * 1000


def _run_ms(user: User, job: Job, layer: str) -> float:
    user.call([str(SCRIPT), "submit", "--wait", "--python", job.python, job.name], MLLAUNCH_C_LAYER=layer)
    took = user.newest_stream("stderr.0").read_bytes()
    user.settle()
    return float(took) * 1000


def _c_program(user: User, rounds: int, quick: bool) -> Iterator[Row]:
    opens = "50000" if quick else "200000"
    source, program = user.folder / "opening.c", user.folder / "opening"
    source.write_text(C_PROGRAM)
    user.call(["cc", "-O2", "-o", str(program), str(source)])
    argv = [str(program), str(user.folder / "data"), opens]

    def bare() -> float:
        user.call(argv)
        return float(user.errors.read_bytes()) * 1000

    def ours(layer: str) -> float:
        user.call([str(SCRIPT), "submit", "--wait", "--", *argv], MLLAUNCH_C_LAYER=layer)
        took = user.newest_stream("stderr.0").read_bytes()
        user.settle()
        return float(took) * 1000

    for layer, words, target in (("off", "", 1.02), ("on", ", with the C layer", 1.4)):
        both = in_turns(bare, partial(ours, layer), rounds)
        yield Row(f"{int(opens):,} opens in C{words}", *both, at_most_ratio=target)


def _hashing(quick: bool) -> Iterator[Row]:
    """First-time identification of a checkpoint, its file in the page cache."""
    size = (64 if quick else 1024) << 20
    with tempfile.TemporaryDirectory(prefix="mllaunch-bench-", dir=_quick_folder()) as folder:
        path = Path(folder) / "model.pt"
        path.write_bytes(os.urandom(1 << 20) * (size >> 20))

        def reference() -> float:
            with path.open("rb") as file:
                return ms(lambda: hashlib.file_digest(file, "sha256"))

        both = in_turns(reference, lambda: ms(lambda: hashing.sha256_of(os.fsencode(path))), 5)
        speeds = [spread([size / 1e3 / value for value in one]) for one in both]
        yield Row("digest of a checkpoint, to hashlib.file_digest", *speeds, unit="MB/s", at_least=1500)


def _quick_folder() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _origin(quick: bool) -> Iterator[Row]:
    """`mllaunch provenance DIGEST` as a command, in a run log with many runs and artifacts."""
    runs = 10_000 if quick else 100_000
    with User() as user:
        log = filled_log(str(user.home.path), runs)
        try:
            _fill_artifacts(log, runs)
        finally:
            log.close()
        newest = _digest(runs - 1, 0)
        both = in_turns(
            lambda: ms(lambda: user.call([PYTHON, "-c", "pass"])),
            lambda: ms(lambda: user.call([str(SCRIPT), "provenance", newest, "--json"])),
            10,
        )
        yield Row(f"provenance of a digest, {runs:,} runs, {runs * 10:,} artifacts", *both, at_most=100)


def _fill_artifacts(log: SqliteRunLog, runs: int) -> None:
    """Ten for each run: what it wrote, and the checkpoint of the run before that it began with."""

    def all_of_them() -> Iterator[Artifact]:
        for number in range(runs):
            run_id = a_run(number).id
            for which in range(9):
                kind = CHECKPOINT if which == 0 else WRITTEN
                yield Artifact(
                    _digest(number, which), run_id, 1, "n", f"outputs/{which}.pt", kind, 1000, which
                )
            if number % 20:
                yield Artifact(_digest(number - 1, 0), run_id, 1, "n", "start.pt", OPENED, 1000)

    began = time.monotonic()
    log.add_artifacts(all_of_them())
    print(f"({runs * 10:,} artifacts stored in {time.monotonic() - began:.0f} s)", flush=True)


def _digest(number: int, which: int) -> str:
    return hashlib.sha256(b"%d %d" % (number, which)).hexdigest()
