"""Warnings: everything that makes a result doubtful is said, and nothing else is."""

from __future__ import annotations

from typing import Any

from mllaunch.domain.codeuse import changes
from mllaunch.domain.remarks import changed_words, warnings
from mllaunch.domain.run import RunStatus
from mllaunch.domain.state import State

from . import records

DONE = RunStatus(State.SUCCEEDED, seal="sealed-complete")


def warned(view: dict[str, Any]) -> list[str]:
    return warnings(records.RUN, DONE, {(1, "gpu01"): view})


def test_a_run_of_which_all_is_well_has_none() -> None:
    assert warned(records.sealed(records.view("gpu01", *records.begun(), *records.ended()))) == []


def test_each_doubt_is_put_in_words() -> None:
    found = records.full()
    said = warnings(found.run, found.status, found.views, changes(found.views, found.traced))
    assert said == [
        "mixed code: its processes executed different versions of lib.py",
        "its record has gaps",
        "code was changed during the run and took effect: lib.py",
        "4096 bytes of stdout.0 from offset 0 on are missing: the disk was full (attempt 1 on gpu01)",
        "data/train changed during the run: 1 modified (a.csv) (attempt 2 on gpu01)",
        "the agent died and was replaced once; telemetry has a gap, output has none (attempt 2 on gpu01)",
        "processes outlived the tasks and had to be ended: 77 tail -f log (attempt 2 on gpu01)",
    ]


def test_a_record_that_may_lack_anything_is_the_first_thing_said() -> None:
    status = RunStatus(State.FAILED, seal="unsealed")
    run = records.RUN._replace(spec=records.SPEC._replace(in_place=True))
    said = warnings(run, status, {})
    assert said[0] == "its record was never sealed, and may lack anything"
    assert "working tree itself" in said[1]


def test_a_gap_is_told_before_the_seal_too() -> None:
    gap = ("gap", {"stream": "stderr.0", "offset": 10, "size_bytes": 5, "reason": "the disk was full"})
    assert warned(records.view("gpu01", *records.begun(), gap)) == [
        "5 bytes of stderr.0 from offset 10 on are missing: the disk was full"
    ]


def test_gpus_that_others_still_use_are_named() -> None:
    used = ("gpus_still_used", {"gpus": [{"gpu": "GPU-a", "pid": 7, "user": "eve", "command": "python"}]})
    [said] = warned(records.view("gpu01", *records.begun(), used))
    assert said == "its GPUs were still in use when it had ended: pid 7 of eve"


def test_many_changes_are_counted_and_the_first_named() -> None:
    some = {"count": 30, "first": [f"{number}.csv" for number in range(20)]}
    one = {"count": 1, "first": [""]}  # a data path that is a file has no names in it
    words = changed_words({"modified": one, "added": some, "removed": records.NAMES})
    assert words == "1 modified, 30 added (0.csv, 1.csv, 2.csv, 3.csv, 4.csv, ...)"
