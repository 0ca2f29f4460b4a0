"""The law of the masked stream: a function of the raw bytes alone, wherever reads are cut."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mllaunch_agent.redaction import CONTEXT, Masker, read_counted, read_masked, shippable

SECRETS = [
    b"hunter2222",
    b"two words",
    b"line one\nline two",
    b"aaaaaa",
    b"abcabcabc",
    b"p\xc3\xa4ssword",
]

SHAPED = [
    b"AKIAIOSFODNN7EXAMPLE",
    b"ASIAIOSFODNN7EXAMPLE",
    b"ghp_" + b"a1B2" * 9,
    b"ghs_" + b"a1B2" * 9,
    b"github_pat_" + b"11ABCDEFG0_" * 7,
    b"glpat-" + b"x_Y-z0" * 4,
    b"hf_" + b"AbCdEfGhIj" * 3,
    b"sk-" + b"T3BlbkFJ" * 6,
    b"sk-proj-" + b"a_B-c1" * 20,
    b"sk-ant-api03-" + b"a_B-c1" * 15,
    b"xoxb-123456789012-123456789012-" + b"aB3d" * 6,
    b"AIza" + b"SyA-b_C" * 5,
    b"npm_" + b"aB3d" * 9,
    b"pypi-AgEIcHlwaS5vcmc" + b"a_B-" * 30,
    b"dop_v1_" + b"0123456789abcdef" * 4,
    b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
]

PIECES = st.one_of(
    st.sampled_from(SECRETS),
    st.sampled_from(SHAPED),
    st.sampled_from(
        [
            b" ",
            b"\n",
            b"\r",
            b'"',
            b"=",
            b"step 17 loss=0.25 ",
            b"task-1 risk-free ",
            b"a",
            b"abc",
            b"_",
            b"-",
        ]
    ),
    st.sampled_from(
        [b"https://me:", b"s3cret", b"@host/", b"://", b":", b"@", b"/", b"eyJ", b"sk-", b"\\n", b"\x1b[31m"]
    ),
    st.sampled_from([b"x" * 700, b"sk-" * 300, b"a" * (CONTEXT + 5), b"a-" * 1500, b"eyJ" * 400]),
    st.binary(max_size=8),
)
STREAMS = st.lists(PIECES, max_size=25).map(b"".join)
MASKER = Masker(SECRETS)


def preader(raw: bytes, size: int):
    """Reads a stream of which only ``size`` bytes exist yet."""
    return lambda offset, length: raw[:size][offset : offset + length]


def shipped(raw: bytes, cuts: list[int], limits: list[int], masker: Masker) -> tuple[bytes, int]:
    """The masked stream as a follower ships it that sees ``raw`` grow from cut to cut."""
    out, ranges, turn = b"", 0, 0
    sizes = [*sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    for number, size in enumerate(sizes):
        final = number == len(sizes) - 1
        while True:
            limit = limits[turn % len(limits)]
            turn += 1
            piece, begun = read_counted(preader(raw, size), len(out), limit, size, final, masker)
            if not piece:
                break
            out += piece
            ranges += begun
        assert len(out) == shippable(preader(raw, size), size, final, masker)
    return out, ranges


@settings(deadline=None)
@given(
    STREAMS,
    st.lists(st.integers(0, 12_000), max_size=8),
    st.lists(st.integers(40, 5_000), min_size=1, max_size=4),
)
@example(b"ghp_" + b"a" * 36, [10], [1])
@example(b"x" * 5000 + b" https://u:" + b"p" * 1000 + b"@h", [5010, 5500, 6011], [64])
@example(b"aaaaaa" * 600, [1000, 3000], [70])
def test_pieces_shipped_while_the_stream_grows_equal_the_whole_masked_at_once(raw, cuts, limits):
    masked, ranges = MASKER.mask(raw)
    assert shipped(raw, cuts, limits, MASKER) == (masked, len(ranges))


@settings(deadline=None)
@given(STREAMS, st.integers(0, 12_000), st.integers(1, 9_000))
def test_any_piece_can_be_read_again_and_is_the_same(raw, offset, limit):
    offset = min(offset, len(raw))
    piece = read_masked(preader(raw, len(raw)), offset, limit, len(raw), True, MASKER)
    assert piece == MASKER.mask(raw)[0][offset : offset + limit]


@settings(deadline=None)
@given(STREAMS)
def test_length_stays_and_no_declared_secret_survives(raw):
    masked, ranges = MASKER.mask(raw)
    assert len(masked) == len(raw)
    assert not any(secret in masked for secret in SECRETS)
    shown = bytearray(masked)
    for start, end in ranges:
        assert masked[start:end] == b"*" * (end - start)
        shown[start:end] = raw[start:end]
    assert shown == raw  # nothing outside the ranges was touched


@settings(deadline=None)
@given(STREAMS, st.integers(0, 12_000))
def test_what_is_shippable_never_shrinks(raw, size):
    size = min(size, len(raw))
    before = shippable(preader(raw, size), size, False, MASKER)
    assert before <= size
    assert before <= shippable(preader(raw, len(raw)), len(raw), False, MASKER)


@settings(deadline=None)
@given(st.text(alphabet="abcdefgh 0123456789=.\n,:/").map(str.encode))
def test_text_without_secrets_is_unchanged(raw):
    assert Masker([b"something-else"]).mask(raw) == (raw, [])


@pytest.mark.parametrize(
    ("shown", "held_back"),
    [
        (b"loss=0.25\n", b""),
        (b"Done", b""),
        (b"........", b""),
        (b"downloading model.safeten", b""),
        (b"key=", b"s"),
        (b"key=", b"sk-abc"),
        (b"step ", b"github_pa"),
        (b"\x1b[32m", b"A"),
        (b"https", b":"),
        (b"https", b"://host/path"),
        (b"sk-abc and on ", b""),
        (b"a ", b"hunter222"),
        (b"a hunter2222", b""),
    ],
)
def test_only_what_may_become_a_secret_is_held_back(shown, held_back):
    assert MASKER.safe_end(shown + held_back) == len(shown)


def test_the_beginning_of_a_value_with_spaces_is_held_back():
    assert MASKER.safe_end(b"now line one\n") == 4
    assert MASKER.safe_end(b"now line two\n") == 13


def test_a_stream_without_whitespace_moves_on():
    assert MASKER.safe_end(b"sk-" + b"x" * 10_000) == 10_003
    assert MASKER.safe_end(b"sk-" * 10_000) == 30_000 - CONTEXT + 2  # only heads are held back


def test_a_declared_value_longer_than_the_usual_context_is_masked_whole():
    key = b"-----BEGIN PRIVATE KEY-----\n" + b"MIIEvQIBADANBgkq\n" * 300
    masker = Masker([key])
    raw = b"key: " + key + b"done\n"
    masked, _ = shipped(raw, list(range(0, len(raw), 997)), [333], masker)
    assert masked == b"key: " + b"*" * len(key.strip()) + b"\ndone\n"


def test_a_value_that_is_too_short_would_take_ordinary_text_with_it_and_is_not_masked():
    assert Masker([b" 12345 "]).mask(b"12345")[0] == b"12345"


def test_overlapping_values_are_all_masked():
    masker = Masker([b"abcdefgh", b"efghijkl"])
    assert masker.mask(b"_abcdefghijkl_") == (b"_************_", [(1, 13)])


def test_a_match_that_starts_inside_another_is_masked_to_its_own_end():
    two_words = b"glpat-" + b"x" * 296 + b"-eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln"
    assert MASKER.mask(b"a " + two_words + b" b")[0] == b"a " + b"*" * len(two_words) + b" b"
