"""Which code a run really executed: what was changed in mid-run counts only where a process took code from it."""

from __future__ import annotations

from typing import Any

import pytest

from mllaunch.domain import codeuse
from mllaunch.domain.codeuse import NO, UNKNOWN, YES, Change, changes, live, mixed, nodes, outside

from . import records

OLD, NEW, NEWER = "1" * 40, "2" * 40, "3" * 40


def at(second: int) -> str:
    return f"2026-11-21T09:05:{second:02d}Z"


def edited(second: int = 6, path: str = "lib.py", after: str | None = NEW, **fields: Any) -> dict[str, Any]:
    """What the agent noticed on the disk."""
    return {"rank": None, "path": path, "before": OLD, "after": after, "at": at(second), **fields}


def view(*changed: dict[str, Any], missing: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    gaps = [("not_captured", {"what": what, "why": "so"}) for what in missing]
    return {**records.view("gpu01", *gaps), "code_changes": list(changed), **fields}


def took(
    second: int, blob: str | None, path: str = "lib.py", number: int = 1, node: str = "gpu01", **fields: Any
) -> tuple[int, str, dict[str, Any]]:
    """A process took code from a file."""
    line = {"record": "code", "at": at(second), "path": path, "blob": blob, "committed": OLD, "how": "source"}
    return number, node, {**line, "rank": 0, "pid": 10, **fields}


def in_use(view: dict[str, Any], *uses: tuple[int, str, dict[str, Any]]) -> list[str]:
    return [change.in_use for change in changes({(1, "gpu01"): view}, uses)]


def test_a_change_is_in_use_once_a_process_takes_code_from_just_that() -> None:
    [change] = changes({(1, "gpu01"): view(edited(6))}, [took(1, OLD), took(9, NEW), took(8, NEW)])
    assert change == Change(at(6), 1, "gpu01", None, "lib.py", OLD, NEW, YES, at(8))
    assert change.seen


def test_a_change_that_nobody_took_code_from_is_not_in_use_if_everything_told() -> None:
    assert in_use(view(edited()), took(1, OLD)) == [NO]
    assert in_use(view(edited()), took(1, OLD), took(9, NEWER))[0] == NO  # an even newer one was
    assert in_use(view(edited(after=None)), took(1, OLD)) == [NO]  # it was removed


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("code, inputs and outputs: of programs that are not Python", UNKNOWN),
        ("energy", NO),
        ("code.nodes: who knows", NO),
    ],
)
def test_whether_it_is_in_use_is_unknown_where_processes_did_not_tell(what: str, expected: str) -> None:
    assert in_use(view(edited(), missing=(what,)), took(1, OLD)) == [expected]
    assert in_use(view(edited(), missing=(what,)), took(9, NEW)) == [YES]


def test_of_what_is_no_python_only_settings_that_were_read_are_followed() -> None:
    assert in_use(view(edited(path="train.sh"))) == [UNKNOWN]
    assert in_use(view(edited(path="conf.yaml"))) == [UNKNOWN]
    assert in_use(view(edited(path="conf.yaml")), took(1, OLD, "conf.yaml", how="read")) == [NO]
    assert in_use(view(edited(path="conf.yaml")), took(9, NEW, "conf.yaml", how="read")) == [YES]


def test_a_change_that_only_its_use_tells_is_a_change_that_was_not_seen() -> None:
    found = changes(
        {(1, "gpu01"): view()}, [took(1, OLD), took(3, NEW), took(4, NEW), took(5, NEWER, rank=2)]
    )
    assert found == [
        Change(at(3), 1, "gpu01", 0, "lib.py", OLD, NEW, YES, at(3), seen=False),
        Change(at(5), 1, "gpu01", 2, "lib.py", NEW, NEWER, YES, at(5), seen=False),
    ]


def test_what_was_noticed_on_the_disk_is_not_told_again_by_its_use() -> None:
    found = changes({(1, "gpu01"): view(edited(6))}, [took(5, NEW), took(7, NEWER)])
    assert [(change.after, change.seen) for change in found] == [(NEW, True), (NEWER, False)]
    assert found[0].live_at == at(5)  # taken in the second before it was noticed


def test_code_without_content_and_code_from_elsewhere_are_no_changes() -> None:
    assert changes({(1, "gpu01"): view()}, [took(1, None), took(2, NEW, "/opt/tool.py")]) == []


def test_a_file_that_the_commit_has_not_is_a_change_from_nothing() -> None:
    [change] = changes({(1, "gpu01"): view()}, [took(1, NEW, "made.py", committed=None)])
    assert (change.before, change.after, change.in_use) == (None, NEW, YES)


def test_attempts_and_nodes_are_told_apart() -> None:
    views = {(1, "a"): view(edited(6)), (1, "b"): view(edited(7)), (2, "a"): view(edited(8))}
    found = changes(views, [took(9, NEW, node="b"), took(5, NEW, number=2, node="a")])
    assert [(change.attempt, change.node, change.in_use) for change in found] == [
        (1, "a", NO),
        (1, "b", YES),
        (2, "a", YES),
    ]


