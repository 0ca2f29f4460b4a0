from __future__ import annotations

import pytest

from mllaunch.cli import request
from mllaunch.cli.commands import run, submit


@pytest.mark.parametrize("words", [["t.py"], ["t.py", "--lr", "3", "--", "-h"], ["folder/t.py", "--wait"]])
def test_a_submission_without_options_asks_for_the_same_with_and_without_the_option_parser(words):
    assert request.is_plain(words)
    parsed = submit.command.make_context("submit", list(words)).params
    assert (parsed.pop("wait"), parsed.pop("follow")) == (False, False)
    assert parsed == request.plain(words)
    assert run.command.make_context("run", list(words)).params == request.plain(words)


@pytest.mark.parametrize("words", [[], ["--wait", "t.py"], ["--", "ls"], ["-f", "t.py"]])
def test_options_and_commands_are_left_to_the_option_parser(words):
    assert not request.is_plain(words)
