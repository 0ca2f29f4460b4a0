from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mllaunch_agent import blobs, protocol
from mllaunch_agent.blobs import BlobLog, past_lines
from tests.unit.agent_tracing.conftest import blob


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "streams").mkdir()
    return tmp_path


def kept(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "streams" / protocol.BLOBS).read_bytes().splitlines()]


def test_a_content_is_kept_once_also_over_the_death_of_a_supervisor(folder: Path) -> None:
    for _ in range(2):
        log = BlobLog(str(folder))
        for content in (b"x = 1\n", b"", b"x = 1\n"):
            log.keep(blob(content), content)
        log.close()
    assert kept(folder) == [
        {"blob": blob(b"x = 1\n"), "size_bytes": 6, "data": base64.b64encode(b"x = 1\n").decode()},
        {"blob": blob(b""), "size_bytes": 0, "data": ""},
    ]


def test_a_line_that_was_torn_by_a_death_is_written_again_and_damage_is_passed_over(folder: Path) -> None:
    log = BlobLog(str(folder))
    log.keep(blob(b"1"), b"1")
    log.keep(blob(b"2"), b"2")
    log.close()
    stream = folder / "streams" / protocol.BLOBS
    first = stream.read_bytes().splitlines(True)[0]
    stream.write_bytes(first + b'\0\xff[\n5\n{"blob": []}\n' + first[:20])
    log = BlobLog(str(folder))
    for content in (b"1", b"2"):
        log.keep(blob(content), content)
    log.close()
    lines = stream.read_bytes().splitlines()
    assert [json.loads(lines[number])["blob"] for number in (0, -1)] == [blob(b"1"), blob(b"2")]
    assert len(lines) == 5


def test_what_is_not_what_git_would_call_so_is_not_kept(folder: Path) -> None:
    log = BlobLog(str(folder))
    log.keep(blob(b"1"), b"2")
    log.keep("-", b"")
    assert list(past_lines(str(folder), protocol.BLOBS)) == []


def test_a_file_is_kept_if_it_is_still_what_it_was_and_a_pipe_keeps_nobody_waiting(folder: Path) -> None:
    log = BlobLog(str(folder))
    (folder / "code.py").write_bytes(b"1")
    os.mkfifo(folder / "pipe")
    for name in ("code.py", "pipe", "nowhere", "streams"):
        log.keep_file(blob(b"1"), str(folder / name))
    log.keep_file(blob(b"2"), str(folder / "code.py"))
    assert [line["blob"] for line in kept(folder)] == [blob(b"1")]


def test_what_no_person_wrote_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs, "_MAX_BYTES", 3)
    log = BlobLog(str(folder))
    (folder / "big").write_bytes(b"1234")
    log.keep_file(blob(b"1234"), str(folder / "big"))
    log.keep(blob(b"1234"), b"1234")
    assert list(past_lines(str(folder), protocol.BLOBS)) == []


def test_what_a_full_disk_refused_is_kept_when_there_is_room(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = BlobLog(str(folder))
    with monkeypatch.context() as full:
        full.setattr("mllaunch_agent.streams.Stream.write", lambda self, record: False)
        log.keep(blob(b"1"), b"1")
    log.keep(blob(b"1"), b"1")
    assert len(kept(folder)) == 1
