"""Output that only the engine has, copied to the streams: not a byte is lost or doubled, whoever dies meanwhile."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch_agent.container_shim import _rfc3339
from mllaunch_agent.container_watch import Output
from mllaunch_agent.engine import EngineGone
from tests.fakes.engine import frame

Log = list[tuple[int, bytes]]
LOGS: st.SearchStrategy[Log] = st.lists(
    st.tuples(st.sampled_from([1, 2]), st.binary(max_size=12)), max_size=8
)


class Answer:
    """A connection that brings these pieces and then ends."""

    def __init__(self, pieces: Iterable[bytes], whole: bool) -> None:
        self._pieces = [piece for piece in pieces if piece]
        self._whole = whole
        self.closed = False

    def drain(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""

    def is_whole(self) -> bool:
        return self._whole

    def close(self) -> None:
        self.closed = True


class Engine:
    """One that has printed this much, and whose connections are torn after so many bytes; then they are whole."""

    def __init__(self, log: Log, torn: Iterable[int] = (), size: int = 5) -> None:
        self._data = b"".join(frame(stream, data) for stream, data in log)
        self._torn = list(torn)
        self._size = size
        self.answers: list[Answer] = []

    def output(self, container: str) -> Answer:
        data, whole = self._data, not self._torn
        if self._torn:
            data = data[: self._torn.pop(0)]
        pieces = (data[at : at + self._size] for at in range(0, len(data), self._size))
        self.answers.append(Answer(pieces, whole))
        return self.answers[-1]


def never_wait(files: Iterable[int], timeout_s: float | None) -> set[int]:
    raise AssertionError("nothing to wait for")


def output(
    folder: str, engine: Engine, wait: Callable[[Iterable[int], float | None], set[int]] = never_wait
) -> Output:
    made: Any = engine
    return Output(folder, 0, made, "c", wait)


def streams(folder: str) -> tuple[bytes, ...]:
    return tuple((Path(folder) / "streams" / f"{name}.0").read_bytes() for name in ("stdout", "stderr"))


def printed(log: Log) -> tuple[bytes, ...]:
    return tuple(b"".join(data for stream, data in log if stream == n) for n in (1, 2))


def folder_of_an_attempt() -> TemporaryDirectory[str]:
    made = TemporaryDirectory()
    (Path(made.name) / "streams").mkdir()
    return made


@given(st.data(), LOGS, st.lists(st.integers(0, 150), max_size=3), st.integers(1, 40))
def test_after_any_deaths_the_streams_are_exactly_what_was_printed(
    data: st.DataObject, log: Log, torn: list[int], size: int
) -> None:
    """A shim that dies has stored what came until then; each that follows begins from nothing but the streams."""
    with folder_of_an_attempt() as folder:
        for end in torn:
            engine = Engine(log, [end], size)
            dying = output(folder, engine)
            dying.connect()
            while dying.take():
                if data.draw(st.booleans()):
                    break
            dying.close()
        last = output(folder, Engine(log, size=size))
        last.finish()
        last.close()
        assert streams(folder) == printed(log)


@given(LOGS, st.lists(st.integers(0, 150), min_size=1, max_size=3))
def test_an_engine_that_goes_while_the_last_output_comes_is_asked_again(log: Log, torn: list[int]) -> None:
    with folder_of_an_attempt() as folder:
        engine = Engine(log, torn)
        copying = output(folder, engine)
        for _ in torn:
            with pytest.raises(EngineGone):
                copying.finish()
        copying.finish()
        copying.close()
        assert streams(folder) == printed(log)
        assert len(engine.answers) == len(torn) + 1
        assert all(answer.closed for answer in engine.answers)


def test_what_was_written_between_two_pieces_by_a_full_disk_is_written_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = [(1, b"abcdef")]
    room = iter([2, 0, 0, 3, 10])
    write = os.write
    waited: list[float | None] = []

    def short(fd: int, data: bytes) -> int:
        fits = next(room)
        if not fits:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[:fits])

    def wait(files: Iterable[int], timeout_s: float | None) -> set[int]:
        waited.append(timeout_s)
        return set()

    with folder_of_an_attempt() as folder:
        copying = output(folder, Engine(log, size=100), wait)
        monkeypatch.setattr(os, "write", short)
        copying.finish()
        copying.close()
        assert streams(folder) == (b"abcdef", b"")
        assert len(waited) == 2  # and meanwhile the supervisor was watched


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ("2026-11-24T19:33:34.185902309Z", "2026-11-24T19:33:34.185Z"),
        ("2026-11-24T19:33:34.1Z", "2026-11-24T19:33:34.100Z"),
        ("2026-11-24T19:33:34Z", "2026-11-24T19:33:34.000Z"),
        ("2026-11-24T20:33:34.185902309+01:00", None),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
    ],
)
def test_the_engines_time_is_told_as_ours_where_it_is_in_utc(text: str, ours: str | None) -> None:
    assert _rfc3339(text) == ours
