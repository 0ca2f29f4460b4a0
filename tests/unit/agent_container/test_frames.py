"""Output and chunks are the same however their bytes are torn on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch_agent.engine_answer import Chunks, Frames
from tests.fakes.engine import chunked, frame

PIECES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=20)), max_size=8)
CHUNKS = st.lists(st.binary(min_size=1, max_size=40), max_size=8)


@st.composite
def torn(draw: Callable[..., list[int]], data: bytes) -> list[bytes]:
    cuts = [0, *sorted(draw(st.lists(st.integers(0, len(data))))), len(data)]
    return [data[a:b] for a, b in pairwise(cuts)]


def streams(parts: Iterable[bytes]) -> dict[int, bytes]:
    frames, found = Frames(), {1: b"", 2: b""}
    for part in parts:
        for stream, piece in frames.feed(part):
            assert piece
            found[stream] += piece
    return found


@given(st.data(), PIECES)
def test_any_splitting_of_the_bytes_gives_the_same_streams(
    data: st.DataObject, pieces: list[tuple[int, bytes]]
) -> None:
    whole = b"".join(frame(stream, piece) for stream, piece in pieces)
    wanted = {n: b"".join(piece for stream, piece in pieces if stream == n) for n in (1, 2)}
    assert streams(data.draw(torn(whole))) == wanted
    assert streams(whole[n : n + 1] for n in range(len(whole))) == wanted


@given(st.binary(max_size=20), st.integers(0, 28))
def test_the_beginning_of_a_frame_gives_the_beginning_of_its_data(content: bytes, size: int) -> None:
    assert streams([frame(1, content)[:size]])[1] == content[: max(0, size - 8)]


def body(chunks: Iterable[bytes], whole: bool = True) -> bytes:
    return chunked(*chunks, whole=whole).partition(b"\r\n\r\n")[2]


@given(st.data(), CHUNKS)
def test_any_splitting_of_chunks_gives_the_same_body(data: st.DataObject, chunks: list[bytes]) -> None:
    reader = Chunks()
    found = b"".join(reader.feed(part) for part in data.draw(torn(body(chunks))))
    assert found == b"".join(chunks)
    assert reader.ended


@given(st.data(), CHUNKS)
def test_chunks_that_were_cut_short_have_not_ended(data: st.DataObject, chunks: list[bytes]) -> None:
    whole = body(chunks)
    cut = whole[: data.draw(st.integers(0, len(body(chunks, whole=False))))]
    reader = Chunks()
    assert b"".join(chunks).startswith(reader.feed(cut))
    assert not reader.ended


def test_a_chunk_may_carry_an_extension_and_what_follows_the_last_one_is_not_read() -> None:
    reader = Chunks()
    assert reader.feed(b"3;a=b\r\nabc\r\n0\r\nX-Trailer: 1\r\n\r\n") == b"abc"
    assert reader.ended


@pytest.mark.parametrize("data", [b"no\r\n", b"\r\n", b"-3\r\n", b"x" * 70000])
def test_what_is_no_chunk_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        Chunks().feed(data)
