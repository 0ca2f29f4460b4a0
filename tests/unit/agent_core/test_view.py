"""From events to what is known of an attempt, and from attempts to where the run stands."""

from __future__ import annotations

from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch.domain import view as views
from mllaunch.domain.state import TRANSITIONS, Reason, State
from mllaunch.domain.status import run_status, waiting_words, wants_retry
from mllaunch_agent import protocol

STARTED = {"kind": protocol.ATTEMPT_STARTED, "node": "n", "hostname": "h", "boot_id": "b"}
WAITING = {
    "kind": protocol.WAITING, "wanted": 2, "free": 1, "foreign": [],
    "holders": [{"gpu": "a", "run": "brave-otter-17", "user": "ann", "pid": 1}],
    "ahead": [{"run": "calm-fox-2", "user": "bob"}],
}  # fmt: skip
LEASED = {"kind": protocol.GPUS_LEASED, "gpus": ["GPU-a"], "indices": [0]}
READY = {"kind": protocol.WORKDIR_READY, "path": "/w", "method": "overlay"}
RUNS = {"kind": protocol.TASK_STARTED, "rank": 0, "pid": 7}
EXITED = {"kind": protocol.TASK_EXITED, "rank": 0, "exit_code": 3, "signal": None, "out_of_memory": False}
STOP = {"kind": protocol.STOP_REQUESTED, "by": "ann", "now": False}
EXIT = {
    "code": "exit",
    "message": "exited with 3",
    "origin": "user",
    "node": "n",
    "rank": 0,
    "retryable": True,
}
FAILED = {"kind": protocol.ATTEMPT_ENDED, "state": "failed", "exit_code": 3, "reason": EXIT}
DONE = {"kind": protocol.ATTEMPT_ENDED, "state": "succeeded", "exit_code": 0, "reason": None}


def folded(*events: dict[str, Any]) -> views.View:
    numbered = [
        {"seq": n, "at": f"2026-01-01T00:00:{n:02}.000Z", "boot_s": float(n), **e}
        for n, e in enumerate(events)
    ]
    return reduce(views.fold, numbered, views.empty())


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "queued"),
        ([STARTED, WAITING], "queued"),
        ([STARTED, LEASED], "starting"),
        ([STARTED, READY], "starting"),
        ([STARTED, READY, RUNS], "running"),
        ([STARTED, RUNS], "running"),
        ([STARTED, READY, RUNS, STOP], "stopping"),
        ([STARTED, WAITING, STOP], "stopping"),
        ([STARTED, READY, RUNS, EXITED, FAILED], "failed"),
        ([STARTED, READY, RUNS, DONE], "succeeded"),
    ],
)
def test_the_state_follows_the_events(events: list[dict[str, Any]], state: str) -> None:
    assert folded(*events)["state"] == state


def test_what_events_say_is_in_the_view() -> None:
    view = folded(STARTED, WAITING, LEASED, READY, RUNS, EXITED, FAILED)
    assert (view["node"], view["gpus"], view["waiting"]) == ("n", ["GPU-a"], None)
    assert view["workdir"] == {"path": "/w", "method": "overlay"}
    assert view["tasks"]["0"]["pid"] == 7 and view["tasks"]["0"]["exit"]["exit_code"] == 3
    assert (view["exit_code"], view["reason"]) == (3, EXIT)
    assert (view["started_at"], view["ended_at"]) == ("2026-01-01T00:00:04.000Z", "2026-01-01T00:00:06.000Z")


def test_an_event_of_a_newer_agent_changes_nothing_but_the_time() -> None:
    view = folded(STARTED, RUNS)
    later = views.fold(view, {"kind": "from_the_future", "at": "2030-01-01T00:00:00.000Z", "x": 1})
    assert later == {**view, "last_event_at": "2030-01-01T00:00:00.000Z"}


@given(st.lists(st.sampled_from([STARTED, WAITING, LEASED, READY, RUNS, EXITED, STOP]), max_size=12))
def test_a_state_never_runs_backwards(events: list[dict[str, Any]]) -> None:
    order = list(State)
    states = [State(folded(*events[:n])["state"]) for n in range(len(events) + 1)]
    assert [order.index(state) for state in states] == sorted(order.index(state) for state in states)


@given(st.lists(st.sampled_from([STARTED, WAITING, LEASED, READY, RUNS, EXITED, STOP, DONE]), max_size=12))
def test_folding_changes_no_view_that_was_handed_out(events: list[dict[str, Any]]) -> None:
    import copy

    view = folded(*events)
    before = copy.deepcopy(view)
    views.fold(view, {"kind": protocol.LEFTOVERS, "at": "2026-01-01T00:00:59.000Z", "processes": []})
    assert view == before


