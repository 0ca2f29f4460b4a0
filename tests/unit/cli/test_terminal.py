from __future__ import annotations

import io
import os
import pty

import pytest

from mllaunch.cli.terminal import green, is_terminal, red, wants_colour, width


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


PIPE = io.StringIO()


@pytest.mark.parametrize(
    ("stream", "environ", "colour"),
    [
        (Terminal(), {}, True),
        (PIPE, {}, False),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"NO_COLOR": "0"}, False),
        (Terminal(), {"NO_COLOR": ""}, True),
        (PIPE, {"FORCE_COLOR": "1"}, True),
        (PIPE, {"FORCE_COLOR": ""}, False),
        (Terminal(), {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (PIPE, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (Terminal(), {"TERM": "dumb", "FORCE_COLOR": "1"}, True),
    ],
)
def test_colour_follows_the_stream_and_the_environment(stream, environ, colour):
    assert wants_colour(stream, environ) is colour


def test_a_closed_stream_is_no_terminal():
    closed = io.StringIO()
    closed.close()
    assert not is_terminal(closed)
    assert width(closed, {}) is None


def test_a_pipe_has_no_width_even_if_the_environment_has_one():
    assert width(PIPE, {"COLUMNS": "80"}) is None


def test_a_terminals_width_is_the_environments_else_its_own():
    leader, follower = pty.openpty()
    try:
        os.set_blocking(leader, False)
        with os.fdopen(follower, "w") as stream:
            assert is_terminal(stream)
            assert width(stream, {"COLUMNS": "132"}) == 132
            assert width(stream, {"COLUMNS": "wide"}) == 80  # this terminal says 0
            import fcntl
            import struct
            import termios

            fcntl.ioctl(stream, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 97, 0, 0))
            assert width(stream, {}) == 97
    finally:
        os.close(leader)


def test_text_is_coloured_only_for_a_stream_that_wants_it(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    assert green("ok", Terminal()) == "\x1b[32mok\x1b[0m"
    assert green("ok", PIPE) == "ok"
    assert red("", Terminal()) == ""
    monkeypatch.setenv("NO_COLOR", "1")
    assert red("no", Terminal()) == "no"
