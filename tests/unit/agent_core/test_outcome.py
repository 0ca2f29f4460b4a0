from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from mllaunch_agent import outcome
from mllaunch_agent.outcome import Cause, OomCounter, decide, exit_code, signal_name
from mllaunch_agent.protocol import ExitRecord


def ended(
    rank: int,
    code: int | None = 0,
    *,
    signal: int | None = None,
    error: str | None = None,
    at: str = "2026-01-01T00:00:00.000Z",
    out_of_memory: bool | None = None,
    by_engine: bool = False,
) -> ExitRecord:
    return {
        "rank": rank,
        "exit_code": None if signal else code,
        "signal": signal,
        "error": error,
        "at": at,
        "observed_by": "shim",
        "cpu_s": None,
        "max_rss_bytes": None,
        "out_of_memory": out_of_memory,
        "by_engine": by_engine,
    }


def test_all_ranks_at_zero_are_a_success() -> None:
    assert decide([ended(0), ended(1)], None, "n", []) == ("succeeded", 0, None)


def test_the_first_rank_to_fail_gives_the_code_whatever_the_order_of_the_records() -> None:
    records = [
        ended(0, signal=15, at="2026-01-01T00:00:02.000Z"),
        ended(1, 42, at="2026-01-01T00:00:01.000Z"),
        ended(2, 0, at="2026-01-01T00:00:00.000Z"),
    ]
    for order in permutations(records):
        outcome = decide(list(order), Cause("peer", "rank 1"), "gpu01", [])
        assert (outcome.state, outcome.exit_code) == ("failed", 42)
        assert outcome.reason is not None
        assert (outcome.reason["rank"], outcome.reason["node"]) == (1, "gpu01")


def test_of_two_that_failed_in_the_same_millisecond_the_lower_rank_counts() -> None:
    assert decide([ended(1, 5), ended(0, 6)], None, "n", []).exit_code == 6


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (3, "exited with 3"),
        (137, "exited with 137 (128 + SIGKILL)"),
        (139, "exited with 139 (128 + SIGSEGV)"),
        (128, "exited with 128"),
        (255, "exited with 255"),
    ],
)
def test_a_code_that_stands_for_a_signal_says_for_which(code: int, message: str) -> None:
    reason = decide([ended(0, code)], None, "n", []).reason
    assert reason is not None and (reason["code"], reason["message"]) == ("exit", message)


@pytest.mark.parametrize(
    ("record", "oom", "code", "reason", "origin", "retryable"),
    [
        (ended(0, 3), False, 3, "exit", "user", True),
        (ended(0, signal=9), False, 137, "signal", "user", True),
        (ended(0, signal=9), True, 137, "out_of_memory", "user", True),
        (ended(0, None), False, None, "unknown_exit", "infrastructure", True),
        (ended(0, 127, error="No such file or directory: x"), False, 127, "not_started", "user", False),
        (ended(0, 137, by_engine=True), False, 137, "engine_stopped", "infrastructure", True),
        (ended(0, 137, by_engine=True), True, 137, "out_of_memory", "user", True),
        (ended(0, 125, error="no GPU", by_engine=True), False, 125, "not_started", "user", False),
    ],
)
def test_each_way_to_fail_has_its_reason(
    record: ExitRecord, oom: bool, code: int | None, reason: str, origin: str, retryable: bool
) -> None:
    outcome = decide([record], None, "n", [0] if oom else [])
    assert (outcome.state, outcome.exit_code) == ("failed", code)
    assert outcome.reason is not None
    found = (outcome.reason["code"], outcome.reason["origin"], outcome.reason["retryable"])
    assert found == (reason, origin, retryable)
    assert outcome.reason["message"]


def test_of_an_end_that_nobody_saw_the_node_is_named() -> None:
    reason = decide([ended(0, None)], None, "gpu01", []).reason
    assert reason is not None
    assert reason["message"] == "ended on gpu01 while nobody could watch; its exit code is unknown"


