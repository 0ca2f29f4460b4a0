from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import pytest

from mllaunch_agent import hashing, weights
from tests.unit.agent_tracing.conftest import Attempt, sha256


def npz(step: int = 3) -> bytes:
    """An archive as numpy writes it, of one number named step."""
    header = b"{'descr': '<i8', 'fortran_order': False, 'shape': (), }"
    header += b" " * (117 - len(header)) + b"\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + step.to_bytes(8, "little")
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("step.npy", array)
        archive.writestr("more.npy", array)
    return out.getvalue()


def tensors(size: int = 1000) -> bytes:
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\1" * size


def brief(lines: list[dict[str, object]]) -> list[tuple[object, object]]:
    return [(line["path"], line["sha256"]) for line in lines]


def test_what_a_library_saved_is_told_at_once_with_all_that_is_known_of_it(attempt: Attempt) -> None:
    content = tensors()
    attempt.note("W", "out/model.safetensors")
    attempt.write("out/model.safetensors", content)
    attempt.note("S", "safetensors.save_file", "40", "out/model.safetensors")
    (line,) = attempt.look()
    found = weights.read(attempt.path("out/model.safetensors"))
    assert found is not None
    assert line == {
        "record": "checkpoint",
        "at": f"at {int(attempt.now_s * 1000)}",
        "path": "out/model.safetensors",
        "sha256": sha256(content),
        "weights": found.digest,
        "format": "safetensors",
        "size_bytes": len(content),
        "step": 40,
        "step_from": "call",
        "rank": 0,
        "pid": 7,
        "by": "safetensors.save_file",
        "problem": None,
    }
    assert attempt.look(10) == attempt.finish() == []


def test_one_that_was_written_in_another_way_is_told_when_it_has_been_quiet(attempt: Attempt) -> None:
    attempt.note("W", "out/a.pt")
    assert attempt.look(5) == []  # not there yet
    attempt.write("out/a.pt", b"half")
    assert attempt.look() == []
    attempt.write("out/a.pt", b"half and half")
    assert attempt.look(0.9) == attempt.look(0.9) == []
    assert brief(attempt.look(0.2)) == [("out/a.pt", sha256(b"half and half"))]


def test_nothing_is_told_of_a_file_that_is_open_for_writing_however_long_it_rests(attempt: Attempt) -> None:
    attempt.opened = {"out/a.pt", "out/b.pt"}
    for name in ("out/a.pt", "out/b.pt"):
        attempt.note("W", name)
        attempt.write(name, b"half")
    attempt.note("S", "torch.save", "1", "out/b.pt")  # into a file that the program had opened
    assert [attempt.look(60) for _ in range(3)] == [[], [], []]
    attempt.opened = set()
    assert {path for path, _ in brief(attempt.look())} == {"out/a.pt", "out/b.pt"}