def test_changes_come_in_the_order_of_time() -> None:
    found = changes(
        {(1, "a"): view(edited(9), edited(3, "b.py")), (1, "b"): view(edited(3, "a.py"), edited(6))}, []
    )
    assert [(change.at, change.path) for change in found] == [
        (at(3), "a.py"),
        (at(3), "b.py"),
        (at(6), "lib.py"),
        (at(9), "lib.py"),
    ]


# --- live -----------------------------------------------------------------------------------------------------------

COMMIT, FIRST, SECOND = "7" * 40, "8" * 40, "9" * 40


def change(second: int, live_at: int | None, path: str = "lib.py") -> Change:
    state = YES if live_at is not None else NO
    when = at(live_at) if live_at is not None else None
    return Change(at(second), 1, "gpu01", None, path, OLD, NEW, state, when)


def test_trees_are_live_from_when_a_process_took_code_from_the_change() -> None:
    found = [change(2, 4), change(3, 9, "b.py")]
    trees = {(at(2), "lib.py"): FIRST, (at(3), "b.py"): SECOND}
    assert live(COMMIT, found, trees, at(3)) == [COMMIT]
    assert live(COMMIT, found, trees, at(4)) == [COMMIT, FIRST]
    assert live(COMMIT, found, trees, at(9)) == [COMMIT, FIRST, SECOND]
    assert live(COMMIT, found, trees, None) == [COMMIT, FIRST, SECOND]


def test_a_change_that_was_not_in_use_or_has_no_content_makes_no_tree_live() -> None:
    assert live(COMMIT, [change(2, None)], {(at(2), "lib.py"): FIRST}, None) == [COMMIT]
    assert live(COMMIT, [change(2, 3)], {}, None) == [COMMIT]


def test_a_tree_is_named_once() -> None:
    found = [change(2, 3), change(4, 5)]
    assert live(COMMIT, found, {(at(2), "lib.py"): FIRST, (at(4), "lib.py"): FIRST}, None) == [COMMIT, FIRST]


def test_times_are_compared_as_times_whatever_their_decimals() -> None:
    """A file's mtime has six decimals, an event's three, and text sorts "05.5Z" before "05Z"."""
    found = [change(5, 5)._replace(live_at="2026-11-21T09:05:05.500Z")]
    trees = {(at(5), "lib.py"): FIRST}
    assert live(COMMIT, found, trees, "2026-11-21T09:05:05.500000Z") == [COMMIT, FIRST]
    assert live(COMMIT, found, trees, "2026-11-21T09:05:05Z") == [COMMIT]
    assert live(COMMIT, found, trees, "2026-11-21T09:05:05.500001Z") == [COMMIT, FIRST]


# --- mixed, nodes, outside ------------------------------------------------------------------------------------------


def test_of_mixed_code_the_newest_word_of_each_node_counts() -> None:
    def said(second: int, path: str, count: int) -> dict[str, Any]:
        versions = [{"blob": str(n) * 40, "by": [], "processes": 1} for n in range(count)]
        return {"path": path, "versions": versions, "at": at(second)}

    views = {
        (1, "a"): view(code_mixed=[said(1, "lib.py", 2), said(2, "b.py", 2), said(3, "lib.py", 3)]),
        (1, "b"): view(code_mixed=[said(1, "lib.py", 2)]),
        (2, "a"): view(),
    }
    found = [(m["path"], m["attempt"], m["node"], len(m["versions"])) for m in mixed(views)]
    assert found == [("lib.py", 1, "a", 3), ("b.py", 1, "a", 2), ("lib.py", 1, "b", 2)]


def test_each_checkout_of_each_attempt_was_compared() -> None:
    verified = {"rank": 1, "matches": False, "files": 3, "differing": ["a.py"], "at": at(1)}
    views = {(1, "a"): view(code_verified=[verified]), (2, "b"): view()}
    [found] = nodes(views)
    assert found == {
        "node": "a",
        "attempt": 1,
        "rank": 1,
        "matches_commit": False,
        "files": 3,
        "differing": ["a.py"],
        "at": at(1),
    }


def test_code_outside_of_the_checkout_is_listed_once_for_each_version() -> None:
    found = outside(
        [
            took(1, NEW, "/opt/a.py"),
            took(2, NEW, "/opt/a.py", node="gpu02"),
            took(3, NEWER, "/opt/a.py"),
            took(4, NEW, "/etc/a.yaml", how="read"),
            took(5, NEW, "a.py"),
            (1, "gpu01", {"record": "input", "path": "/x"}),
        ]
    )
    assert [(entry["path"], entry["blob"], entry["node"]) for entry in found] == [
        ("/opt/a.py", NEW, "gpu01"),
        ("/opt/a.py", NEWER, "gpu01"),
    ]


def test_records_from_before_code_was_followed_have_no_changes() -> None:
    assert (changes({(1, "a"): {"not_captured": []}}, []), codeuse.nodes({(1, "a"): {}})) == ([], [])
