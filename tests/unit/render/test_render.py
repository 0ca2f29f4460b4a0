from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mllaunch.domain.render import LONGEST_LINE, Renderer, escape


def rendered(raw: bytes, *, colours: bool = False, cuts: tuple[int, ...] = ()) -> str:
    renderer = Renderer(colours=colours)
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    shown = [piece for a, b in pairwise(edges) for piece in renderer.feed(raw[a:b])]
    return "".join(shown) + renderer.finish()


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"plain\ttext\n", "plain\ttext\n"),
        (b"no end", "no end"),
        (b"\n\n", "\n\n"),
        (b"dos\r\nlines\r\n", "dos\nlines\n"),
        (b" 10%\r 50%\r100%\n", "100%\n"),
        (b" 10%\r 50%\r", " 50%"),
        (b"\r 10%\r\r 50%\r\r\n", " 50%\n"),
        (b"\x1b[31mred\x1b[0m\n", "red\n"),
        (b"\x1b]52;c;ZXZpbA==\x07\n", "\\x1b]52;c;ZXZpbA==\\x07\n"),
        (b"\x1b]8;;http://evil\x1b\\link\n", "\\x1b]8;;http://evil\\x1b\\link\n"),
        (b"\x1b[2J\x1b[1A\x1bc\n", "\\x1b[2J\\x1b[1A\\x1bc\n"),
        (b"\x1b[3\x1b[0m1m\n", "\\x1b[31m\n"),  # removing one sequence must not make another
        (b"\x00\x08\x7f\n", "\\x00\\x08\\x7f\n"),
        (b"\xff\xfe caf\xc3\xa9 \xe2\x82\n", "\\xff\\xfe café \\xe2\\x82\n"),
        ("\u202eevil\u2066 \x9b31m\n".encode(), "\\u202eevil\\u2066 \\x9b31m\n"),
        ("日本 ✓ שלום\n".encode(), "日本 ✓ שלום\n"),
    ],
)
def test_a_log_becomes_harmless_lines(raw, shown):
    assert rendered(raw) == shown


def test_wanted_colours_stay_and_do_not_leak_into_the_next_line():
    assert rendered(b"\x1b[31mred\nplain\n", colours=True) == "\x1b[31mred\x1b[0m\nplain\n"
    assert rendered(b"\x1b[1;32mok\x1b[0m \x1b[?25l\n", colours=True) == "\x1b[1;32mok\x1b[0m \\x1b[?25l\n"


NASTY_TEXTS = [
    "a",
    "bar 50%",
    "\r",
    "\n",
    "\r\n",
    "\t",
    "\x1b",
    "\x1b[31m",
    "[0m",
    "€",
    "\x00",
    "😀\u202e",
    "\x1b]52;c;x\x07",
]
NASTY = st.lists(st.sampled_from([*(text.encode() for text in NASTY_TEXTS), b"\xe2", b"\xff"])).map(b"".join)


@settings(deadline=None)
@given(st.one_of(NASTY, st.binary()), st.lists(st.integers(0, 60), max_size=6), st.booleans())
def test_the_chunks_do_not_matter(raw, cuts, colours):
    assert rendered(raw, colours=colours, cuts=tuple(cuts)) == rendered(raw, colours=colours)


@settings(deadline=None)
@given(st.one_of(NASTY, st.binary()), st.lists(st.integers(0, 60), max_size=6))
def test_nothing_but_tabs_and_line_ends_controls_the_terminal(raw, cuts):
    shown = rendered(raw, cuts=tuple(cuts))
    assert all(character.isprintable() or character in "\t\n" or ord(character) > 0x9F for character in shown)


@settings(deadline=None)
@given(NASTY)
def test_the_unfinished_line_can_be_looked_at_any_time_and_changes_nothing(raw):
    renderer = Renderer()
    shown = []
    for byte in raw:
        shown += renderer.feed(bytes([byte]))
        assert "\n" not in renderer.partial()
    assert "".join(shown) + renderer.finish() == rendered(raw)


def test_the_unfinished_line_is_the_last_state_of_the_bar():
    renderer = Renderer()
    assert renderer.feed(b"epoch 1\n 10%\r 20%") == ["epoch 1\n"]
    assert renderer.partial() == " 20%"
    renderer.feed(b"\r 30% \xe2\x96")
    assert renderer.partial() == " 30% "
    assert renderer.feed(b"\x88\n") == [" 30% █\n"]


def test_a_line_without_end_is_given_out_in_pieces_and_complete():
    renderer = Renderer()
    text = "é" * 40_000 + "\x1b[31m" * 10_000
    raw = text.encode()
    shown = []
    for start in range(0, len(raw), 4_099):
        shown += renderer.feed(raw[start : start + 4_099])
        assert len(renderer.partial()) <= LONGEST_LINE
    shown += renderer.feed(b"\nnext\n")
    assert len(shown) > 2
    assert "".join(shown) == "é" * 40_000 + "\nnext\n"
    assert [piece.endswith("\n") for piece in shown] == [False] * (len(shown) - 2) + [True, True]


def test_a_bar_after_a_piece_that_is_out_already_starts_on_a_line_of_its_own():
    long = b"x" * (LONGEST_LINE + 1)
    assert rendered(long + b"\r50%\n", cuts=(len(long),)) == "x" * LONGEST_LINE + "\n50%\n"
    assert rendered(long + b"\r50%\r60%", cuts=(len(long), len(long) + 4)) == "x" * LONGEST_LINE + "\n60%"


@pytest.mark.parametrize("flood", [b"\r", b"50%\r", b"\x1b]52;c;x\x07", b"\x1b", b"x", b"\xff"])
def test_a_flood_is_held_in_bounded_memory(flood):
    renderer = Renderer()
    for _ in range(1_000):
        renderer.feed(flood * (1024 // len(flood)))
        assert len(renderer._line) <= LONGEST_LINE + 1


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain name.py", "plain name.py"),
        ("two\nlines\tand\rmore", "two\\nlines\\tand\\rmore"),
        ("\x1b[31m\x00\x9b", "\\x1b[31m\\x00\\x9b"),
        ("caf\udce9", "caf\\xe9"),
        ("\ud800\u202e\u2028", "\\ud800\\u202e\\u2028"),
        ("café 日本", "café 日本"),
    ],
)
def test_a_foreign_name_is_one_harmless_line(name, shown):
    assert escape(name) == shown


@given(st.text())
def test_what_was_escaped_can_be_printed_anywhere(text):
    escape(text).encode("utf-8")
    assert len(escape(text).splitlines()) <= 1
