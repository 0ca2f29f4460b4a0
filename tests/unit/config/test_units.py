from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch.config.units import (
    format_duration,
    format_memory,
    parse_count,
    parse_duration,
    parse_memory,
    shown,
)

ANYTHING = st.one_of(
    st.text(),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.lists(st.integers()),
    st.from_regex(r"[-+0-9.eE_ ]{0,30}[kKmMgGiIbBdhms]{0,3}", fullmatch=True),
)


@pytest.mark.parametrize("parse", [parse_count, parse_memory, parse_duration])
@given(value=ANYTHING)
def test_a_parser_gives_a_value_in_range_or_says_what_it_expects(parse: object, value: object) -> None:
    try:
        result = parse(value)  # type: ignore[operator]
    except ValueError as error:
        assert str(error).startswith("expected ")
        assert "\n" not in str(error) and len(str(error)) < 250
    else:
        assert 0 <= result < 2**63


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16GiB", 16 * 1024**3),
        ("512MB", 512 * 1000**2),
        ("1.5 gib", 3 * 1024**3 // 2),
        ("2048", 2048),
        (2048, 2048),
        ("9007199254740993B", 2**53 + 1),
        (" 1 TiB ", 1024**4),
    ],
)
def test_memory_is_read_exactly(text: object, size: int) -> None:
    assert parse_memory(text) == size


@pytest.mark.parametrize(
    "text", ["16G", "-1GiB", "0", "1e9", "GiB", "", "1.GiB", ".5GiB", "1_0MB", True, 1.5, "9" * 30]
)
def test_what_is_no_clear_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="16GiB"):
        parse_memory(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("4h", 14400), ("30m", 1800), ("90s", 90), ("7d", 604800), ("1h30m", 5400), ("0.5s", 0.5), ("0s", 0)],
)
def test_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "4", 4, "h", "30m1h", "1h1h", "-1s", "1e3s", "infs", "nans", "1 h", "40000d", None]
)
def test_what_is_no_clear_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="1h30m"):
        parse_duration(text)


@pytest.mark.parametrize(
    "value", ["four", -1, 1025, 1e99, float("nan"), True, "", "1.0", "٣", "1" * 100, 10**4000]
)
def test_a_count_out_of_range_or_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="expected a whole number from 0 to 1024"):
        parse_count(value, 0, 1024)


@given(st.integers(1, 2**63 - 1))
def test_a_written_size_is_read_back(size: int) -> None:
    assert parse_memory(format_memory(size)) == size


@given(st.integers(0, 36500 * 86400))
def test_a_written_duration_is_read_back(seconds: int) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


def test_a_value_in_a_message_is_short_and_controls_no_terminal() -> None:
    assert shown("a\x1b]52;c;eA==\x07" + "x" * 10**6).isprintable()
    assert len(shown("x" * 10**6)) <= 60