@pytest.mark.parametrize(
    "record", [ended(0), ended(0, signal=15), ended(0, 1), ended(0, 143, by_engine=True)]
)
def test_a_stopped_run_is_cancelled_however_its_tasks_ended(record: ExitRecord) -> None:
    outcome = decide([record], Cause("stopped", "someone"), "n", [])
    assert (outcome.state, outcome.exit_code) == ("cancelled", exit_code(record))
    assert outcome.reason is not None and "someone" in outcome.reason["message"]
    assert not outcome.reason["retryable"]


def test_a_run_stopped_before_it_began_is_cancelled() -> None:
    assert decide([], Cause("stopped", "someone"), "n", []).state == "cancelled"


def test_too_long_is_a_failure_even_if_the_task_ended_well() -> None:
    outcome = decide([ended(0)], Cause("timeout", "4 s"), "n", [])
    assert (outcome.state, outcome.exit_code) == ("failed", 0)
    assert outcome.reason is not None and outcome.reason["message"] == "ran longer than 4 s"


def test_an_exit_code_is_a_shells_and_never_a_guess() -> None:
    assert [exit_code(ended(0, 7)), exit_code(ended(0, signal=11)), exit_code(ended(0, None))] == [
        7,
        139,
        None,
    ]
    assert (signal_name(9), signal_name(40)) == ("SIGKILL", "signal 40")


def test_an_engine_that_took_the_later_rank_along_is_not_why_the_first_one_failed() -> None:
    records = [
        ended(0, 143, by_engine=True, at="2026-01-01T00:00:02.000Z"),
        ended(1, 1, at="2026-01-01T00:00:01.000Z"),
    ]
    reason = decide(records, Cause("peer", "rank 1"), "n", []).reason
    assert reason is not None and (reason["code"], reason["rank"]) == ("exit", 1)


def test_a_record_from_before_there_were_engines_is_read_too() -> None:
    old: Any = {key: value for key, value in ended(0, 3).items() if key not in ("out_of_memory", "by_engine")}
    assert decide([old], None, "n", []).reason == decide([ended(0, 3)], None, "n", []).reason
    assert OomCounter().check(0, old) is False


@pytest.mark.parametrize(
    ("record", "oom"),
    [
        (ended(0, 137, out_of_memory=True), True),
        (ended(0, 1, out_of_memory=True), True),  # it died of the death of a helper
        (ended(0, 0, out_of_memory=True), False),  # and has survived that
        (ended(0, 137, out_of_memory=False), False),
        (ended(0, signal=9, out_of_memory=False), False),
    ],
)
def test_the_engines_word_about_memory_counts_and_not_the_kernels_about_us(
    monkeypatch: pytest.MonkeyPatch, record: ExitRecord, oom: bool
) -> None:
    counts = iter([0, 1])
    monkeypatch.setattr(outcome, "oom_kills", lambda: next(counts))
    counter = OomCounter()
    assert counter.check(0, record) is oom
    assert counter.ranks == ([0] if oom else [])


@pytest.mark.parametrize(
    ("record", "oom"), [(ended(0, signal=9), True), (ended(0, signal=15), False), (ended(0, 137), False)]
)
def test_without_it_the_kernels_count_tells_what_a_kill_was_for(
    monkeypatch: pytest.MonkeyPatch, record: ExitRecord, oom: bool
) -> None:
    counts = iter([4, 5])
    monkeypatch.setattr(outcome, "oom_kills", lambda: next(counts))
    assert OomCounter().check(0, record) is oom


@pytest.mark.parametrize(
    ("kind", "wanted_s", "given_s"),
    [("stopped", 60.0, 60.0), ("timeout", 60.0, 60.0), ("elsewhere", 60.0, 10.0), ("lost", 5.0, 5.0)],
)
def test_who_waits_for_a_node_that_has_failed_is_not_waited_for_long(
    kind: str, wanted_s: float, given_s: float
) -> None:
    assert outcome.grace_s(Cause(kind, ""), wanted_s) == given_s
