from __future__ import annotations

import pytest

from mllaunch.cli.ending import words
from mllaunch.domain.state import Reason

EXITED = Reason("exit", "exited with 7", "user", "node2", 1)
TIMEOUT = Reason("timeout", "ran longer than 3 s", "user", "node1")
BEGAN, ENDED = "2026-11-21T09:00:00.000Z", "2026-11-21T09:00:03.100Z"


@pytest.mark.parametrize(
    ("state", "reason", "tasks", "code", "expected"),
    [
        ("failed", EXITED, 2, 7, "failed: exited with 7 (rank 1 on node2), after 3.1s"),
        ("failed", EXITED._replace(node=None), 2, 7, "failed: exited with 7 (rank 1 on ?), after 3.1s"),
        ("failed", EXITED._replace(rank=0), 1, 7, "failed: exited with 7, after 3.1s"),
        ("failed", TIMEOUT, 2, 143, "failed: ran longer than 3 s, after 3.1s"),
        ("succeeded", None, 1, 0, "succeeded, exit code 0, after 3.1s"),
        ("succeeded", None, 1, None, "succeeded after 3.1s"),
    ],
)
def test_it_says_how_it_ended_whose_failure_it_was_and_after_how_long(
    state: str, reason: Reason | None, tasks: int, code: int | None, expected: str
) -> None:
    assert words(state, reason, tasks, BEGAN, ENDED, code) == expected


def test_what_has_not_ended_has_taken_no_time() -> None:
    assert words("running", None, 2, BEGAN, None) == "running"
    assert words("queued", EXITED, 2, BEGAN, None) == "queued: exited with 7 (rank 1 on node2)"
