"""The short form of ``python -m tests.faults.ssh``, with seeds that never change."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.ssh.__main__ import GPUS, HOSTS, RIVALS_GPUS, RIVALS_HOSTS, attack
from tests.faults.ssh.rivals import compete, double_booked
from tests.testbed.hosts import Hosts


@pytest.mark.real("hosts")
def test_launchers_killed_at_twenty_random_moments_start_their_runs_once_or_not_at_all() -> None:
    with Hosts(HOSTS, GPUS) as hosts:
        tally = attack(hosts, kills=20, seed=7)
    print(tally.table())
    assert not tally.all_faults, "\n".join([tally.table(), *tally.all_faults])
    assert {victim for report in tally.reports for victim in report.kills} == {"submit", "collector"}
    ran = [report.bytes_checked for report in tally.reports if report.outcome == "ran"]
    assert len(ran) >= 5 and all(ran), "runs whose output was not compared"


@pytest.mark.real("hosts")
def test_two_launchers_that_want_the_same_gpus_both_get_them_one_after_the_other(tmp_path: Path) -> None:
    with Hosts(RIVALS_HOSTS, RIVALS_GPUS) as hosts:
        outcome = compete(hosts, RIVALS_GPUS, tmp_path, each=10, seed=7)
    print(outcome.table())
    assert not outcome.faults, "\n".join([outcome.table(), *outcome.faults])
    assert (outcome.ran, outcome.double_booked) == (20, 0)
    assert max(outcome.waits_s) > 1.0, "nobody had to wait: nothing was tried"


def test_a_gpu_that_two_tasks_had_at_one_time_is_noticed() -> None:
    one = {"host": "a", "gpus": ["x", "y"], "began": 1.0, "ended": 3.0}
    later = {**one, "began": 3.0, "ended": 4.0}
    assert double_booked([one, later, {**one, "host": "b"}, {**one, "gpus": ["z"]}]) == []
    assert len(double_booked([one, later, {**one, "gpus": ["y"], "began": 2.0, "ended": 2.5}])) == 1
