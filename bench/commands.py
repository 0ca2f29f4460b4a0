"""Commands that are called all day, beside `python -c pass` with the same interpreter."""

from __future__ import annotations

from collections.abc import Iterator

from bench.measuring import Row, in_turns, ms
from bench.store import filled_log
from bench.user import PYTHON, SCRIPT, User


def rows(quick: bool) -> Iterator[Row]:
    rounds = 15 if quick else 60
    many = 10_000 if quick else 100_000
    with User() as user:
        yield _row(user, "mllaunch --help", ("--help",), rounds, at_most_ratio=4)
        filled_log(str(user.home.path), 10).close()
        yield _row(user, "mllaunch ps, 10 runs stored", ("ps",), rounds, at_most_ratio=4)
    with User() as user:
        filled_log(str(user.home.path), many).close()
        yield _row(user, f"mllaunch ps, {many:,} runs stored", ("ps",), rounds, at_most_ratio=5)


def _row(user: User, what: str, arguments: tuple[str, ...], rounds: int, at_most_ratio: float) -> Row:
    both = in_turns(
        lambda: ms(lambda: user.call([PYTHON, "-c", "pass"])),
        lambda: ms(lambda: user.call([str(SCRIPT), *arguments])),
        rounds,
    )
    return Row(what, *both, at_most_ratio=at_most_ratio)
