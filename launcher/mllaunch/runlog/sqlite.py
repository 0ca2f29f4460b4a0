"""The run log in one SQLite file, for one user on one machine."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Any

from mllaunch.domain.job import JobSpec
from mllaunch.domain.reference import (
    CANDIDATES_SHOWN,
    Newest,
    ambiguous,
    check_name,
    no_such_run,
    parse_reference,
    prefix_bounds,
)
from mllaunch.domain.run import Run, RunRow, RunStatus, Silence
from mllaunch.domain.state import State
from mllaunch.errors import NameTaken
from mllaunch.runlog import codec
from mllaunch.runlog.database import Database

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mllaunch.domain.artifact import Artifact
    from mllaunch.ports import AttemptRef, RunQuery

_STATUS = (
    "run.state, run.reason, run.exit_code, run.attempt, run.started_at, run.ended_at, run.waiting, run.seal,"
    " run.mixed, run.unreachable"
)
# Whose failure it was is told of a run of several tasks: of how many, only its specification says.
_TOLD = "CASE WHEN run.reason IS NOT NULL THEN run.body END"
_ROW = f"run.id, run.name, run.project, run.command, run.submitted_at, run.tags, run.note, {_TOLD}, {_STATUS}"
_ARTIFACT = "sha256, run, attempt, node, path, kind, size_bytes, step"
_RECENT = 200  # names looked through for near misses
_ARTIFACTS_AT_ONCE = 5000  # in one transaction: others wait for its end


class SqliteRunLog:
    """The RunLog of ports.py in ``<home>/runlog.sqlite3``. Several processes may use one home at once.

    Nothing is created before the first write. Threads may share one, and take turns. Not to be carried over a fork.
    Every method raises InternalError (disk full, damaged, newer schema) or NotPermitted (read-only) on a
    bad store.
    """

    def __init__(self, home: str | os.PathLike[str]) -> None:
        self._database = Database(os.fspath(home))

    def close(self) -> None:
        """Let go of the files; the next call opens them again."""
        self._database.close()

    def add(self, run: Run, status: RunStatus) -> None:
        check_name(run.name)
        with self._database.transaction() as writer:
            insert_run(writer, run, status)

    def get(self, reference: str) -> tuple[Run, RunStatus]:
        meaning = parse_reference(reference)
        if isinstance(meaning, Newest):
            found = self._one("ORDER BY submitted_at DESC, id DESC LIMIT 1 OFFSET ?", meaning.back)
        else:
            found = (
                self._one("WHERE id = ?", meaning.text)
                or self._one("WHERE name = ?", meaning.text)
                or self._by_prefix(reference, meaning.text)
            )
        if found is None:
            raise no_such_run(reference, self._recent_names())
        return codec.decode_run(found[0]), _status(found[1:])

    def rows(self, query: RunQuery) -> list[RunRow]:
        sql, values = _listing(query)
        return [_run_row(row) for row in self._database.read(sql, values)]

    def view(self, attempt: AttemptRef, node: str) -> tuple[dict[str, Any], int]:
        found = self._database.read(
            "SELECT body, covered FROM view WHERE run = ? AND attempt = ? AND node = ?",
            (*attempt, _text(node)),
        )
        return (codec.decode(found[0][0]), found[0][1]) if found else ({}, 0)

    def views(self, run_id: str) -> dict[tuple[int, str], dict[str, Any]]:
        found = self._database.read(
            "SELECT attempt, node, body FROM view WHERE run = ? ORDER BY attempt, node", (_text(run_id),)
        )
        return {(number, _str(node)): codec.decode(body) for number, node, body in found}

    def set_view(
        self, attempt: AttemptRef, node: str, view: dict[str, Any], *, was: int, now: int, status: RunStatus
    ) -> bool:
        key = (*attempt, _text(node))
        body = codec.encode(view)
        with self._database.transaction() as writer:
            replaced = writer.execute(
                "UPDATE view SET covered = ?, body = ?"
                " WHERE run = ? AND attempt = ? AND node = ? AND covered = ?",
                (now, body, *key, was),
            ).rowcount
            if not replaced and was == 0:
                replaced = writer.execute(
                    "INSERT OR IGNORE INTO view (run, attempt, node, covered, body) VALUES (?, ?, ?, ?, ?)",
                    (*key, now, body),
                ).rowcount
            if replaced:
                _set_status(writer, attempt.run_id, status)
        return bool(replaced)

    def set_status(self, run_id: str, status: RunStatus) -> None:
        with self._database.transaction() as writer:
            _set_status(writer, run_id, status)

    def note_started(self, run_id: str) -> None:
        with self._database.transaction() as writer:
            writer.execute(
                "UPDATE run SET state = ? WHERE id = ? AND state = ?",
                (State.QUEUED.value, _text(run_id), State.PACKAGING.value),
            )

    def set_unreachable(self, run_id: str, node: str, silence: Silence | None) -> None:
        with self._database.transaction() as writer:
            found = writer.execute("SELECT unreachable FROM run WHERE id = ?", (_text(run_id),)).fetchone()
            if found is None:
                raise no_such_run(run_id)
            known = {one.node: one for one in codec.decode_unreachable(found[0])}
            if silence is None:
                known.pop(node, None)
            else:
                before = known.get(node, silence)
                known[node] = Silence(
                    node, min(before.since, silence.since), max(before.asked, silence.asked)
                )
            values = (codec.encode_unreachable(tuple(known.values())), _text(run_id))
            writer.execute("UPDATE run SET unreachable = ? WHERE id = ?", values)

    def annotate(self, run_id: str, *, note: str | None = None, add_tags: tuple[str, ...] = ()) -> None:
        with self._database.transaction() as writer:
            found = writer.execute(
                "SELECT submitted_at, tags FROM run WHERE id = ?", (_text(run_id),)
            ).fetchone()
            if found is None:
                raise no_such_run(run_id)
            submitted_at, tags = found
            if note is not None:
                writer.execute("UPDATE run SET note = ? WHERE id = ?", (_text(note) or None, run_id))
            if add_tags:
                every = tuple(dict.fromkeys((*codec.decode_tags(tags), *add_tags)))
                writer.execute("UPDATE run SET tags = ? WHERE id = ?", (codec.encode_tags(every), run_id))
                _add_tags(writer, run_id, submitted_at, add_tags)

    def notes(self, run_id: str) -> tuple[str | None, tuple[str, ...]]:
        found = self._database.read("SELECT note, tags FROM run WHERE id = ?", (_text(run_id),))
        if not found:
            raise no_such_run(run_id)
        note, tags = found[0]
        return _str_or_none(note), codec.decode_tags(tags)

    def add_artifacts(self, artifacts: Iterable[Artifact]) -> None:
        from itertools import islice

        waiting = iter(artifacts)
        while batch := list(islice(waiting, _ARTIFACTS_AT_ONCE)):
            with self._database.transaction() as writer:
                writer.executemany(
                    "INSERT OR IGNORE INTO artifact (sha256, run, attempt, node, kind, path, size_bytes, step)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    [
                        (
                            *(bytes.fromhex(a.sha256), a.run_id, a.attempt, _text(a.node)),
                            *(a.kind, _text(a.path), a.size_bytes, a.step),
                        )
                        for a in batch
                    ],
                )

    def artifacts(self, sha256: str) -> list[Artifact]:
        found = self._database.read(
            f"SELECT {_ARTIFACT} FROM artifact WHERE sha256 = ? ORDER BY run, attempt, node, kind, path",
            (bytes.fromhex(sha256),),
        )
        return [_artifact(row) for row in found]

    def artifacts_of(self, run_id: str, kinds: tuple[str, ...]) -> list[Artifact]:
        found = self._database.read(
            f"SELECT {_ARTIFACT} FROM artifact INDEXED BY artifact_run WHERE run = ?"
            f" AND kind IN ({', '.join('?' * len(kinds))}) ORDER BY attempt, node, kind, path, sha256",
            (_text(run_id), *kinds),
        )
        return [_artifact(row) for row in found]

    def readers(self, run_id: str, written: tuple[str, ...], read: tuple[str, ...]) -> list[Artifact]:
        marks = (", ".join("?" * len(written)), ", ".join("?" * len(read)))
        columns = ", ".join(f"r.{name.strip()}" for name in _ARTIFACT.split(","))
        found = self._database.read(
            f"SELECT DISTINCT {columns} FROM artifact AS w INDEXED BY artifact_run CROSS JOIN artifact AS r"
            f" ON r.sha256 = w.sha256 WHERE w.run = ? AND w.kind IN ({marks[0]}) AND w.size_bytes > 0"
            f" AND r.kind IN ({marks[1]}) AND r.run <> w.run ORDER BY r.run, r.attempt, r.node, r.kind, r.path",
            (_text(run_id), *written, *read),
        )
        return [_artifact(row) for row in found]

    def children(self, run_id: str) -> list[tuple[str, str]]:
        return self._database.read(
            "SELECT run, kind FROM child WHERE parent = ? ORDER BY run", (_text(run_id),)
        )

    def remove(self, run_id: str) -> None:
        with self._database.transaction() as writer:
            found = writer.execute("SELECT body, tags FROM run WHERE id = ?", (_text(run_id),)).fetchone()
            if found is None:
                raise no_such_run(run_id)
            run, tags = codec.decode_run(found[0]), codec.decode_tags(found[1])
            # By their whole keys, because an index by run would make every insertion dearer for the sake
            # of this.
            writer.executemany(
                "DELETE FROM param WHERE name = ? AND value = ? AND submitted_at = ? AND run = ?",
                [(_text(name), _text(value), run.submitted_at, run_id) for name, value in run.params],
            )
            writer.executemany(
                "DELETE FROM tag WHERE tag = ? AND submitted_at = ? AND run = ?",
                [(_text(tag), run.submitted_at, run_id) for tag in tags],
            )
            writer.execute("DELETE FROM artifact WHERE run = ?", (run_id,))
            if run.parent is not None:
                writer.execute("DELETE FROM child WHERE parent = ? AND run = ?", (run.parent.run_id, run_id))
            writer.execute("DELETE FROM view WHERE run = ?", (run_id,))
            writer.execute("DELETE FROM run WHERE id = ?", (run_id,))

    def _one(self, condition: str, value: object) -> tuple[Any, ...] | None:
        found = self._database.read(f"SELECT run.body, {_STATUS} FROM run {condition}", (value,))
        return found[0] if found else None

    def _by_prefix(self, reference: str, text: str) -> tuple[Any, ...] | None:
        low, high = prefix_bounds(text)
        most = CANDIDATES_SHOWN + 1
        candidates = self._database.read(
            f"""
            SELECT * FROM (SELECT name, id FROM run WHERE name >= ?1 AND name < ?2 ORDER BY name LIMIT {most})
            UNION
            SELECT * FROM (SELECT name, id FROM run WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT {most})
            """,
            (low, high),
        )
        if len(candidates) > 1:
            raise ambiguous(reference, candidates)
        return self._one("WHERE id = ?", candidates[0][1]) if candidates else None

    def _recent_names(self) -> list[str]:
        found = self._database.read(
            "SELECT name FROM run ORDER BY submitted_at DESC, id DESC LIMIT ?", (_RECENT,)
        )
        return [name for (name,) in found]


_INSERT_RUN = f"""
INSERT INTO run (id, name, project, command, submitted_at, tags, note, body,
                 state, reason, exit_code, attempt, started_at, ended_at, waiting, seal, mixed, unreachable)
