from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mllaunch.cli.table import table, text_width


def test_columns_are_aligned_and_lines_have_no_trailing_space():
    assert table([["a", "long cell", ""], ["bbb", "c", "d"]], ["X", "Y", "Z"], None) == (
        "X    Y          Z\na    long cell\nbbb  c          d\n"
    )


def test_without_rows_the_headers_remain():
    assert table([], ["NAME", "STATE"], 80) == "NAME  STATE\n"


def test_wide_and_combining_characters_are_measured():
    assert text_width("日本") == 4
    assert text_width("e\u0301") == 1
    assert table([["日本", "x"], ["e\u0301", "y"]], ["A", "B"], None) == "A     B\n日本  x\ne\u0301     y\n"


def test_a_terminal_cuts_the_widest_column_with_an_ellipsis():
    assert table([["name", "a very long note indeed"]], ["N", "NOTE"], 16) == "N     NOTE\nname  a very lo…\n"
    assert table([["日本日本日本", "x"]], ["A", "B"], 8) == "A      B\n日本…  x\n"


def test_a_pipe_cuts_nothing():
    assert "x" * 5_000 in table([["x" * 5_000]], ["A"], None)


def test_control_characters_in_cells_are_escaped_and_cannot_break_the_table():
    assert table([["a\nb\x1b[31m", "c"]], ["A", "B"], None) == "A             B\na\\nb\\x1b[31m  c\n"


def test_painting_does_not_move_the_columns():
    painted = table(
        [["ok", "x"], ["failed", "y"]],
        ["S", "T"],
        None,
        lambda column, cell: f"<{cell}>" if column == 0 else cell,
    )
    assert painted == "S       T\n<ok>      x\n<failed>  y\n"


CELLS = st.text(st.characters(codec="utf-8"), max_size=30)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=5), st.integers(16, 120))
def test_on_a_terminal_every_line_fits(rows, width):
    lines = table(rows, ["A", "B", "C"], width).split("\n")
    assert len(lines) == len(rows) + 2
    assert all(text_width(line) <= width for line in lines)
