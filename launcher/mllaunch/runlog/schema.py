"""The tables of the run log, as numbered migrations. Described in docs/runlog.md.

``PRAGMA user_version`` holds how many migrations a database has had. A migration is never edited once
released: changes are appended as the next one.
"""

from __future__ import annotations

# Text columns may hold a BLOB instead: the UTF-8 ("surrogatepass") form of text which is not valid
# Unicode, such as an argument that was not UTF-8.
_FIRST = (
    """
    CREATE TABLE run (
        id           TEXT NOT NULL PRIMARY KEY,
        name         TEXT NOT NULL UNIQUE,
        project      TEXT NOT NULL,
        command      TEXT NOT NULL,
        submitted_at TEXT NOT NULL,
        state        TEXT NOT NULL,
        reason       TEXT,
        exit_code    INTEGER,
        attempt      INTEGER NOT NULL,
        started_at   TEXT,
        ended_at     TEXT,
        waiting      TEXT,
        seal         TEXT,
        tags         TEXT,
        note         TEXT,
        body         TEXT NOT NULL
    )
    """,
    "CREATE INDEX run_newest ON run (submitted_at, id)",
    "CREATE INDEX run_unsettled ON run (submitted_at, id) WHERE seal IS NULL",
    "CREATE INDEX run_project ON run (project, submitted_at, id)",
    # Both repeat submitted_at, so that "the newest 20 with lr=0.1" is one range of one index.
    """
    CREATE TABLE param (
        name         TEXT NOT NULL,
        value        TEXT NOT NULL,
        submitted_at TEXT NOT NULL,
        run          TEXT NOT NULL,
        PRIMARY KEY (name, value, submitted_at, run)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE tag (
        tag          TEXT NOT NULL,
        submitted_at TEXT NOT NULL,
        run          TEXT NOT NULL,
        PRIMARY KEY (tag, submitted_at, run)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE view (
        run     TEXT NOT NULL,
        attempt INTEGER NOT NULL,
        node    TEXT NOT NULL,
        covered INTEGER NOT NULL,
        body    TEXT NOT NULL,
        PRIMARY KEY (run, attempt, node)
    )
    """,
)

_ARTIFACTS = (
    # In the order of the digest, so that "who wrote these bytes" is one range of the table itself.
    """
    CREATE TABLE artifact (
        sha256     BLOB NOT NULL,
        run        TEXT NOT NULL,
        attempt    INTEGER NOT NULL,
        node       TEXT NOT NULL,
        kind       TEXT NOT NULL,
        path       TEXT NOT NULL,
        size_bytes INTEGER NOT NULL,
        PRIMARY KEY (sha256, run, attempt, node, kind, path)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX artifact_run ON artifact (run)",
)

_LINEAGE = (
    "ALTER TABLE artifact ADD COLUMN step INTEGER",
    "ALTER TABLE run ADD COLUMN mixed INTEGER NOT NULL DEFAULT 0",
    # What was asked for (resume); what only contents tell is found by joining artifacts.
    """
    CREATE TABLE child (
        parent TEXT NOT NULL,
        run    TEXT NOT NULL,
        kind   TEXT NOT NULL,
        PRIMARY KEY (parent, run)
    ) WITHOUT ROWID
    """,
)

_NODES = ("ALTER TABLE run ADD COLUMN unreachable TEXT",)  # JSON, [[node, since], ...]

# JSON, [[node, since, asked], ...] from now on. What was noted will be seen again.
_SILENCES = ("UPDATE run SET unreachable = NULL",)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _ARTIFACTS, _LINEAGE, _NODES, _SILENCES)
VERSION = len(MIGRATIONS)
