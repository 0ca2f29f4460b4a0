"""Connections to the SQLite file of the run log: who may write when, and how it is created and migrated.

All writes of all processes happen one after the other, each under a lock on ``runlog.lock`` which is held
for one short transaction. SQLite alone would serialise them too, but versions before 3.51.3 can corrupt
the WAL when two connections write and checkpoint at the same moment
(https://www.sqlite.org/wal.html#walresetbug). So automatic checkpoints are off, and checkpoints happen
under that lock only. Readers take no lock.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from typing import Any

from mllaunch.runlog.faults import NewerSchema, busy, database_fault, os_fault
from mllaunch.runlog.filesystem import is_local
from mllaunch.runlog.schema import MIGRATIONS, VERSION

# Small, because the first process to open the database after all others have left reads the WAL through
# once (1 ms).
CHECKPOINT_BYTES = 2 * 1024 * 1024
PATIENCE_S = 30.0


class Database:
    """The file ``runlog.sqlite3`` in a folder. Creates nothing until the first write.

    Threads take turns: all of a process that use one home are to share one of these, for SQLite's locks are the
    process's. Not to be carried over a fork.
    """

    def __init__(self, folder: str) -> None:
        self.folder = os.path.abspath(folder)
        self.path = os.path.join(self.folder, "runlog.sqlite3")
        self._lock_path = os.path.join(self.folder, "runlog.lock")
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._turn = threading.RLock()

    def read(self, sql: str, values: tuple[object, ...] = ()) -> list[tuple[Any, ...]]:
        """All rows of one query; none where nothing was ever stored."""
        try:
            with self._turn:
                reader = self._reading()
                return [] if reader is None else reader.execute(sql, values).fetchall()
        except sqlite3.Error as error:
            raise database_fault(error, self.path) from error

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One durable change: everything inside is stored when this returns, nothing of it if it raises."""
        try:
            self._create_folder()
            with self._turn, _locked(self._lock_path):
                writer = self._writing()
                writer.execute("BEGIN IMMEDIATE")
                try:
                    yield writer
                    writer.execute("COMMIT")
                except BaseException:
                    # A failed COMMIT (disk full) may have rolled back already.
                    if writer.in_transaction:
                        writer.execute("ROLLBACK")
                    raise
                self._checkpoint(writer)
        except sqlite3.Error as error:
            raise database_fault(error, self.path) from error
        except OSError as error:
            raise os_fault(error, self.folder) from error

    def close(self) -> None:
        """Let go of the files. Harmless when repeated; the next call opens them again."""
        # In this order: SQLite checkpoints when the last connection closes, outside our lock and while
        # the user waits, unless that one can only read.
        for connection in (self._writer, self._reader):
            if connection is not None:
                connection.close()
        self._writer = self._reader = None

    def _reading(self) -> sqlite3.Connection | None:
        if self._reader is None and self._has_schema():
            reader = self._connect(self._reader_mode())
            try:
                version = self._version(reader)
            except BaseException:
                reader.close()
                raise
            self._reader = reader
            if version < VERSION:
                with self.transaction():
                    pass  # opening for writing migrates
        return self._reader

    def _has_schema(self) -> bool:
        """Whether there is anything to read. What a killed process left half-made is undone first."""
        try:
            os.stat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:  # a folder that may not be entered is not an empty one
            raise os_fault(error, self.folder) from error
        if os.path.exists(self.path + "-journal") and is_local(self.folder):
            with self.transaction():
                pass  # only who may write can roll back
        return True

    def _writing(self) -> sqlite3.Connection:
        if self._writer is None:
            if self._reader is None:
                # Never while a connection of ours is open: closing any descriptor of the file drops all locks that
                # this process has on it (https://www.sqlite.org/howtocorrupt.html#section_2_2).
                # Another process would then take itself for the last, and delete the WAL that we write to.
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            writer = self._connect("rw")
            try:
                self._prepare(writer)
                # Keeps SQLite from checkpointing when the writer closes, see close(); it must have read once.
                self._reader = self._reader or self._connect(self._reader_mode())
                self._version(self._reader)
            except BaseException:
                writer.close()
                raise
            self._writer = writer
        return self._writer

    def _prepare(self, writer: sqlite3.Connection) -> None:
        version = self._version(writer)  # before anything is written: a newer schema stays as it is
        writer.execute(f"PRAGMA journal_mode = {'WAL' if is_local(self.folder) else 'DELETE'}")
        writer.execute("PRAGMA synchronous = FULL")
        writer.execute("PRAGMA wal_autocheckpoint = 0")
        if version < VERSION:
            writer.execute("BEGIN IMMEDIATE")
            for migration in MIGRATIONS[version:]:
                for statement in migration:
                    writer.execute(statement)
            writer.execute(f"PRAGMA user_version = {VERSION}")
            writer.execute("COMMIT")

    def _version(self, connection: sqlite3.Connection) -> int:
        version = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if version > VERSION:
            raise NewerSchema(self.path, version, VERSION)
        return version

    def _checkpoint(self, writer: sqlite3.Connection) -> None:
        try:
            if os.stat(self.path + "-wal").st_size > CHECKPOINT_BYTES:
                writer.execute("PRAGMA busy_timeout = 50")  # a reader in its way: the next write tries again
                writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
                writer.execute(f"PRAGMA busy_timeout = {int(PATIENCE_S * 1000)}")
        except (OSError, sqlite3.Error):
            # The change is stored already, in the WAL, and stays readable there: nothing to tell the caller.
            pass

    def _reader_mode(self) -> str:
        # Without a WAL, a reader may meet the journal of a writer that died, and must be able to undo it.
        return "ro" if is_local(self.folder) else "rw"

    def _connect(self, mode: str) -> sqlite3.Connection:
        escaped = self.path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
        return sqlite3.connect(
            f"file://{escaped}?mode={mode}",
            uri=True,
            timeout=PATIENCE_S,
            isolation_level=None,
            check_same_thread=False,  # they take turns
        )

    def _create_folder(self) -> None:
        if os.path.isdir(self.folder):
            return
        os.makedirs(os.path.dirname(self.folder), exist_ok=True)
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        parent = os.open(os.path.dirname(self.folder), os.O_RDONLY)
        try:
            os.fsync(parent)  # or a power cut could take the whole folder with it
        finally:
            os.close(parent)


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    import fcntl

    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + PATIENCE_S
        pause = 0.0002
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise busy(path, f"waited for {PATIENCE_S:.0f} s") from error
            time.sleep(pause)
            pause = min(pause * 2, 0.01)
        yield
    finally:
        os.close(lock)