def test_the_table_has_one_way_into_every_state_and_none_out_of_an_end() -> None:
    reachable = set().union(*TRANSITIONS.values())
    assert reachable == set(State) - {State.PACKAGING}
    assert {state for state in State if state.is_final} == {State.SUCCEEDED, State.FAILED, State.CANCELLED}


def test_an_attempt_that_may_go_otherwise_is_followed_while_retries_are_left() -> None:
    failed = folded(STARTED, RUNS, FAILED)
    status = run_status(1, {(1, "n"): failed})
    assert (status.state, status.attempt, status.exit_code) == (State.QUEUED, 1, None)
    assert status.waiting == "attempt 2 follows: attempt 1 exited with 3"
    status = run_status(1, {(1, "n"): failed, (2, "n"): failed})
    assert (status.state, status.attempt, status.exit_code) == (State.FAILED, 2, 3)
    status = run_status(1, {(1, "n"): failed, (2, "n"): folded(STARTED, RUNS)})
    assert (status.state, status.attempt, status.reason) == (State.RUNNING, 2, None)


@pytest.mark.parametrize(
    ("state", "retryable", "number", "wanted"),
    [
        (State.FAILED, True, 1, True),
        (State.FAILED, True, 3, False),
        (State.FAILED, False, 1, False),
        (State.CANCELLED, True, 1, False),
        (State.SUCCEEDED, True, 1, False),
    ],
)
def test_only_failures_that_may_go_otherwise_are_tried_again(
    state: State, retryable: bool, number: int, wanted: bool
) -> None:
    assert wants_retry(2, number, state, Reason("exit", "", "user", retryable=retryable)) is wanted


def test_a_run_on_several_nodes_is_as_far_as_its_slowest_and_fails_as_its_first() -> None:
    runs, starts, done, failed = folded(RUNS), folded(READY), folded(RUNS, DONE), folded(RUNS, FAILED)
    assert run_status(0, {(1, "a"): runs, (1, "b"): starts}).state is State.STARTING
    assert run_status(0, {(1, "a"): failed, (1, "b"): runs}).state is State.RUNNING
    assert run_status(0, {(1, "a"): done, (1, "b"): failed}).state is State.FAILED
    assert run_status(0, {(1, "a"): done, (1, "b"): done}).state is State.SUCCEEDED


def test_a_run_is_sealed_complete_only_if_every_node_is() -> None:
    def sealed(status: str | None) -> views.View:
        return {**folded(RUNS, DONE), "seal": {"status": status} if status else None}

    complete, gaps, none = sealed("sealed-complete"), sealed("sealed-with-gaps"), sealed(None)
    assert run_status(0, {(1, "a"): complete, (1, "b"): complete}).seal == "sealed-complete"
    assert run_status(0, {(1, "a"): complete, (1, "b"): gaps}).seal == "sealed-with-gaps"
    assert run_status(0, {(1, "a"): complete, (1, "b"): none}).seal is None


def test_why_a_run_waits_names_whom_it_waits_for() -> None:
    words = waiting_words(folded(STARTED, WAITING)["waiting"])
    assert words == "waits for 2 GPUs; held by brave-otter-17 (ann); behind calm-fox-2"
    foreign = {"wanted": 1, "free": 0, "holders": [], "ahead": [], "foreign": [{"pid": 5, "user": None}]}
    assert waiting_words(foreign) == "waits for 1 GPU; used by pid 5 of ?"
    assert waiting_words(None) is None


def test_while_a_node_was_never_heard_of_nothing_is_final_and_nothing_retried() -> None:
    sealed = {**folded(STARTED, RUNS, DONE), "seal": {"status": "sealed-complete"}}
    of_one = run_status(2, {(1, "a"): sealed}, 2)
    assert (of_one.state, of_one.seal, of_one.exit_code) == (State.RUNNING, None, None)
    failed = run_status(2, {(1, "a"): folded(STARTED, RUNS, FAILED)}, 2)
    assert failed.state is State.RUNNING
    of_both = run_status(2, {(1, "a"): sealed, (1, "b"): sealed}, 2)
    assert (of_both.state, of_both.seal) == (State.SUCCEEDED, "sealed-complete")


def test_the_reason_is_that_of_the_node_which_failed_by_itself_whatever_its_clock_says() -> None:
    collateral = {**EXIT, "code": protocol.PEER_FAILED, "message": "stopped: rank 1 on b exited with 3"}
    stopped = folded(
        STARTED, RUNS, {**FAILED, "reason": collateral, "exit_code": 143, "at": "2026-01-01T00:00:01.000Z"}
    )
    own = folded(STARTED, RUNS, {**FAILED, "at": "2026-01-01T00:00:09.000Z"})
    status = run_status(0, {(1, "a"): stopped, (1, "b"): own}, 2)
    assert (status.exit_code, status.reason and status.reason.code) == (3, "exit")
