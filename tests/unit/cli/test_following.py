from __future__ import annotations

import pytest

from mllaunch.cli.following import Silences, exit_code
from mllaunch.domain.run import RunStatus, Silence
from mllaunch.domain.state import Reason, State
from tests.fakes.nodes import AT

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


def test_a_node_that_does_not_answer_is_named_once_and_anew_after_it_had_answered() -> None:
    said: list[str] = []
    silences = Silences(said.append)
    silent = RunStatus(State.RUNNING, unreachable=(Silence("node2", AT, AT),))
    for status in (RunStatus(State.RUNNING), silent, silent):
        silences.say(status)
    assert said == ["node2 does not answer; what it prints comes later\n"]
    silences.say(RunStatus(State.RUNNING))
    silences.say(silent)
    assert len(said) == 2
