from __future__ import annotations

from typing import Any

from mllaunch.usecases.show import stops


def asked(second: int, *, by: str = "ann", now: bool = False) -> dict[str, Any]:
    return {"by": by, "at": f"2026-11-21T09:00:{second:02}.000Z", "now": now}


def test_a_request_that_several_nodes_heard_is_one_and_all_are_in_order_of_time() -> None:
    views = [
        {"stops": [asked(3), asked(9, now=True)]},
        {"stops": [asked(1), asked(4, by="bob"), asked(8, now=True)]},
        {"stops": []},
        {"stops": [asked(2)]},
    ]
    assert stops(views) == [asked(1), asked(4, by="bob"), asked(8, now=True)]


def test_who_asks_twice_has_asked_twice() -> None:
    assert stops([{"stops": [asked(1), asked(5)]}, {"stops": [asked(2), asked(6)]}]) == [asked(1), asked(5)]
