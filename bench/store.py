"""The run log with 100,000 runs against raw SQLite doing the least that answers.

The reference is one table, with columns for what a listing shows and JSON for the rest, one of parameters,
the indexes that its queries need, a connection that stays open, and the same durability (WAL,
synchronous=FULL). Both sides are measured in turns within one process.

``python -m bench.store [RUNS]`` in the repository's root
"""

from __future__ import annotations

import json
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from itertools import count
from pathlib import Path
from statistics import median

from tests.conformance.runs import SUCCEEDED, make_run

from mllaunch.domain.run import Run
from mllaunch.ports import RunQuery, StreamRef
from mllaunch.runlog.blobs import FileBlobStore
from mllaunch.runlog.codec import encode_run
from mllaunch.runlog.database import Database
from mllaunch.runlog.sqlite import SqliteRunLog, insert_run

ROOT = Path(__file__).parents[1]
RUNS = 100_000
ROUNDS = 300
TARGET = 5.0

Row = tuple[str, float, float, float, float]


def rows(runs: int = RUNS) -> list[Row]:
    """(what, ours in ms, reference in ms, ratio, at most this ratio), medians of interleaved rounds."""
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        log = filled_log(f"{folder}/ours", runs)
        raw = filled_reference(f"{folder}/reference.sqlite3", runs)
        try:
            return measured(log, raw, runs)
        finally:
            log.close()
            raw.close()


def measured(log: SqliteRunLog, raw: sqlite3.Connection, runs: int) -> list[Row]:
    name, run_id = a_run(runs // 2).name, a_run(runs // 2).id
    fresh, fresh_raw = (map(a_run, count(runs)) for _ in range(2))
    pairs: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        (
            "latest 20",
            lambda: log.rows(RunQuery(limit=20)),
            lambda: raw.execute(LATEST).fetchall(),
        ),
        (
            "latest 20 with a parameter",
            lambda: log.rows(RunQuery(limit=20, params=(("lr", "0.03"),))),
            lambda: raw.execute(WITH_PARAMETER, ("lr", "0.03")).fetchall(),
        ),
        (
            "one complete run by name",
            lambda: log.get(name),
            lambda: json.loads(raw.execute("SELECT body FROM run WHERE name = ?", (name,)).fetchone()[0]),
        ),
        (
            "one complete run by id",
            lambda: log.get(run_id),
            lambda: json.loads(raw.execute("SELECT body FROM run WHERE id = ?", (run_id,)).fetchone()[0]),
        ),
        (
            "insert one run, durably",
            lambda: log.add(next(fresh), SUCCEEDED),
            lambda: insert(raw, [next(fresh_raw)]),
        ),
    ]
    return [(label, *compared(ours, reference), TARGET) for label, ours, reference in pairs]


def compared(ours: Callable[[], object], reference: Callable[[], object]) -> tuple[float, float, float]:
    """Median milliseconds of both, and their ratio."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        for act, taken in zip((ours, reference), times, strict=True):
            start = time.perf_counter()
            act()
            taken.append((time.perf_counter() - start) * 1000)
    return median(times[0]), median(times[1]), median(times[0]) / median(times[1])


def a_run(number: int) -> Run:
    rates = ("0.1", "0.03", "0.01", "0.003", "0.001")
    params = (("lr", rates[number % 5]), ("seed", str(number)), ("epochs", "10"))
    return make_run(number, params=params)


def filled_log(home: str, runs: int) -> SqliteRunLog:
    """A run log with many runs, stored as ``add`` does but in one transaction."""
    log = SqliteRunLog(home)
    with Database(home).transaction() as writer:
        for number in range(runs):
            insert_run(writer, a_run(number), SUCCEEDED)
    return log


def filled_reference(path: str, runs: int) -> sqlite3.Connection:
    raw = sqlite3.connect(path, isolation_level=None)
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("PRAGMA synchronous = FULL")
    for statement in REFERENCE_SCHEMA:
        raw.execute(statement)
    insert(raw, map(a_run, range(runs)))
    return raw


def insert(raw: sqlite3.Connection, runs: Iterable[Run]) -> None:
    raw.execute("BEGIN")
    for run in runs:
        command = " ".join((run.spec.script or "", *run.spec.args))
        raw.execute(
            "INSERT INTO run VALUES (?, ?, ?, ?, ?, ?, ?)",
            (run.id, run.name, run.submitted_at, run.spec.project, command, "succeeded", encode_run(run)),
        )
        raw.executemany(
            "INSERT INTO param VALUES (?, ?, ?, ?)",
            [(name, value, run.submitted_at, run.id) for name, value in run.params],
        )
    raw.execute("COMMIT")


REFERENCE_SCHEMA = (
    "CREATE TABLE run (id TEXT PRIMARY KEY, name TEXT UNIQUE, submitted_at TEXT, "
    "project TEXT, command TEXT, state TEXT, body TEXT)",
    "CREATE INDEX newest ON run (submitted_at)",
    "CREATE TABLE param (name TEXT, value TEXT, submitted_at TEXT, run TEXT)",
    "CREATE INDEX by_value ON param (name, value, submitted_at)",
)
LATEST = "SELECT id, name, submitted_at, project, command, state FROM run ORDER BY submitted_at DESC LIMIT 20"
WITH_PARAMETER = """
SELECT id, run.name, run.submitted_at, project, command, state FROM param JOIN run ON run.id = param.run
WHERE param.name = ? AND param.value = ? ORDER BY param.submitted_at DESC LIMIT 20
"""


def append_rate() -> tuple[float, float]:
    """MB/s of appending 100 MB in 4 MB pieces to a stream, and of plain writes to a file."""
    piece = bytes(range(256)) * (4 * 2**20 // 256)
    rates: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:
        store = FileBlobStore(folder)
        for round_ in range(5):
            ref = StreamRef(f"run{round_}", 1, "node", "stdout.0")
            start = time.perf_counter()
            for number in range(25):
                store.append(ref, number * len(piece), piece)
            rates[0].append(25 * len(piece) / 1e6 / (time.perf_counter() - start))
            start = time.perf_counter()
            with Path(folder, f"plain{round_}").open("wb", buffering=0) as plain:
                for _ in range(25):
                    plain.write(piece)
            rates[1].append(25 * len(piece) / 1e6 / (time.perf_counter() - start))
    return median(rates[0]), median(rates[1])


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    print(f"{f'with {runs} runs stored':32}{'ours ms':>10}{'raw ms':>10}{'ratio':>8}{'at most':>9}")
    for label, ours, reference, ratio, target in rows(runs):
        print(f"{label:32}{ours:10.3f}{reference:10.3f}{ratio:8.2f}{target:9.1f}")
    ours, plain = append_rate()
    print(f"append 100 MB in 4 MB pieces: {ours:.0f} MB/s, plain file {plain:.0f} MB/s")


if __name__ == "__main__":
    main()
