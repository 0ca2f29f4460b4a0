"""Which code a run really executed: compared with the commit, and what was changed in mid-run; pure.

Code is a matter of processes, not of runs: a process that has loaded a file keeps that version, whatever becomes of
the file. So a change is *in use* only if some process took code from the file when it held just that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from mllaunch.domain.usage import Views

__all__ = ["NO", "UNKNOWN", "YES", "Change", "Edit", "changes", "live", "mixed", "nodes", "outside"]

Line = tuple[int, str, dict[str, Any]]

YES, NO, UNKNOWN = "yes", "no", "unknown"


class Change(NamedTuple):
    """One file of the code that became another in mid-run. before, after: git's ids; None where there was or is none.

    live_at: when a process first took code from it; None while none has. seen: False for one that nobody noticed on the
    disk, and that only a process's use of it tells.
    """

    at: str
    attempt: int
    node: str
    rank: int | None
    path: str
    before: str | None
    after: str | None
    in_use: str
    live_at: str | None = None
    seen: bool = True


class Edit(NamedTuple):
    """One change of one file, with its content. content: None if it was gone. message: what a person should know."""

    path: str
    content: bytes | None
    is_live: bool
    message: str


def nodes(views: Views) -> list[dict[str, Any]]:
    """[{node, attempt, rank, matches_commit, files, differing, at}]: the checkouts, as compared at the start."""
    return [
        {
            "node": node,
            "attempt": number,
            "rank": found.get("rank"),
            "matches_commit": found["matches"],
            "files": found["files"],
            "differing": list(found["differing"]),
            "at": found["at"],
        }
        for (number, node), view in views.items()
        for found in view.get("code_verified", ())
    ]


def changes(views: Views, traced: Iterable[Line]) -> list[Change]:
    """Every change of every attempt and node, in the order of time."""
    uses: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for number, node, line in traced:
        if line.get("record") == "code":
            uses.setdefault((number, node), []).append(line)
    found = [c for key, view in views.items() for c in _of_node(*key, view, uses.get(key, []))]
    return sorted(found, key=lambda change: (change.at, change.path))


def _of_node(number: int, node: str, view: Mapping[str, Any], uses: list[dict[str, Any]]) -> Iterator[Change]:
    noticed = view.get("code_changes", ())
    for change in noticed:
        yield Change(
            change["at"],
            number,
            node,
            change.get("rank"),
            change["path"],
            change["before"],
            change["after"],
            _in_use(change, uses, view),
            _live_at(change, uses),
        )
    known = {(change["path"], change["after"]) for change in noticed}
    last: dict[str, Any] = {}
    for use in uses:
        path, blob = use["path"], use.get("blob")
        if blob is None or path.startswith("/") or (path, blob) in known:
            continue
        if blob != use.get("committed"):
            before = last.get(path, use.get("committed"))
            known.add((path, blob))
            at, rank = use["at"], use.get("rank")
            yield Change(at, number, node, rank, path, before, blob, YES, at, seen=False)
        last[path] = blob


def _in_use(change: Mapping[str, Any], uses: list[dict[str, Any]], view: Mapping[str, Any]) -> str:
    of_path = [use for use in uses if use["path"] == change["path"]]
    if change["after"] is not None and any(use.get("blob") == change["after"] for use in of_path):
        return YES
    # Python files tell when they are compiled, settings when they are read; of the rest nothing is known.
    is_followed = change["path"].endswith(".py") or any(use.get("how") == "read" for use in of_path)
    return NO if is_followed and _is_covered(view) else UNKNOWN


def _live_at(change: Mapping[str, Any], uses: list[dict[str, Any]]) -> str | None:
    times = [use["at"] for use in uses if (use["path"], use.get("blob")) == (change["path"], change["after"])]
    return min(times, default=None)


def _is_covered(view: Mapping[str, Any]) -> bool:
    """Whether every Python process of the tasks told which code it took, as far as is known."""
    return not any(entry["what"].startswith("code,") for entry in view["not_captured"])


def mixed(views: Views) -> list[dict[str, Any]]:
    """[{path, attempt, node, versions: [{blob, by, processes}]}]: files of which processes had different versions."""
    newest: dict[tuple[int, str, str], dict[str, Any]] = {}
    for (number, node), view in views.items():
        for found in view.get("code_mixed", ()):
            entry = {"path": found["path"], "attempt": number, "node": node, "versions": found["versions"]}
            newest[number, node, found["path"]] = entry
    return list(newest.values())


def outside(traced: Iterable[Line]) -> list[dict[str, Any]]:
    """[{path, blob, how, attempt, node}]: code that was executed and lies outside of the checkout."""
    found: dict[tuple[str, Any], dict[str, Any]] = {}
    for number, node, line in traced:
        if line.get("record") == "code" and line["path"].startswith("/") and line.get("how") != "read":
            entry = {name: line.get(name) for name in ("path", "blob", "how")}
            found.setdefault((line["path"], line.get("blob")), {**entry, "attempt": number, "node": node})
    return list(found.values())


def live(
    tree: str, found: Iterable[Change], trees: Mapping[tuple[str, str], str], until: str | None
) -> list[str]:
    """Every tree that was live up to a time (None: the end), the commit's first.

    trees: what the tree became by a change that was in use, by (at, path) of the change.
    """
    result = [tree]
    in_use = [(_moment(change.live_at), change) for change in found if change.live_at is not None]
    for moment, change in sorted(in_use, key=lambda entry: entry[0]):
        if until is None or moment <= _moment(until):
            changed = trees.get((change.at, change.path))
            if changed and changed not in result:
                result.append(changed)
    return result


def _moment(at: str) -> str:
    """A time in a form that sorts as time does, however many decimals it has."""
    whole, _, decimals = at.removesuffix("Z").partition(".")
    return f"{whole}.{decimals.rstrip('0')}"
