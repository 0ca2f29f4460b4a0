from __future__ import annotations

import threading

import pytest

from mllaunch_agent.probes.bounded import Bounded, Overdue


def test_results_and_errors_come_through() -> None:
    thread = Bounded(5)
    assert thread.call(lambda: 3) == 3
    with pytest.raises(KeyError):
        thread.call(lambda: dict[str, int]()["x"])
    assert thread.call(lambda: 4) == 4
    thread.close()


def test_a_call_that_hangs_is_given_up_and_further_ones_do_not_pile_up() -> None:
    thread = Bounded(0.01)
    driver = threading.Event()
    made = []
    with pytest.raises(Overdue, match="no answer within"):
        thread.call(driver.wait)
    with pytest.raises(Overdue, match="has not returned"):
        thread.call(lambda: made.append(1))
    assert made == []
    driver.set()
    thread._timeout_s = 5
    while True:
        try:
            assert thread.call(lambda: "awake") == "awake"
            break
        except Overdue:
            pass  # the late answer is not there yet
    thread.close()


def test_the_thread_does_not_keep_a_process_from_ending() -> None:
    thread = Bounded(5)
    assert thread.call(lambda: threading.current_thread().daemon)
    thread.close()
