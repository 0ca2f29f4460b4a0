"""What the SQLite file does when its place or its contents are bad, and how it changes between versions."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mllaunch.errors import InternalError, MllaunchError, NotPermitted
from mllaunch.ports import RunQuery, StreamRef
from mllaunch.runlog import database, filesystem
from mllaunch.runlog.blobs import FileBlobStore
from mllaunch.runlog.faults import NewerSchema
from mllaunch.runlog.schema import VERSION
from mllaunch.runlog.sqlite import SqliteRunLog
from tests.conformance.runs import QUEUED, make_run


@pytest.fixture
def log(tmp_path: Path) -> Iterator[SqliteRunLog]:
    log = SqliteRunLog(tmp_path / "home")
    yield log
    log.close()


def filled(home: Path, runs: int = 3) -> Path:
    log = SqliteRunLog(home)
    for number in range(runs):
        log.add(make_run(number), QUEUED)
    log.close()
    return home / "runlog.sqlite3"


def count(home: Path) -> int:
    log = SqliteRunLog(home)
    try:
        return len(log.rows(RunQuery(limit=10**6)))
    finally:
        log.close()


def test_folder_and_files_are_the_users_alone(log: SqliteRunLog, tmp_path: Path) -> None:
    log.add(make_run(1), QUEUED)
    FileBlobStore(tmp_path / "home").append(StreamRef("run", 1, "node", "events"), 0, b"x")
    seen = 0
    for path in [tmp_path / "home", *(tmp_path / "home").rglob("*")]:
        expected = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == expected, path
        seen += 1
    assert seen == 10  # home, 4 of SQLite and the lock, blobs, run, attempt, node, stream


def test_a_newer_schema_is_refused_by_reader_and_writer_and_left_alone(tmp_path: Path) -> None:
    path = filled(tmp_path / "home")
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {VERSION + 7}")
    connection.close()
    before = path.read_bytes()
    for _ in range(2):
        log = SqliteRunLog(tmp_path / "home")
        for act in (lambda log: log.rows(RunQuery()), lambda log: log.add(make_run(9), QUEUED)):
            for _ in range(2):  # refused again, not only the first time
                with pytest.raises(NewerSchema) as caught:
                    act(log)
                assert f"schema {VERSION + 7}" in caught.value.message
                assert f"up to {VERSION}" in caught.value.message
                assert "upgrade" in (caught.value.hint or "")
        log.close()
    assert path.read_bytes() == before


def test_a_migration_keeps_what_is_stored_and_is_seen_by_a_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "home")
    more = (*database.MIGRATIONS, ("ALTER TABLE run ADD COLUMN later TEXT", "UPDATE run SET later = name"))
    monkeypatch.setattr(database, "MIGRATIONS", more)
    monkeypatch.setattr(database, "VERSION", VERSION + 1)
    assert count(tmp_path / "home") == 3
    base = database.Database(str(tmp_path / "home"))
    assert base.read("SELECT count(*) FROM run WHERE later = name") == [(3,)]
    assert base.read("PRAGMA user_version") == [(VERSION + 1,)]
    base.close()


def test_a_migration_that_fails_leaves_the_old_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "home")
    with monkeypatch.context() as patch:
        more = (*database.MIGRATIONS, ("ALTER TABLE run ADD COLUMN later TEXT", "this is no SQL"))
        patch.setattr(database, "MIGRATIONS", more)
        patch.setattr(database, "VERSION", VERSION + 1)
        with pytest.raises(InternalError):
            count(tmp_path / "home")
    base = database.Database(str(tmp_path / "home"))
    assert base.read("PRAGMA user_version") == [(VERSION,)]
    assert "later" not in str(base.read("SELECT sql FROM sqlite_master"))
    base.close()
    assert count(tmp_path / "home") == 3


def test_a_file_that_is_no_database_is_named_and_left_alone(log: SqliteRunLog, tmp_path: Path) -> None:
    path = tmp_path / "home" / "runlog.sqlite3"
    path.parent.mkdir()
    path.write_bytes(b"not a database, for sure" * 100)
    before = path.read_bytes()
    for act in (lambda: log.rows(RunQuery()), lambda: log.add(make_run(1), QUEUED), lambda: log.get("@last")):
        with pytest.raises(InternalError) as caught:
            act()
        assert caught.value.code == "damaged_run_log"
        assert str(path) in caught.value.evidence
        assert caught.value.hint
    assert path.read_bytes() == before


def test_a_damaged_page_is_an_error_and_not_a_wrong_answer(tmp_path: Path) -> None:
    path = filled(tmp_path / "home", 200)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with path.open("r+b") as file:
        for page in range(1, path.stat().st_size // 4096):
            file.seek(page * 4096)
            file.write(b"\xee" * 64)
    with pytest.raises(InternalError) as caught:
        count(tmp_path / "home")
    assert caught.value.code == "damaged_run_log"


def test_a_full_disk_refuses_the_run_and_keeps_the_others(log: SqliteRunLog, tmp_path: Path) -> None:
    log.add(make_run(0), QUEUED)
    with log._database.transaction() as writer:
        writer.execute("PRAGMA max_page_count = 40")  # SQLite then reports what it does for ENOSPC
    stored = 1
    with pytest.raises(InternalError) as caught:
        while True:
            log.add(make_run(stored, params=(("number", str(stored)),)), QUEUED)
            stored += 1
    assert caught.value.code == "disk_full"
    assert 1 < stored < 1000
    assert len(log.rows(RunQuery(limit=10**6))) == count(tmp_path / "home") == stored
    assert log.rows(RunQuery(params=(("number", str(stored)),))) == []


def test_a_full_disk_leaves_a_stream_longer_by_true_bytes_only(tmp_path: Path) -> None:
    program = (
        "import resource, sys; from mllaunch.runlog.blobs import FileBlobStore\n"
        "from mllaunch.ports import StreamRef\n"
        "from mllaunch.errors import MllaunchError\n"
        "store, ref = FileBlobStore(sys.argv[1]), StreamRef('run', 1, 'node', 'out')\n"
        "store.append(ref, 0, b'abc')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "try: store.append(ref, 3, b'defghijklmnop')\n"
        "except MllaunchError as error: print(error.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("disk_full\n", "")
    store, ref = FileBlobStore(tmp_path), StreamRef("run", 1, "node", "out")
    assert store.read(ref, 0, 100) == b"abcdefghij"
    assert store.append(ref, 3, b"defghijklmnop") == 16


@pytest.mark.parametrize("home", ["/proc/mllaunch", "/dev/null/home", "/sys/mllaunch"])
def test_a_home_that_cannot_be_made_is_a_clear_error(home: str) -> None:
    log = SqliteRunLog(home)
    assert log.rows(RunQuery()) == []
    with pytest.raises(MllaunchError) as caught:
        log.add(make_run(1), QUEUED)
    assert caught.value.evidence[0] == home
    with pytest.raises(MllaunchError) as caught:
        FileBlobStore(home).append(StreamRef("run", 1, "node", "out"), 0, b"x")
    assert caught.value.hint


def test_a_read_only_home_can_be_read_and_says_that_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(tmp_path / "home")
    real = os.open

    def open_on_a_read_only_disk(path: str, flags: int, mode: int = 0o777, **rest: int) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR):
            raise OSError(30, "Read-only file system", path)
        return real(path, flags, mode, **rest)

    monkeypatch.setattr(os, "open", open_on_a_read_only_disk)
    assert count(tmp_path / "home") == 3
    log = SqliteRunLog(tmp_path / "home")
    with pytest.raises(NotPermitted) as caught:
        log.add(make_run(9), QUEUED)
    assert caught.value.code == "home_not_writable"
    log.close()


def test_on_a_network_file_system_no_wal_is_used_and_a_killed_writer_is_undone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = filled(tmp_path / "home")
    monkeypatch.setattr(filesystem, "LOCAL", frozenset())
    log = SqliteRunLog(tmp_path / "home")
    log.add(make_run(7), QUEUED)
    assert log._database.read("PRAGMA journal_mode") == [("delete",)]
    log.close()
    assert not (tmp_path / "home" / "runlog.sqlite3-wal").exists()
    # A writer that dies in mid-transaction, after its pages went to the file:
    program = (
        "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "for s in ('cache_size = 1', 'cache_spill = 1'): c.execute('PRAGMA ' + s)\n"
        "c.execute('BEGIN IMMEDIATE')\n"
        "c.execute('UPDATE run SET note = hex(zeroblob(20000))'); c.execute('DELETE FROM run')\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(path)])
    assert (tmp_path / "home" / "runlog.sqlite3-journal").stat().st_size > 0
    assert count(tmp_path / "home") == 4


def test_the_wal_stays_small_however_much_is_written_and_closing_costs_no_checkpoint(tmp_path: Path) -> None:
    wal = tmp_path / "home" / "runlog.sqlite3-wal"
    log = SqliteRunLog(tmp_path / "home")
    largest = 0
    for number in range(400):
        log.add(make_run(number, params=(("number", str(number)),)), QUEUED)
        largest = max(largest, wal.stat().st_size)
    assert database.CHECKPOINT_BYTES / 2 < largest < database.CHECKPOINT_BYTES * 2
    log.add(make_run(400), QUEUED)
    log.close()
    assert wal.stat().st_size > 0  # the last connection to close would have checkpointed and removed it
    assert count(tmp_path / "home") == 401


def test_a_reader_in_mid_read_neither_blocks_writers_nor_sees_their_changes(tmp_path: Path) -> None:
    path = filled(tmp_path / "home")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM run").fetchone() == (3,)
    filled_more = SqliteRunLog(tmp_path / "home")
    for number in range(10, 20):
        filled_more.add(make_run(number), QUEUED)
    filled_more.close()
    assert reader.execute("SELECT count(*) FROM run").fetchone() == (3,)
    reader.execute("COMMIT")
    assert reader.execute("SELECT count(*) FROM run").fetchone() == (13,)
    reader.close()


def test_a_lock_that_is_never_let_go_is_an_error_and_not_a_wait_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    filled(tmp_path / "home")
    monkeypatch.setattr(database, "PATIENCE_S", 0.0)
    with (tmp_path / "home" / "runlog.lock").open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        log = SqliteRunLog(tmp_path / "home")
        with pytest.raises(InternalError) as caught:
            log.add(make_run(9), QUEUED)
        assert caught.value.code == "run_log_busy"
        log.close()


def test_a_stream_that_is_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    store, ref = FileBlobStore(tmp_path / "home"), StreamRef("run", 1, "node", "out")
    store.append(ref, 0, b"x")
    stream = tmp_path / "home" / "blobs" / "run" / "1" / "node" / "out"
    stream.unlink()
    (tmp_path / "elsewhere").write_bytes(b"secret")
    stream.symlink_to(tmp_path / "elsewhere")
    for act in (lambda: store.read(ref, 0, 9), lambda: store.append(ref, 0, b"secrets")):
        with pytest.raises(InternalError) as caught:
            act()
        assert caught.value.code == "store_unusable"
    assert (tmp_path / "elsewhere").read_bytes() == b"secret"


@pytest.mark.parametrize("name", ["with space", "a?b=c", "a#b", "a%20b", "caf\udce9", "ümlaut"])
def test_any_folder_name_will_do(tmp_path: Path, name: str) -> None:
    filled(tmp_path / name)
    assert count(tmp_path / name) == 3
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_reading_costs_no_import_beyond_what_it_needs() -> None:
    """Listing runs must not load pathlib or subprocess: start-up time is a feature."""
    program = (
        "import sys; from mllaunch.runlog.sqlite import SqliteRunLog; from mllaunch.ports import RunQuery\n"
        "SqliteRunLog('/nonexistent').rows(RunQuery())\n"
        "print({'pathlib', 'subprocess', 'difflib', 'shlex', 'dataclasses'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],  # -S: an editable install may load pathlib at start-up
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.stdout == "set()\n", done.stderr
