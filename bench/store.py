"""The run log with 100,000 runs against raw SQLite doing the least that answers.

The reference is one table, with columns for what a listing shows and JSON for the rest, one of parameters,
the indexes that its queries need, a connection that stays open, and the same durability (WAL,
synchronous=FULL).
"""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import count

from tests.conformance.runs import SUCCEEDED, make_run

from bench.measuring import Row, in_turns, ms
from mllaunch.domain.run import Run
from mllaunch.ports import RunQuery
from mllaunch.runlog.codec import encode_run
from mllaunch.runlog.database import Database
from mllaunch.runlog.sqlite import SqliteRunLog, insert_run

ROUNDS = 300


def rows(quick: bool) -> Iterator[Row]:
    runs = 10_000 if quick else 100_000
    with tempfile.TemporaryDirectory(prefix="mllaunch-bench-") as folder:
        log = filled_log(f"{folder}/ours", runs)
        raw = filled_reference(f"{folder}/reference.sqlite3", runs)
        try:
            yield from _measured(log, raw, runs)
        finally:
            log.close()
            raw.close()


def _measured(log: SqliteRunLog, raw: sqlite3.Connection, runs: int) -> Iterator[Row]:
    name, run_id = a_run(runs // 2).name, a_run(runs // 2).id
    fresh, fresh_raw = (map(a_run, count(runs)) for _ in range(2))
    pairs: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        (
            "latest 20",
            lambda: raw.execute(LATEST).fetchall(),
            lambda: log.rows(RunQuery(limit=20)),
        ),
        (
            "latest 20 with a parameter",
            lambda: raw.execute(WITH_PARAMETER, ("lr", "0.03")).fetchall(),
            lambda: log.rows(RunQuery(limit=20, params=(("lr", "0.03"),))),
        ),
        (
            "one complete run by name",
            lambda: json.loads(raw.execute("SELECT body FROM run WHERE name = ?", (name,)).fetchone()[0]),
            lambda: log.get(name),
        ),
        (
            "one complete run by id",
            lambda: json.loads(raw.execute("SELECT body FROM run WHERE id = ?", (run_id,)).fetchone()[0]),
            lambda: log.get(run_id),
        ),
        (
            "insert one run, durably",
            lambda: insert(raw, [next(fresh_raw)]),
            lambda: log.add(next(fresh), SUCCEEDED),
        ),
    ]
    for what, reference, ours in pairs:
        both = in_turns(partial(ms, reference), partial(ms, ours), ROUNDS)
        yield Row(f"{what}, {runs:,} runs stored", *both, at_most_ratio=5)


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