VALUES ({", ".join("?" * 18)})
"""

_UPDATE_STATUS = """
UPDATE run
SET state = ?, reason = ?, exit_code = ?, attempt = ?, started_at = ?, ended_at = ?, waiting = ?, seal = ?, mixed = ?
WHERE id = ?
"""


def insert_run(writer: sqlite3.Connection, run: Run, status: RunStatus) -> None:
    """Add a run within a transaction. NameTaken if its name or id is not free."""
    values = (
        *(run.id, run.name, _text(run.spec.project), _text(command_line(run.spec)), run.submitted_at),
        *(codec.encode_tags(run.spec.tags), _text(run.spec.note) or None, codec.encode_run(run)),
        *_status_values(status),
    )
    try:
        writer.execute(_INSERT_RUN, values)
    except sqlite3.IntegrityError as error:
        raise NameTaken(run.name if "run.name" in str(error) else run.id) from error
    writer.executemany(
        "INSERT OR IGNORE INTO param (name, value, submitted_at, run) VALUES (?, ?, ?, ?)",
        [(_text(name), _text(value), run.submitted_at, run.id) for name, value in run.params],
    )
    _add_tags(writer, run.id, run.submitted_at, run.spec.tags)
    if run.parent is not None:
        writer.execute(
            "INSERT OR IGNORE INTO child (parent, run, kind) VALUES (?, ?, ?)",
            (run.parent.run_id, run.id, run.parent.kind),
        )


def command_line(spec: JobSpec) -> str:
    """What the user asked to run, in one line, as a shell would read it."""
    import shlex

    return shlex.join(spec.argv if spec.script is None else (spec.script, *spec.args))


def _listing(query: RunQuery) -> tuple[str, tuple[object, ...]]:
    """The SQL that reads one index from its newest end and stops when the limit is reached."""
    tables = [f"param AS p{number}" for number in range(len(query.params))]
    conditions: list[str] = []
    values: list[object] = []
    for number, (name, value) in enumerate(query.params):
        conditions.append(f"p{number}.name = ? AND p{number}.value = ?")
        values += [_text(name), _text(value)]
    if query.tag is not None:
        tables.append("tag AS t")
        conditions.append("t.tag = ?")
        values.append(_text(query.tag))
    aliases = [table.rpartition(" ")[2] for table in tables]
    conditions += [
        f"{a}.submitted_at = {aliases[0]}.submitted_at AND {a}.run = {aliases[0]}.run" for a in aliases[1:]
    ]
    if query.project is not None:
        conditions.append("run.project = ?")
        values.append(_text(query.project))
    if query.unsettled:
        conditions.append("run.seal IS NULL")
    newest = "run.submitted_at DESC, run.id DESC"
    if aliases:
        conditions.append(f"run.id = {aliases[0]}.run")
        newest = f"{aliases[0]}.submitted_at DESC, {aliases[0]}.run DESC"
    # CROSS JOIN is SQLite's way to fix the order of the loops: the first table's index then gives the
    # order of the answer.
    sql = f"SELECT {_ROW} FROM {' CROSS JOIN '.join([*tables, 'run'])}"
    if conditions:
        sql += f" WHERE {' AND '.join(conditions)}"
    return f"{sql} ORDER BY {newest} LIMIT ?", (*values, query.limit)


def _run_row(row: tuple[Any, ...]) -> RunRow:
    run_id, name, project, command, submitted_at, tags, note, body, *columns = row
    status = _status(columns)
    return RunRow(
        run_id,
        name,
        _str(project),
        _str(command),
        status,
        submitted_at,
        codec.decode_tags(tags),
        _str_or_none(note),
        status.reason and status.reason.words(codec.decode_tasks(body)),
    )


def _artifact(row: tuple[Any, ...]) -> Artifact:
    from mllaunch.domain.artifact import Artifact

    sha256, run, number, node, path, kind, size, step = row
    return Artifact(sha256.hex(), run, int(number), _str(node), _str(path), kind, size, step)


def _status(columns: Any) -> RunStatus:
    state, reason, exit_code, attempt, started_at, ended_at, waiting, seal, mixed, unreachable = columns
    return RunStatus(
        State(state),
        codec.decode_reason(reason),
        exit_code,
        attempt,
        started_at,
        ended_at,
        _str_or_none(waiting),
        seal,
        bool(mixed),
        codec.decode_unreachable(unreachable),
    )


def _status_values(status: RunStatus) -> tuple[object, ...]:
    return (
        status.state.value,
        codec.encode_reason(status.reason),
        status.exit_code,
        status.attempt,
        status.started_at,
        status.ended_at,
        _text(status.waiting),
        status.seal,
        int(status.mixed),
        codec.encode_unreachable(status.unreachable),
    )


def _set_status(writer: sqlite3.Connection, run_id: str, status: RunStatus) -> None:
    values = _status_values(status)[:-1]  # who does not answer is set by itself
    if not writer.execute(_UPDATE_STATUS, (*values, _text(run_id))).rowcount:
        raise no_such_run(run_id)


def _add_tags(writer: sqlite3.Connection, run_id: str, submitted_at: str, tags: tuple[str, ...]) -> None:
    writer.executemany(
        "INSERT OR IGNORE INTO tag (tag, submitted_at, run) VALUES (?, ?, ?)",
        [(_text(tag), submitted_at, run_id) for tag in tags],
    )


def _text(text: str | None) -> str | bytes | None:
    """Text as SQLite can hold it: itself, or bytes if it is not valid Unicode. Equal text is held alike."""
    if text is None:
        return None
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def _str(stored: str | bytes) -> str:
    return stored.decode("utf-8", "surrogatepass") if isinstance(stored, bytes) else stored


def _str_or_none(stored: str | bytes | None) -> str | None:
    return None if stored is None else _str(stored)
