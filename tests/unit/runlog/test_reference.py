from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch.domain.reference import (
    Label,
    Newest,
    check_name,
    no_such_run,
    parse_reference,
    prefix_bounds,
    shown,
)
from mllaunch.errors import MllaunchError

ANY_TEXT = st.text(st.characters(exclude_categories=[]))


@given(ANY_TEXT)
def test_any_text_means_something_or_is_an_error_of_ours(text: str) -> None:
    try:
        meaning = parse_reference(text)
    except MllaunchError as error:
        assert error.message.isprintable()
        assert error.message.isascii()
    else:
        assert isinstance(meaning, Newest) or meaning == Label(text)


@given(st.text(st.sampled_from("abcXYZ019._-"), min_size=1))
def test_every_name_is_a_reference_to_itself(name: str) -> None:
    try:
        check_name(name)
    except MllaunchError:
        return
    assert parse_reference(name) == Label(name)


@given(ANY_TEXT, ANY_TEXT)
def test_the_bounds_hold_exactly_what_begins_so(text: str, other: str) -> None:
    low, high = prefix_bounds(text)
    for candidate in (other, text + other):
        if "\U0010ffff" not in candidate:
            assert (low <= candidate < high) == candidate.startswith(text)


@pytest.mark.parametrize(("reference", "back"), [("@last", 0), ("@{0}", 0), ("@{1}", 1), ("@{002}", 2)])
def test_at_counts_from_the_newest(reference: str, back: int) -> None:
    assert parse_reference(reference) == Newest(back)


def test_a_long_reference_is_shown_short_with_its_length() -> None:
    assert shown("x" * 10_000) == f"'{'x' * 40}'... (10000 characters)"
    assert shown("\x1b[2J\u202e") == r"'\x1b[2J\u202e'"


def test_names_far_from_the_reference_are_not_hinted_at() -> None:
    hint = no_such_run("brave-otter", ["calm-fox-1"]).hint or ""
    assert "calm-fox" not in hint
