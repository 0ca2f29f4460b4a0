from __future__ import annotations

import binascii
import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from mllaunch_agent import protocol, tracing
from mllaunch_agent.tracing import inputs
from tests.unit.agent_tracing.conftest import Attempt, blob, sha256
from tests.unit.agent_tracing.test_checkpoints import tensors


def look(attempt: Attempt, wait_s: float = 0.0) -> list[dict[str, Any]]:
    attempt.now_s += wait_s
    attempt.fold()
    return attempt.inputs.look()


def finish(attempt: Attempt) -> list[dict[str, Any]]:
    attempt.fold()
    return attempt.inputs.finish()


def paths(lines: list[dict[str, Any]]) -> list[str]:
    return [line["path"] for line in lines]


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock of what is read is an hour ahead of that of the files: they were written before."""
    real = time.time_ns
    monkeypatch.setattr("mllaunch_agent.tracing.inputs.time.time_ns", lambda: real() + 3600 * 10**9)


def test_a_file_that_was_there_before_is_an_input_when_it_has_shown_that_it_is_one_of_few(
    attempt: Attempt,
) -> None:
    attempt.write("table.csv", b"1,2")
    attempt.note("R", "table.csv")
    assert look(attempt) == []
    (line,) = look(attempt, 2.1)
    assert line == {
        "record": "input",
        "at": f"at {int((attempt.now_s - 2.1) * 1000 + 0.5)}",
        "path": "table.csv",
        "kind": "data",
        "sha256": sha256(b"1,2"),
        "weights": None,
        "format": None,
        "size_bytes": 3,
        "by": [{"rank": 0, "pid": 7}],
        "loaded_by": None,
        "problem": None,
    }
    assert look(attempt, 10) == finish(attempt) == []


def test_a_checkpoint_is_told_at_once_by_its_name_or_by_who_loads_it(attempt: Attempt) -> None:
    attempt.write("start.safetensors", tensors())
    attempt.write("odd", tensors())
    attempt.note("R", "start.safetensors")
    attempt.note("R", "odd")
    (line,) = look(attempt)
    assert (line["kind"], line["format"], bool(line["weights"])) == ("checkpoint", "safetensors", True)
    attempt.note("L", "torch.load", "odd")
    (line,) = look(attempt)
    assert (line["path"], line["kind"], line["loaded_by"]) == ("odd", "checkpoint", "torch.load")


def test_what_the_run_wrote_itself_is_no_input(attempt: Attempt) -> None:
    for name in ("cache.bin", "out/a.pt", "moved.csv", "gone.csv"):
        attempt.write(name, b"x")
    attempt.note("W", "cache.bin")
    attempt.note("W", "tmp")
    attempt.note("M", "tmp", "moved.csv")
    attempt.note("W", "gone.csv")
    for name in ("cache.bin", "out/a.pt", "moved.csv", "gone.csv"):
        attempt.note("R", name)
    attempt.note("D", "gone.csv")
    assert look(attempt, 5) == finish(attempt) == []


def test_what_is_overwritten_after_it_was_read_was_an_input(attempt: Attempt) -> None:
    attempt.write("state.bin", b"x")
    attempt.note("W", "tmp")
    attempt.note("R", "state.bin")
    attempt.note("M", "tmp", "state.bin")
    assert paths(look(attempt, 5)) == ["state.bin"]


def test_it_does_not_matter_whose_notes_are_read_first(attempt: Attempt) -> None:
    """Another process wrote the file before; its record comes in a later look."""
    attempt.write("shared.bin", b"x")
    notes = Path(tracing.folder_of(str(attempt.folder)))
    attempt.process(8)
    attempt.now_s += 1
    attempt.note("R", "shared.bin")
    assert look(attempt) == []
    with (notes / "8-1-py").open("a") as file:
        file.write(f"W\t{int(attempt.now_s * 1000) - 500}\t{attempt.path('shared.bin')}\n")
    assert look(attempt, 5) == []


def test_code_that_is_no_python_and_of_the_commit_is_told_as_code_that_was_read(attempt: Attempt) -> None:
    attempt.committed = {"config.yaml": "0" * 40, "part.py": "1" * 40}
    attempt.begin()
    for name in ("config.yaml", "part.py", "run.sh"):
        attempt.write(name, b"x: 1\n")
        attempt.note("R", name)
    found = {line["path"]: line for line in look(attempt, 5)}
    assert set(found) == {"config.yaml", "run.sh"}
    line = found["config.yaml"]
    assert (line["record"], line["how"], line["blob"], line["committed"], line["rank"], line["pid"]) == (
        *("code", "read", blob(b"x: 1\n"), "0" * 40),
        *(0, 7),
    )
    assert found["run.sh"]["committed"] is None


def test_a_file_that_changed_after_it_was_opened_is_said_to_have(attempt: Attempt, monkeypatch: Any) -> None:
    monkeypatch.undo()
    monkeypatch.setattr("mllaunch_agent.system.boot_s", lambda: attempt.now_s)
    real = time.time_ns
    monkeypatch.setattr("mllaunch_agent.tracing.inputs.time.time_ns", lambda: real() - 3600 * 10**9)
    attempt.write("table.csv", b"1,2")
    attempt.note("R", "table.csv")
    (line,) = look(attempt, 5)
    assert line["problem"] == "changed"


def test_what_cannot_be_read_is_left_out(attempt: Attempt) -> None:
    (attempt.root / "folder.csv").mkdir()
    os.mkfifo(attempt.path("pipe.csv"))
    for name in ("folder.csv", "pipe.csv", "nowhere.csv"):
        attempt.note("R", name)
    assert look(attempt, 5) == finish(attempt) == []


def test_a_weights_file_that_vanishes_while_it_is_read_is_no_error(
    attempt: Attempt, monkeypatch: Any
) -> None:
    attempt.write("a.pt", b"x")
    attempt.note("R", "a.pt")

    def vanished(place: str) -> None:
        raise FileNotFoundError

    monkeypatch.setattr("mllaunch_agent.tracing.inputs.weights.read", vanished)
    assert paths(look(attempt)) == ["a.pt"]


# --- folders ------------------------------------------------------------------------------------------------


def read_many(attempt: Attempt, folder: str, count: int, suffix: str = "jpg") -> None:
    for number in range(count):
        attempt.write(f"{folder}/{number}.{suffix}", b"%d" % number)
        attempt.note("R", f"{folder}/{number}.{suffix}")


def test_more_than_a_hundred_files_of_a_folder_are_one_input(attempt: Attempt) -> None:
    read_many(attempt, "images", 101)
    attempt.write("images/other.jpg", b"unread")
    assert look(attempt, 5) == []
    (line,) = finish(attempt)
    assert {key: line[key] for key in ("record", "path", "manifest", "verified", "files", "by", "read")} == {
        "record": "folder",
        "path": "images",
        "manifest": "manifest.0",
        "verified": "content",
        "files": 102,
        "by": [{"rank": 0, "pid": 7}],
        "read": {"count": 101, "exact": True},
    }
    manifest = (attempt.folder / "streams" / "manifest.0").read_text()
    assert len(manifest.splitlines()) == 102


def test_a_hundred_are_told_one_by_one(attempt: Attempt) -> None:
    read_many(attempt, "images", 100)
    assert len(look(attempt, 5)) == 100


def test_classes_side_by_side_are_one_folder_and_a_store_of_many_sets_is_not(attempt: Attempt) -> None:
    for folder in ("set/train/cat", "set/train/dog", "store/a", "store/b"):
        read_many(attempt, folder, 101)
    for number in range(5):
        (attempt.root / "store" / f"unread{number}").mkdir()
    assert paths(finish(attempt)) == ["set/train", "store/a", "store/b"]


def test_a_package_of_very_many_modules_is_no_folder_of_data(attempt: Attempt) -> None:
    read_many(attempt, "package", 150, "py")
    assert look(attempt, 5) == finish(attempt) == []


def test_very_many_files_that_the_run_wrote_itself_are_no_folder_of_data(attempt: Attempt) -> None:
    for number in range(150):
        attempt.note("W", f"cache/{number}")
    read_many(attempt, "cache", 150, "x")
    for number in range(150):
        attempt.note("W", f"more/{number}")
        attempt.note("R", f"more/{number}")
    attempt.note("F", "more")
    assert "more" not in paths(finish(attempt))


def test_a_folder_that_cannot_be_listed_is_said_to_be_missing(attempt: Attempt) -> None:
    read_many(attempt, "images", 101)
    (attempt.folder / "manifest.0.tmp").mkdir()
    assert finish(attempt) == []
    ((what, why),) = attempt.inputs.missed()
    assert what == "inputs: the folder images"
    assert "manifest.0.tmp" in why


def test_a_folder_that_is_too_large_to_be_read_is_listed(attempt: Attempt, monkeypatch: Any) -> None:
    monkeypatch.setattr(inputs, "_HASHED_BYTES", 10)
    read_many(attempt, "images", 101)
    (line,) = finish(attempt)
    assert (line["verified"], line["files"]) == ("listed", 101)


def test_what_was_read_of_a_declared_data_path_is_told(attempt: Attempt) -> None:
    attempt.data = ["data", "unused"]
    attempt.begin()
    attempt.write("data/a.csv", b"1")
    attempt.note("R", "data/a.csv")
    attempt.note("R", "data/a.csv", pid=8)
    assert look(attempt, 5) == []
    (line,) = finish(attempt)
    assert line == {
        "record": "read",
        "path": "data",
        "at": line["at"],
        "by": [{"rank": 0, "pid": 7}, {"rank": 0, "pid": 8}],
        "read": {"count": 1, "exact": True},
    }


def test_of_very_many_files_the_marks_tell_how_many_were_read(attempt: Attempt) -> None:
    attempt.data = ["data"]
    attempt.begin()
    names = [f"{number}.jpg" for number in range(1000)]
    with (attempt.folder / "streams" / protocol.manifest_stream(0)).open("w") as manifest:
        manifest.writelines(json.dumps([name, 1, 1, 1, 1, "0" * 64]) + "\n" for name in names)
    marks = bytearray(8 << 20)
    for name in names[:300]:
        bit = binascii.crc32(attempt.path(f"data/{name}").encode()) & ((8 << 23) - 1)
        marks[bit >> 3] |= 1 << (bit & 7)
    Path(tracing.folder_of(str(attempt.folder)), "reads").write_bytes(marks)
    attempt.note("R", "data/999.jpg")
    attempt.note("R", "data/0.jpg")
    attempt.note("F", "data")
    (line,) = finish(attempt)
    assert line["read"] == {"count": 301, "exact": False}


def test_there_is_an_end_to_what_is_listed_one_by_one(attempt: Attempt, monkeypatch: Any) -> None:
    monkeypatch.setattr(inputs, "_ALONE", 5)
    for number in range(8):
        read_many(attempt, f"f{number}", 1)
    assert len(look(attempt, 5)) == 5
    assert attempt.inputs.missed() == [
        ("inputs: 3 more files that were read", "there are too many, or they are too large")
    ]


def test_weights_among_the_declared_data_are_a_checkpoint_and_samples_in_that_form_are_not(
    attempt: Attempt,
) -> None:
    attempt.data = ["data"]
    attempt.begin()
    attempt.write("data/start.pt", tensors())
    attempt.note("R", "data/start.pt")
    attempt.note("L", "torch.load", "data/start.pt")
    (line,) = look(attempt)
    assert (line["path"], line["kind"]) == ("data/start.pt", "checkpoint")
    for number in range(200):
        attempt.write(f"samples/{number}.pt", b"x%d" % number)
        attempt.note("R", f"samples/{number}.pt")
        attempt.note("L", "torch.load", f"samples/{number}.pt")
    assert look(attempt, 5) == []
    told = finish(attempt)
    assert [line["path"] for line in told if line["record"] == "folder"] == ["samples"]
    assert [line for line in told if line["record"] == "input"] == []
