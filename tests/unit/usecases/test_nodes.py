from __future__ import annotations

from typing import Any

import pytest

from mllaunch.config.values import NodeAddress
from mllaunch.errors import NotPermitted, Unreachable
from mllaunch.usecases.nodes import Asked, causes, entry

A = NodeAddress("a", groups=("lab",), labels=(("gpu", "h100"),))
SEEN = "2026-01-01T00:00:00Z"


def gpu(number: int) -> dict[str, Any]:
    return {"index": number, "uuid": f"GPU-{number}", "name": "H100", "memory_bytes": 80 << 30, "power_w": 9}


def asked(at_s: float = 100.0, engine: dict[str, Any] | None = None, **offer: Any) -> Asked:
    hello = {
        "protocol": 9,
        "version": "1.2.3",
        "python": "3.8.10",
        "hostname": "alpha.example",
        "boot_id": "b00t",
        "at_s": at_s,
        "home": "/home/ann/.local/share/mllaunch/node/a",
        "import_path": [],
    }
    offered = {
        "gpus": [gpu(0), gpu(1), gpu(2)],
        "free": ["GPU-2"],
        "holders": [],
        "strangers": [],
        "waiting": [],
        "driver": "550.1",
        "problems": [],
        "cpus": 64,
        "memory_bytes": 1 << 39,
        "free_memory_bytes": 1 << 38,
        "load": 1.5,
    }
    return Asked(
        hello,
        {**offered, **offer},
        engine or {"version": {"Version": "27.0"}, "problem": None},
        sent_s=100.0,
        came_s=100.2,
    )


def test_a_node_that_answers_is_up_with_what_it_has() -> None:
    found = entry(A, "alpha", asked(), SEEN)
    assert (found["name"], found["host"], found["last_seen"]) == ("a", "alpha", SEEN)
    assert (found["state"], found["code"], found["problem"]) == ("up", None, None)
    assert (found["hostname"], found["boot_id"]) == ("alpha.example", "b00t")
    assert (len(found["gpus"]), found["gpus_free"], found["driver"]) == (3, 1, "550.1")
    assert (found["cpus"], found["load"]) == (64, 1.5)
    assert (found["memory_bytes"], found["free_memory_bytes"]) == (1 << 39, 1 << 38)
    assert found["docker"] == {"version": "27.0", "problem": None}
    assert found["agent"] == {"version": "1.2.3", "python": "3.8.10"}
    assert found["gpus"][0] == {
        "index": 0,
        "uuid": "GPU-0",
        "name": "H100",
        "memory_bytes": 80 << 30,
        "held_by": None,
        "used_by": [],
    }


@pytest.mark.parametrize("seen", [SEEN, None])
def test_a_node_that_does_not_answer_is_unreachable_with_why_and_when_it_was_seen(seen: str | None) -> None:
    error = Unreachable("unreachable", "a cannot be reached", hint="ssh a true")
    assert entry(A, None, error, seen) == {
        "name": "a",
        "host": "a",
        "groups": ["lab"],
        "labels": {"gpu": "h100"},
        "last_seen": seen,
        "state": "unreachable",
        "code": "unreachable",
        "problem": {"code": "unreachable", "message": "a cannot be reached", "hint": "ssh a true"},
    }


def test_a_node_that_lets_nobody_in_says_so() -> None:
    found = entry(A, "alpha", NotPermitted("ssh_login", "a lets nobody in"), None)
    assert (found["state"], found["code"]) == ("unreachable", "ssh_login")
    assert found["problem"] == {"code": "ssh_login", "message": "a lets nobody in", "hint": None}


@pytest.mark.parametrize(("at_s", "offset_s"), [(100.1, 0.0), (160.1, 60.0), (99.6, -0.5), (100.1004, 0.0)])
def test_the_clocks_are_compared_as_if_the_question_had_been_read_halfway(
    at_s: float, offset_s: float
) -> None:
    assert entry(A, None, asked(at_s), SEEN)["clock_offset_s"] == offset_s


def test_who_holds_a_gpu_and_who_uses_it_unasked_are_told_apart() -> None:
    holder = {"gpu": "GPU-0", "run": "brave-otter-1", "run_id": "01", "user": "ann", "pid": 7}
    strangers = [
        {"gpu": "GPU-1", "pid": 8, "user": "bob", "command": "python x.py", "memory_bytes": 1},
        {"gpu": "GPU-1", "pid": 9, "user": None, "command": None, "memory_bytes": 1},
    ]
    held, used, free = entry(A, None, asked(holders=[holder], strangers=strangers), SEEN)["gpus"]
    assert (held["held_by"], held["used_by"]) == ({"run": "brave-otter-1", "user": "ann"}, [])
    assert used["held_by"] is None
    assert used["used_by"] == [
        {"pid": 8, "user": "bob", "command": "python x.py"},
        {"pid": 9, "user": None, "command": None},
    ]
    assert (free["held_by"], free["used_by"]) == (None, [])


def test_who_waits_is_told_in_order_even_if_little_is_known() -> None:
    waiting = [{"run": "calm-fox-2", "user": "bob", "wanted": 2}, {"wanted": 1}]
    found = entry(A, None, asked(waiting=waiting), SEEN)
    assert found["waiting"] == [{"run": "calm-fox-2", "user": "bob"}, {"run": None, "user": None}]


def test_a_node_without_gpus_or_engine_is_up_and_says_why() -> None:
    problem = {"what": "gpu", "why": "no driver"}
    answer = asked(
        engine={"version": None, "problem": "none answers"}, gpus=[], free=[], driver=None, problems=[problem]
    )
    found = entry(A, None, answer, SEEN)
    assert (found["state"], found["gpus"], found["gpus_free"]) == ("up", [], 0)
    assert found["gpu_problems"] == [problem]
    assert found["docker"] == {"version": None, "problem": "none answers"}


def dead(name: str, host: str | None = None, said: str = "it does not answer") -> dict[str, Any]:
    where = f" ({host})" if host else ""
    error = Unreachable(
        "unreachable", f"{name}{where} cannot be reached: {said}", hint=f"ssh {host or name} true"
    )
    return entry(NodeAddress(name), host, error, None)


def test_a_cause_that_many_nodes_share_is_told_once() -> None:
    entries = [dead(f"gpu{n}", f"10.0.0.{n}") for n in range(1, 101)]
    entries.insert(1, entry(A, None, asked(), SEEN))
    entries.insert(5, dead("x", said="no route to host"))
    first, second = causes(entries)
    assert first.names == [f"gpu{n}" for n in range(1, 101)]
    assert first.message == "gpu1 (10.0.0.1) cannot be reached: it does not answer"
    assert first.hint == "ssh 10.0.0.1 true"
    assert second == (["x"], "x cannot be reached: no route to host", "ssh x true")


def test_a_node_whose_name_is_a_word_of_the_message_or_a_part_of_one_shares_a_cause_too() -> None:
    assert len(causes([dead("gpu1"), dead("gpu10"), dead("e"), dead("it", "10.0.0.1")])) == 2
    assert causes([entry(A, None, asked(), SEEN)]) == []
