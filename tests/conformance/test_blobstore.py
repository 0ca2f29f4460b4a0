"""What every BlobStore does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mllaunch.errors import UsageError
from mllaunch.ports import BlobStore, StreamRef
from mllaunch.runlog.blobs import DifferentBytes, MissingBytes

from .stores import BLOB_STORES, block, start

OUT = StreamRef("run", 1, "node", "stdout.0")


@pytest.fixture(params=sorted(BLOB_STORES))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def blobs(kind: str, tmp_path: Path) -> BlobStore:
    return BLOB_STORES[kind](str(tmp_path / "home"))


def test_an_unknown_stream_is_empty_and_reading_creates_nothing(blobs: BlobStore, tmp_path: Path) -> None:
    assert blobs.length(OUT) == 0
    assert blobs.read(OUT, 0, 10) == blobs.read(OUT, 5, 10) == b""
    assert list(blobs.streams("run")) == []
    blobs.remove("run")
    assert list(tmp_path.iterdir()) == []


def test_bytes_come_back_from_any_offset(blobs: BlobStore) -> None:
    assert blobs.append(OUT, 0, b"hello ") == 6
    assert blobs.append(OUT, 6, b"\xff\0world") == 13
    assert blobs.length(OUT) == 13
    assert blobs.read(OUT, 0, 100) == b"hello \xff\0world"
    assert blobs.read(OUT, 6, 2) == b"\xff\0"
    assert blobs.read(OUT, 13, 5) == blobs.read(OUT, 99, 5) == blobs.read(OUT, 0, 0) == b""


def test_the_same_bytes_at_the_same_offset_change_nothing(blobs: BlobStore) -> None:
    blobs.append(OUT, 0, b"abcdef")
    assert blobs.append(OUT, 0, b"abcdef") == 6
    assert blobs.append(OUT, 2, b"cd") == 6
    assert blobs.append(OUT, 6, b"") == 6
    assert blobs.append(OUT, 4, b"efgh") == 8
    assert blobs.read(OUT, 0, 100) == b"abcdefgh"


@pytest.mark.parametrize(
    ("offset", "data"), [(0, b"abX"), (2, b"cX"), (2, b"Xdefgh"), (5, b"Xgh"), (0, b"X")]
)
def test_other_bytes_at_a_stored_offset_are_refused_and_nothing_changes(
    blobs: BlobStore, offset: int, data: bytes
) -> None:
    blobs.append(OUT, 0, b"abcdef")
    with pytest.raises(DifferentBytes) as caught:
        blobs.append(OUT, offset, data)
    assert f"offset {offset + data.index(b'X')} " in caught.value.message
    assert blobs.read(OUT, 0, 100) == b"abcdef"


def test_a_difference_far_behind_the_start_is_seen(blobs: BlobStore) -> None:
    data = random.Random(1).randbytes(3_000_000)
    blobs.append(OUT, 0, data)
    assert blobs.append(OUT, 0, data + b"x") == 3_000_001
    changed = bytearray(data)
    changed[2_500_000] ^= 1
    with pytest.raises(DifferentBytes, match="offset 2500000 "):
        blobs.append(OUT, 0, bytes(changed))


@pytest.mark.parametrize("stored", [b"", b"abc"])
def test_bytes_beyond_the_end_are_refused_and_nothing_changes(blobs: BlobStore, stored: bytes) -> None:
    if stored:
        blobs.append(OUT, 0, stored)
    before = list(blobs.streams("run"))
    with pytest.raises(MissingBytes) as caught:
        blobs.append(OUT, len(stored) + 1, b"x")
    assert caught.value.length == len(stored)
    assert blobs.length(OUT) == len(stored)
    assert list(blobs.streams("run")) == before


def test_an_empty_stream_is_stored_too(blobs: BlobStore) -> None:
    assert blobs.append(OUT, 0, b"") == 0
    assert list(blobs.streams("run")) == [OUT]


def test_streams_are_listed_in_order_and_removed_with_their_run(blobs: BlobStore) -> None:
    refs = [
        StreamRef("run", 1, "a", "events"),
        StreamRef("run", 1, "b", "events"),
        StreamRef("run", 2, "a", "events"),
        StreamRef("run", 2, "a", "stdout.0"),
        StreamRef("run", 10, "a", "events"),
    ]
    for ref in reversed(refs):
        blobs.append(ref, 0, b"x")
    other = StreamRef("other", 1, "a", "events")
    blobs.append(other, 0, b"y")
    assert list(blobs.streams("run")) == refs
    blobs.remove("run")
    assert list(blobs.streams("run")) == []
    assert blobs.length(refs[0]) == 0
    assert blobs.read(other, 0, 9) == b"y"


@pytest.mark.parametrize("bad", ["", ".", "..", "../x", "a/b", "/etc", "a\0b", "x" * 256])
def test_a_name_that_leads_elsewhere_is_refused(blobs: BlobStore, tmp_path: Path, bad: str) -> None:
    for ref in (OUT._replace(run_id=bad), OUT._replace(node=bad), OUT._replace(stream=bad)):
        for act in (blobs.length, lambda ref: blobs.append(ref, 0, b"x"), lambda ref: blobs.read(ref, 0, 1)):
            with pytest.raises(UsageError):
                act(ref)
    for act in (blobs.remove, lambda run: list(blobs.streams(run))):
        with pytest.raises(UsageError):
            act(bad)
    assert list(tmp_path.iterdir()) == []


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=12), st.integers(0))
def test_any_order_of_true_pieces_gives_a_true_prefix(
    blobs: BlobStore, pieces: list[tuple[int, int]], seed: int
) -> None:
    truth = random.Random(7).randbytes(120)
    ref = OUT._replace(run_id=f"run{seed}")
    blobs.remove(ref.run_id)
    length = 0
    for offset, size in pieces:
        if offset <= length:
            length = max(length, offset + size)
            assert blobs.append(ref, offset, truth[offset : offset + size]) == length
        else:
            with pytest.raises(MissingBytes):
                blobs.append(ref, offset, truth[offset : offset + size])
        assert blobs.read(ref, 0, 1000) == truth[:length]


def test_processes_that_append_the_same_stream_at_once_agree(kind: str, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    children = [start("append_numbers", kind, home, "300", "900") for _ in range(3)]
    for child in children:
        assert child.stdout is not None and child.stdin is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=60)
        assert child.returncode == 0
    expected = b"".join(block(number, 900) for number in range(300))
    assert BLOB_STORES[kind](home).read(OUT, 0, 10**6) == expected


def test_a_killed_writer_leaves_true_bytes_only_and_the_next_one_completes_them(
    kind: str, tmp_path: Path
) -> None:
    home = str(tmp_path / "home")
    width = 900_000
    chance = random.Random(20261122)
    truth = b"".join(block(number, width) for number in range(60))
    store = BLOB_STORES[kind](home)
    for _ in range(6):
        child = start("append_numbers", kind, home, "60", str(width))
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.stdin.write("go\n")
        child.stdin.flush()
        acknowledged = 0
        for _ in range(chance.randrange(1, 8)):
            acknowledged = int(child.stdout.readline() or acknowledged)
        child.kill()
        with child:
            acknowledged = max([acknowledged, *map(int, child.stdout.read().split())])
        length = store.length(OUT)
        assert length >= acknowledged
        assert store.read(OUT, 0, 10**9) == truth[:length]
    length = store.length(OUT)
    assert store.append(OUT, length // 2, truth[length // 2 :]) == len(truth)
    assert store.read(OUT, 0, 10**9) == truth
