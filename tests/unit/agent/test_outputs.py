from __future__ import annotations

import hashlib
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from mllaunch_agent import hashing, outputs


@pytest.fixture
def work(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    (work / "outputs").mkdir(parents=True)
    (work / "outputs/1.pt").write_bytes(b"weights")
    (work / "log").write_bytes(b"")
    os.utime(work / "log", ns=(0, 1_700_000_000_123_456_789))
    return work


def scan(work: Path, *deleted: str, since_ns: int | None = None) -> list[dict[str, Any]]:
    return list(outputs.scan(str(work), deleted, since_ns))


def test_files_are_listed_with_size_time_and_digest_in_the_order_of_their_bytes(work: Path) -> None:
    lines = scan(work, "pkg/gone.py", "a")
    assert [(line["path"], line["kind"]) for line in lines] == [
        ("a", "deleted"),
        ("log", "file"),
        ("outputs/1.pt", "file"),
        ("pkg/gone.py", "deleted"),
    ]
    assert lines[1] == {
        "path": "log",
        "kind": "file",
        "size_bytes": 0,
        "mtime": "2023-11-14T22:13:20.123456Z",
        "sha256": hashlib.sha256(b"").hexdigest(),
    }
    assert lines[2]["sha256"] == hashlib.sha256(b"weights").hexdigest()


def test_links_are_not_followed_and_special_files_are_said(work: Path) -> None:
    (work / "latest").symlink_to("outputs")
    (work / "dangling").symlink_to("/no/such")
    os.mkfifo(work / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(work / "sock"))
        lines = {line["path"]: line for line in scan(work)}
    assert (lines["latest"]["kind"], lines["latest"]["target"]) == ("symlink", "outputs")
    assert lines["dangling"]["target"] == "/no/such"
    assert {lines["pipe"]["kind"], lines["sock"]["kind"]} == {"special"}
    assert "latest/1.pt" not in lines


def test_names_that_are_not_utf8_survive_json(work: Path) -> None:
    name = b"caf\xe9-\xe2\x82\xac"
    Path(os.fsdecode(os.fsencode(work) + b"/" + name)).write_bytes(b"x")
    encoded = "\n".join(json.dumps(line) for line in scan(work)).encode("ascii")
    paths = [json.loads(line)["path"].encode("utf-8", "surrogateescape") for line in encoded.splitlines()]
    assert name in paths


def test_a_file_that_vanishes_is_left_out_and_one_that_changes_is_torn(
    work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        hashing,
        "sha256_of",
        lambda path: (
            hashing.Hashed(None, None, hashing.VANISHED)
            if path.endswith(b"log")
            else hashing.Hashed(Path(os.fsdecode(path)).stat(), None, hashing.TORN)
        ),
    )
    (line,) = scan(work)
    assert (line["path"], line["sha256"], line["problem"]) == ("outputs/1.pt", None, "torn")


def test_in_place_only_what_is_newer_than_the_start_is_listed_and_never_gits_own_files(work: Path) -> None:
    (work / ".git").mkdir()
    (work / ".git/index").write_bytes(b"x")
    start_ns = (work / "log").stat().st_ctime_ns
    assert [line["path"] for line in scan(work, since_ns=start_ns)] == ["log", "outputs/1.pt"]
    assert scan(work, since_ns=start_ns + 10**9) == []


@pytest.mark.parametrize(
    ("ns", "written"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
        (2**31 * 10**9, "2038-01-19T03:14:08.000000Z"),
        (253402300800 * 10**9, None),
        (-(10**11) * 10**9, None),
        (2**63 * 10**9, None),
    ],
)
def test_times_of_every_age_are_written_or_said_to_be_unknown(ns: int, written: str | None) -> None:
    assert outputs.rfc3339(ns) == written


def test_a_folder_that_does_not_exist_holds_only_what_was_deleted(tmp_path: Path) -> None:
    assert scan(tmp_path / "none", "a") == [{"path": "a", "kind": "deleted"}]
