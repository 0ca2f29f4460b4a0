from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from mllaunch.domain.merge import Merger, Segment


class Streams:
    """What a node wrote, and a reader of it."""

    def __init__(self, **texts: bytes) -> None:
        self.texts = texts

    @property
    def lengths(self) -> dict[str, int]:
        return {stream: len(text) for stream, text in self.texts.items()}

    def read(self, stream: str, start: int, end: int) -> bytes:
        return self.texts[stream][start:end]

    def merged(self, marks: bytes) -> bytes:
        merger = Merger(self.read)
        segments = [*merger.feed(marks, self.lengths), *merger.rest(self.lengths)]
        return b"".join(self.read(segment.stream, segment.start, segment.end) for segment in segments)


def test_output_appears_in_the_order_in_which_it_arrived():
    streams = Streams(out=b"a\nb\nc\n", err=b"1\n2\n")
    assert streams.merged(b"10 out 2\n20 err 2\n30 out 4\n40 err 4\n50 out 6\n") == b"a\n1\nb\n2\nc\n"


def test_a_segment_says_when_its_bytes_had_arrived():
    streams = Streams(out=b"a\nb\n")
    merger = Merger(streams.read)
    assert list(merger.feed(b"10 out 2\n", streams.lengths)) == [Segment("out", 0, 2, 10)]
    assert list(merger.rest(streams.lengths)) == [Segment("out", 2, 4, 10)]


def test_whole_lines_can_be_had_before_their_marks_and_are_not_given_out_again():
    streams = Streams(out=b"a\nb\nc")
    merger = Merger(streams.read)
    assert list(merger.feed(b"10 out 2\n", streams.lengths)) == [Segment("out", 0, 2, 10)]
    assert list(merger.rest(streams.lengths, lines_only=True)) == [Segment("out", 2, 4, 10)]
    streams.texts["out"] += b"\nd\n"
    assert list(merger.feed(b"20 out 4\n30 out 8\n", streams.lengths)) == [Segment("out", 4, 8, 30)]


def test_lines_are_not_split_by_a_mark_in_their_middle():
    streams = Streams(out=b"half a line\nnext\n", err=b"oops\n")
    assert streams.merged(b"10 out 5\n20 err 5\n30 out 17\n") == b"oops\nhalf a line\nnext\n"


def test_a_line_too_long_to_wait_for_is_split():
    streams = Streams(out=b"x" * 100_000, err=b"oops\n")
    assert (
        streams.merged(b"10 out 70000\n20 err 5\n30 out 100000\n")
        == b"x" * 70_000 + b"oops\n" + b"x" * 30_000
    )


def test_a_torn_last_mark_waits_for_its_rest():
    streams = Streams(out=b"a\n" * 10, err=b"1\n")
    merger = Merger(streams.read)
    assert list(merger.feed(b"10 out 2\n20 out 1", streams.lengths)) == [Segment("out", 0, 2, 10)]
    assert list(merger.feed(b"0\n", streams.lengths)) == [Segment("out", 2, 10, 20)]


def test_damaged_marks_are_skipped_and_nothing_is_lost():
    streams = Streams(out=b"a\nb\n", err=b"1\n")
    damage = (
        b"\x00\xff\n10 out\n-5 out 3\n10 out \xc2\xb2\n" + b"9" * 5_000 + b" out 2\n10 other 4\n20 out 2 2\n"
    )
    assert streams.merged(damage + b"30 err 2\n40 out 4\n") == b"1\na\nb\n"


def test_a_mark_ahead_of_what_can_be_read_yet_takes_what_is_there():
    streams = Streams(out=b"a\nb\n")
    merger = Merger(streams.read)
    assert list(merger.feed(b"10 out 4\n", {"out": 3})) == [Segment("out", 0, 2, 10)]
    assert list(merger.rest({"out": 4})) == [Segment("out", 2, 4, 10)]


def test_streams_without_marks_follow_one_another():
    assert Streams(out=b"a\n", err=b"1\n").merged(b"") == b"a\n1\n"


MARKS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 99), st.sampled_from(["out", "err", "no"]), st.integers(0, 60)).map(
            lambda mark: b"%d %s %d\n" % (mark[0], mark[1].encode(), mark[2])
        ),
        st.binary(max_size=6),
    )
).map(b"".join)


@given(st.text("ab\n", max_size=50), st.text("12\n", max_size=50), MARKS, st.integers(0, 200))
def test_whatever_the_marks_each_stream_is_covered_once_and_in_order(out, err, marks, cut):
    streams = Streams(out=out.encode(), err=err.encode())
    merger = Merger(streams.read)
    segments = [*merger.feed(marks[:cut], streams.lengths), *merger.feed(marks[cut:], streams.lengths)]
    segments += merger.rest(streams.lengths)
    for stream, length in streams.lengths.items():
        ranges = [(segment.start, segment.end) for segment in segments if segment.stream == stream]
        edges = [0, *(end for _, end in ranges)]
        assert ranges == list(pairwise(edges))
        assert edges[-1] == length
        assert all(start < end for start, end in ranges)
