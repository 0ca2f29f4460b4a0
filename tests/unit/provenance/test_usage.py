"""Totals over nodes and attempts: sums where things add up, and never a guess."""

from __future__ import annotations

from typing import Any

from mllaunch.domain.usage import usage

from . import records


def used(**amounts: Any) -> dict[str, Any]:
    return {**records.view("n"), "usage": {**records.USAGE, **amounts}}


def test_nodes_work_at_once_and_attempts_one_after_the_other() -> None:
    found = usage(
        {
            (1, "a"): used(wall_s=10.0, cpu_s=1.0, max_rss_bytes=5, read_bytes=1),
            (1, "b"): used(wall_s=12.0, cpu_s=2.0, max_rss_bytes=6, read_bytes=2),
            (2, "a"): used(wall_s=7.0, cpu_s=4.0, max_rss_bytes=8, read_bytes=4),
        }
    )
    assert found is not None
    assert (found["wall_s"], found["cpu_s"], found["max_rss_bytes"], found["read_bytes"]) == (
        19.0,
        7.0,
        11,
        7,
    )
    assert [(e["node"], e["attempt"], e["cpu_s"]) for e in found["per_node"]] == [
        ("a", 1, 1.0),
        ("b", 1, 2.0),
        ("a", 2, 4.0),
    ]


def test_a_total_with_an_unknown_part_is_unknown() -> None:
    found = usage({(1, "a"): used(read_bytes=None), (1, "b"): used()})
    assert found is not None
    assert found["read_bytes"] is None
    assert found["cpu_s"] == 200.5


def test_nothing_known_is_null_and_not_zero() -> None:
    assert usage({}) is None
    assert usage({(1, "a"): records.view("a")}) is None


def test_gpus_of_several_nodes_count_by_the_time_they_were_used() -> None:
    def gpu(share: float | None) -> dict[str, Any]:
        return {"mean_utilisation": share, "max_memory_bytes": 10, "energy_j": 5.0}

    found = usage({(1, "a"): used(wall_s=30.0, gpu=gpu(1.0)), (1, "b"): used(wall_s=10.0, gpu=gpu(0.0))})
    assert found is not None
    assert found["gpu"] == {"mean_utilisation": 0.75, "max_memory_bytes": 20, "energy_j": 10.0}
    without = usage({(1, "a"): used(gpu=gpu(None)), (1, "b"): used(gpu=None)})
    assert without is not None
    assert without["gpu"] == {"mean_utilisation": None, "max_memory_bytes": 10, "energy_j": 5.0}


def test_an_exit_record_may_know_of_more_than_was_sampled() -> None:
    view = records.view("n", *records.begun(), *records.ended())
    found = usage({(1, "n"): {**view, "usage": {**records.USAGE, "cpu_s": 1.0, "max_rss_bytes": None}}})
    assert found is not None
    assert found["cpu_s"] == 90.0
    assert found["max_rss_bytes"] == 1 << 30
