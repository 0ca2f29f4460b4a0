from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from mllaunch_agent import hashing
from mllaunch_agent.fingerprint import Cache, Changes, Fingerprint, Names, compare, fingerprint

NONE = Names(0, ())
LATER_NS = 1 << 62  # a clock by which every file has rested for long


def content(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    for name in ("b.bin", "a/x", "a-b", "a.b", "a/y/z", "ab"):
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(name.encode() * 100)
    return data


def take(data: Path, cache: Cache | None = None) -> Fingerprint:
    return fingerprint(str(data), str(data.parent / "manifest"), cache)


def rows(data: Path) -> list[list[object]]:
    return [json.loads(line) for line in (data.parent / "manifest").read_text(encoding="ascii").splitlines()]


def test_the_digest_is_what_the_document_says(data: Path) -> None:
    found = take(data)
    expected = b"".join(
        b"%s\0%d\0%s\n" % (name, len(name) * 100, content(name * 100).encode())
        for name in sorted([b"b.bin", b"a/x", b"a-b", b"a.b", b"a/y/z", b"ab"])
    )
    assert found == Fingerprint("folder", content(expected), "content", 2100, 6, 0, NONE, NONE, NONE, NONE)
    assert [row[0] for row in rows(data)] == ["a-b", "a.b", "a/x", "a/y/z", "ab", "b.bin"]
    info = (data / "a/x").stat()
    assert rows(data)[2][1:5] == [info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino]


def test_the_command_in_the_document_gives_the_same_digest(data: Path) -> None:
    document = (Path(__file__).parents[3] / "docs/fingerprint.md").read_text()
    command = document[document.index("    find . ") : document.index("\n\n## Content or stat")]
    done = subprocess.run(["bash", "-c", command], cwd=data, stdout=subprocess.PIPE, check=True, text=True)
    assert done.stdout.split()[0] == take(data).digest


def test_a_copy_has_the_same_digest_and_any_change_another(data: Path, tmp_path: Path) -> None:
    first = take(data).digest
    shutil.copytree(data, tmp_path / "copy")
    assert take(tmp_path / "copy").digest == first
    (data / "ab").rename(data / "ac")
    assert take(data).digest != first


def test_a_single_file_has_the_digest_of_its_bytes(data: Path) -> None:
    found = take(data / "b.bin")
    assert (found.kind, found.digest, found.files) == ("file", content(b"b.bin" * 100), 1)
    assert compare(str(data / "manifest"), str(data / "b.bin")) == Changes(NONE, NONE, NONE)


def test_links_are_recorded_by_target_and_loops_not_followed(data: Path) -> None:
    (data / "loop").symlink_to(".")
    (data / "up").symlink_to("../elsewhere")
    (data / "out").symlink_to("/etc/hostname")
    (data / "in").symlink_to("a/x")
    found = take(data)
    assert (found.links, found.files) == (4, 6)
    assert found.outside == Names(2, ("out", "up"))
    assert ["link:" + content(b"a/x")] == [row[5] for row in rows(data) if row[0] == "in"]


def test_the_folder_itself_may_be_a_link(data: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("data")
    assert take(tmp_path / "link").digest == take(data).digest


def test_pipes_are_skipped_and_named_and_nothing_waits_for_them(data: Path) -> None:
    os.mkfifo(data / "a/pipe")
    assert take(data).skipped == Names(1, ("a/pipe",))


def test_names_that_are_not_utf8_keep_their_bytes(data: Path) -> None:
    name = b"caf\xe9\n\xff"
    Path(os.fsdecode(os.fsencode(data) + b"/" + name)).write_bytes(b"x")
    take(data)
    names = [str(row[0]).encode("utf-8", "surrogateescape") for row in rows(data)]
    assert name in names
    assert names == sorted(names)
    assert compare(str(data.parent / "manifest"), str(data)) == Changes(NONE, NONE, NONE)


def test_a_file_that_cannot_be_read_is_named(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = take(data).digest
    real = os.open

    def refuse(path: object, *args: object, **more: object) -> int:
        if str(path).endswith("ab'"):
            raise PermissionError(13, "no")
        return real(path, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", refuse)
    found = take(data)
    assert found.unreadable == Names(1, ("ab",))
    assert found.digest != whole
    assert rows(data)[4][5] == "unreadable"


def test_a_file_that_keeps_changing_is_torn(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []
    real = os.read

    def read(fd: int, size: int) -> bytes:
        block = real(fd, size)
        if Path(f"/proc/self/fd/{fd}").readlink().name == "ab":
            tries.append(1)
            os.utime(data / "ab", ns=(len(tries), len(tries)))
        return block

    monkeypatch.setattr(os, "read", read)
    assert take(data).torn == Names(1, ("ab",))
    assert len(tries) == 3


def test_a_file_that_changes_once_while_it_is_read_is_read_again(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []
    real = os.read

    def read(fd: int, size: int) -> bytes:
        block = real(fd, size)
        if Path(f"/proc/self/fd/{fd}").readlink().name == "ab" and not tries:
            tries.append(1)
            (data / "ab").write_bytes(b"final")
        return block

    monkeypatch.setattr(os, "read", read)
    found = take(data)
    assert found.torn == NONE
    assert rows(data)[4][5] == content(b"final")


def test_big_files_keep_their_place_among_small_ones(data: Path) -> None:
    for name in ("a/big", "aa", "z"):
        (data / name).write_bytes(os.urandom(3 << 20))
    found = take(data)
    assert [row[0] for row in rows(data)] == ["a-b", "a.b", "a/big", "a/x", "a/y/z", "aa", "ab", "b.bin", "z"]
    assert found.size_bytes == 2100 + 3 * (3 << 20)
    assert rows(data)[2][5] == content((data / "a/big").read_bytes())


def test_unchanged_files_are_not_read_again(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(str(tmp_path / "cache"), now_ns=lambda: LATER_NS)
    first = take(data, cache)
    cache.close()
    (data / "ab").write_bytes(b"changed")
    read = []
    real = hashing.sha256_of
    monkeypatch.setattr(hashing, "sha256_of", lambda path: (read.append(path), real(path))[1])
    cache = Cache(str(tmp_path / "cache"), now_ns=lambda: LATER_NS)
    second = take(data, cache)
    cache.close()
    assert [Path(os.fsdecode(path)).name for path in read] == ["ab"]
    assert (first.verified, second.verified) == ("content", "stat")
    assert second.digest == take(data).digest
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o600


def test_a_file_that_has_not_rested_is_read_again(data: Path, tmp_path: Path) -> None:
    for _ in range(2):
        cache = Cache(str(tmp_path / "cache"), now_ns=lambda: (data / "ab").stat().st_ctime_ns)
        assert take(data, cache).verified == "content"
        cache.close()


@pytest.mark.parametrize("damage", [b"not a database" * 1000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_cache_only_costs_time(data: Path, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "cache").write_bytes(damage)
    cache = Cache(str(tmp_path / "cache"), now_ns=lambda: LATER_NS)
    assert take(data, cache) == take(data)
    cache.close()
    missing = Cache(str(tmp_path / "no/such/place"))
    assert take(data, missing) == take(data)
    missing.close()


def test_changes_are_named(data: Path) -> None:
    take(data)
    (data / "ab").unlink()
    (data / "a-b").write_bytes(b"longer than before" * 100)
    (data / "new").mkdir()
    for number in range(25):
        (data / f"new/{number:02}").write_bytes(b"")
    os.utime(data / "b.bin", ns=(5, 5))
    changes = compare(str(data.parent / "manifest"), str(data))
    assert changes.removed == Names(1, ("ab",))
    assert changes.modified == Names(1, ("a-b",))
    assert changes.added == Names(25, tuple(f"new/{number:02}" for number in range(20)))


def test_an_edit_in_place_that_restores_its_times_is_found(data: Path) -> None:
    take(data)
    before = (data / "a/x").stat()
    with (data / "a/x").open("r+b") as file:
        file.write(b"X")
    os.utime(data / "a/x", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (data / "a/x").stat().st_mtime_ns == before.st_mtime_ns
    assert compare(str(data.parent / "manifest"), str(data)).modified == Names(1, ("a/x",))


def test_data_that_is_gone_is_all_removed(data: Path) -> None:
    take(data)
    shutil.rmtree(data)
    assert compare(str(data.parent / "manifest"), str(data)).removed.count == 6


def test_data_that_never_was_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        take(tmp_path / "none")