def test_a_file_is_known_to_be_open_also_where_a_link_leads_to_it(attempt: Attempt, tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (attempt.root / "out" / "link").symlink_to(tmp_path / "scratch")
    attempt.note("W", "out/link/a.pt")
    attempt.write("out/link/a.pt", b"half")
    attempt.opened = {str(tmp_path / "scratch" / "a.pt")}  # as the kernel names it
    attempt.look()
    assert attempt.look(5) == []


def test_a_writer_that_begins_while_the_file_is_read_makes_it_wait(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = attempt.write("out/a.pt", b"first")
    attempt.note("S", "torch.save", "", "out/a.pt")
    real = hashing.Digests.of

    def of(self: hashing.Digests, name: bytes) -> hashing.Hashed:
        attempt.opened = {"out/a.pt"}
        path.write_bytes(b"")  # it was opened anew, and is read before a byte is written
        return real(self, name)

    monkeypatch.setattr(hashing.Digests, "of", of)
    assert attempt.look() == []
    monkeypatch.undo()
    path.write_bytes(b"second")
    attempt.opened = set()
    monkeypatch.setattr("mllaunch_agent.system.boot_s", lambda: attempt.now_s)
    assert brief(attempt.look()) == [("out/a.pt", sha256(b"second"))]


def test_a_change_after_it_was_read_and_before_it_is_told_makes_it_wait(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = attempt.write("out/a.pt", b"first")
    attempt.note("S", "torch.save", "", "out/a.pt")
    real = weights.read

    def read(place: str) -> weights.Weights | None:
        found = real(place)
        path.write_bytes(b"quickly")
        return found

    monkeypatch.setattr(weights, "read", read)
    assert attempt.look() == []
    monkeypatch.setattr(weights, "read", real)
    assert brief(attempt.look()) == [("out/a.pt", sha256(b"quickly"))]


def test_every_version_that_stays_is_told_and_the_others_are_counted(attempt: Attempt) -> None:
    told = []
    for number in range(5):
        attempt.write("out/last.pt", b"v%d" % number)
        attempt.note("W", "out/last.pt")
        attempt.note("S", "torch.save", str(number), "out/last.pt")
        if number in (0, 3):
            told += brief(attempt.look(0.5))
    told += brief(attempt.finish())
    assert told == [("out/last.pt", sha256(b"v%d" % number)) for number in (0, 3, 4)]
    assert attempt.checkpoints.missed() == [
        (
            "outputs: 2 versions of out/last.pt",
            "it was written anew or removed before its content could be read",
        )
    ]


def test_one_that_is_renamed_from_a_temporary_name_is_told_by_its_own(attempt: Attempt) -> None:
    attempt.note("W", "out/.tmp-a8s")
    path = attempt.write("out/.tmp-a8s", npz())
    attempt.look()
    path.rename(attempt.path("out/model-9.npz"))
    attempt.note("M", "out/.tmp-a8s", "out/model-9.npz")
    (line,) = attempt.look()
    assert (line["path"], line["format"], line["step"], line["step_from"]) == (
        *("out/model-9.npz", "npz", 3),
        "content",
    )


def test_one_that_is_removed_before_it_was_read_is_counted(attempt: Attempt) -> None:
    for name in ("out/a.pt", "out/b.txt", "out/c.pt"):
        attempt.write(name, b"x").unlink()
        attempt.note("S", "torch.save" if name.endswith("pt") else "other", "", name)
    for name in ("out/a.pt", "out/b.txt"):
        attempt.note("D", name)
    assert attempt.look(5) == attempt.finish() == []
    assert [what for what, _ in attempt.checkpoints.missed()] == [
        "outputs: a version of out/c.pt",  # by another process
        "outputs: a version of out/a.pt",
    ]


def test_what_a_file_holds_counts_where_its_name_says_nothing(attempt: Attempt) -> None:
    files = {
        "out/weights": tensors(),
        "out/log": b"step 1\n" * 1000,
        "out/small": b"x",
        "out/set.npy": b"\x93NUMPY" * 200,
    }
    for name, content in files.items():
        attempt.write(name, content)
        attempt.note("W", name)
    attempt.look()
    assert [line["path"] for line in attempt.look(2)] == ["out/weights"]
    assert not any(writing.changed for writing in attempt.ledger.writes.values()), "none is looked at again"


def test_what_is_written_into_the_data_is_no_checkpoint(attempt: Attempt) -> None:
    attempt.data.append("data")
    attempt.begin()
    attempt.write("data/a.pt", b"x")
    attempt.note("S", "torch.save", "", "data/a.pt")
    assert attempt.look() == attempt.finish() == []


def test_one_that_never_comes_to_rest_is_torn_in_the_end(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = attempt.write("out/a.pt", b"x")
    attempt.note("S", "torch.save", "", "out/a.pt")
    info = path.stat()
    monkeypatch.setattr(hashing, "sha256_of", lambda name: hashing.Hashed(info, None, hashing.TORN))
    assert attempt.look(5) == []
    (line,) = attempt.finish()
    assert (line["path"], line["sha256"], line["problem"]) == ("out/a.pt", None, "torn")


@pytest.mark.parametrize("step", ["look", "read"])
def test_a_file_that_vanishes_while_it_is_looked_at_is_no_error(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    path = attempt.write("out/a" if step == "look" else "out/a.pt", tensors())
    attempt.note("S", "other", "", f"out/{path.name}")
    real = getattr(weights, "format_of" if step == "look" else "read")

    def vanish(place: str) -> object:
        path.unlink()
        return real(place)

    monkeypatch.setattr(weights, "format_of" if step == "look" else "read", vanish)
    assert attempt.look() == []
    assert attempt.finish() == []


# --- folders ------------------------------------------------------------------------------------------------

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


def save_shards(attempt: Attempt, folder: str, content: bytes = b"") -> str:
    """As a library does: shards, then the index; the digest of the folder."""
    files = {name: tensors() + content for name in SHARDS}
    files[INDEX] = b"{}"
    for name, data in files.items():
        attempt.note("W", f"{folder}/{name}")
        attempt.write(f"{folder}/{name}", data)
        if name != INDEX:
            attempt.note("S", "safetensors.save_file", "", f"{folder}/{name}")
    return weights.folder_digest((name, len(data), sha256(data)) for name, data in files.items())


def folders(lines: list[dict[str, object]]) -> list[dict[str, object]]:
    return [line for line in lines if line.get("folder")]


def test_shards_and_their_index_are_told_as_one_folder_when_all_are_whole(attempt: Attempt) -> None:
    digest = save_shards(attempt, "out/step-500")
    first = attempt.look()
    assert [line["path"] for line in first] == [f"out/step-500/{name}" for name in SHARDS]
    assert attempt.look(1.1) == []  # the index has just become whole
    (line,) = attempt.look(3)
    assert {
        key: line[key] for key in ("path", "folder", "sha256", "format", "files", "step", "step_from")
    } == {
        "path": "out/step-500",
        "folder": True,
        "sha256": digest,
        "format": "sharded",
        "files": 3,
        "step": 500,
        "step_from": "name",
    }
    assert attempt.look(10) == attempt.finish() == []


def test_an_index_that_comes_late_makes_the_folder_one(attempt: Attempt) -> None:
    for name in SHARDS:
        attempt.write(f"out/s/{name}", tensors())
        attempt.note("S", "safetensors.save_file", "", f"out/s/{name}")
    attempt.look()
    assert attempt.look(10) == []
    attempt.note("W", f"out/s/{INDEX}")
    attempt.write(f"out/s/{INDEX}", b"{}")
    attempt.look()
    attempt.look(1.1)
    assert [line["path"] for line in folders(attempt.look(2.1))] == ["out/s"]


def test_a_folder_in_which_a_file_is_open_is_not_whole_until_the_end(attempt: Attempt) -> None:
    save_shards(attempt, "out/s")
    attempt.opened = {"out/s/optimizer"}
    for _ in range(5):
        assert folders(attempt.look(3)) == []
    assert len(folders(attempt.finish())) == 1


def test_a_folder_that_is_written_anew_is_told_again(attempt: Attempt) -> None:
    told = []
    for content in (b"", b"-"):
        digest = save_shards(attempt, "out/s", content)
        found = [line for _ in range(4) for line in folders(attempt.look(1.5))]
        assert [line["sha256"] for line in found] == [digest]
        told += found
    assert told[0]["sha256"] != told[1]["sha256"]


def test_a_folder_that_changes_while_it_is_read_is_read_again(
    attempt: Attempt, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_shards(attempt, "out/s")
    attempt.look()
    attempt.look(1.1)
    real = hashing.Digests.of
    changed: list[bytes] = []

    def of(self: hashing.Digests, name: bytes) -> hashing.Hashed:
        found = real(self, name)
        if name.endswith(SHARDS[1].encode()) and not changed:
            changed.append(name)
            attempt.write(f"out/s/{SHARDS[0]}", tensors(2000))
        return found

    monkeypatch.setattr(hashing.Digests, "of", of)
    assert folders(attempt.look(3)) == []
    monkeypatch.setattr(hashing.Digests, "of", real)
    (line,) = folders(attempt.look(3))
    files = {SHARDS[0]: tensors(2000), SHARDS[1]: tensors(), INDEX: b"{}"}
    assert line["sha256"] == weights.folder_digest((n, len(d), sha256(d)) for n, d in files.items())
