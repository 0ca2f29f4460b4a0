from __future__ import annotations

import pytest

from mllaunch.cli.following import exit_code
from mllaunch.domain.run import RunStatus
from mllaunch.domain.state import Reason, State

TIMEOUT = Reason("timeout", "ran longer than 1 s", "user")


@pytest.mark.parametrize(
    ("state", "reason", "own", "expected"),
    [
        (State.SUCCEEDED, None, 0, 0),
        (State.FAILED, None, 3, 3),
        (State.FAILED, None, 0, 1),
        (State.FAILED, None, None, 1),
        (State.FAILED, TIMEOUT, 0, 124),
        (State.FAILED, TIMEOUT, None, 124),
        (State.FAILED, TIMEOUT, 137, 137),
        (State.CANCELLED, None, 0, 143),
        (State.CANCELLED, None, None, 143),
        (State.CANCELLED, None, 130, 130),
    ],
)
def test_a_run_that_did_not_succeed_never_exits_with_0(
    state: State, reason: Reason | None, own: int | None, expected: int
) -> None:
    assert exit_code(RunStatus(state, reason, own)) == expected
