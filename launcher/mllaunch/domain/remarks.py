"""What a person should know about a run besides how it ended: everything that makes its record or result doubtful."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mllaunch.domain.codeuse import NO, UNKNOWN, YES, Change, mixed
from mllaunch.domain.run import Run, RunStatus
from mllaunch.domain.usage import Views

_NAMED = 5


def warnings(run: Run, status: RunStatus, views: Views, changes: Sequence[Change] = ()) -> list[str]:
    """In words, the most serious first; none for a run of which all is well."""
    several = len(views) > 1
    found = [*mixed_code(views), *_of_record(status), *changed_code(changes)]
    if run.spec.in_place:
        found.append("it worked in the working tree itself, so edits made meanwhile may have reached it")
    for (number, node), view in views.items():
        where = f" (attempt {number} on {node})" if several else ""
        found += [
            text + where
            for text in (
                *differing_code(view),
                *_changed(view),
                *_gaps(view),
                *_restarts(view),
                *_processes(view),
            )
        ]
    return found


def _of_record(status: RunStatus) -> list[str]:
    if status.shown_seal == "unsealed":
        return ["its record was never sealed, and may lack anything"]
    return ["its record has gaps"] if status.seal == "sealed-with-gaps" else []


def mixed_code(views: Views) -> list[str]:
    """Loud: such a run is not the work of any one version of the code."""
    paths = list(dict.fromkeys(entry["path"] for entry in mixed(views)))
    if not paths:
        return []
    return [f"mixed code: its processes executed different versions of {_names(paths)}"]


def changed_code(changes: Sequence[Change]) -> list[str]:
    """What was edited in mid-run, by whether it took effect."""
    found = []
    words = {
        YES: "and took effect",
        NO: "and was not loaded afterwards",
        UNKNOWN: "and may have taken effect",
    }
    for in_use, effect in words.items():
        paths = list(dict.fromkeys(change.path for change in changes if change.in_use == in_use))
        if paths:
            found.append(f"code was changed during the run {effect}: {_names(paths)}")
    return found


def _names(paths: Sequence[str]) -> str:
    return ", ".join(paths[:_NAMED]) + (f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else "")


def differing_code(view: dict[str, Any]) -> list[str]:
    """At the start it was not what was committed."""
    paths = [path for found in view.get("code_verified", ()) for path in found["differing"]]
    return [f"when it was first looked at, its code was not the commit's: {_names(paths)}"] if paths else []


def _changed(view: dict[str, Any]) -> list[str]:
    return [
        f"{change['path']} changed during the run: {changed_words(change)}" for change in view["data_changes"]
    ]


def changed_words(change: dict[str, Any]) -> str:
    """``2 modified (a.csv, b.csv), 1 added (c.csv)``"""
    parts = []
    for kind in ("modified", "added", "removed"):
        names = change[kind]
        if names["count"]:
            shown = [name for name in names["first"][:_NAMED] if name]
            more = ", ..." if names["count"] > len(shown) and shown else ""
            parts.append(f"{names['count']} {kind}" + (f" ({', '.join(shown)}{more})" if shown else ""))
    return ", ".join(parts)


def _gaps(view: dict[str, Any]) -> list[str]:
    streams = (view["seal"] or {}).get("streams")
    if streams is None:
        gaps = [(gap["stream"], gap) for gap in view["gaps"]]
    else:
        gaps = [(name, gap) for name, stream in streams.items() for gap in stream["gaps"]]
    return [
        f"{gap['size_bytes']} bytes of {name} from offset {gap['offset']} on are missing: {gap['reason']}"
        for name, gap in gaps
    ]


def _restarts(view: dict[str, Any]) -> list[str]:
    count = len(view["restarts"])
    if not count:
        return []
    times = "once" if count == 1 else f"{count} times"
    return [f"the agent died and was replaced {times}; telemetry has a gap, output has none"]


def _processes(view: dict[str, Any]) -> list[str]:
    """What outlived the tasks."""
    found = []
    for left in view["leftovers"]:
        names = [f"{process['pid']} {process['command']}"[:60] for process in left["processes"][:_NAMED]]
        more = ", ..." if len(left["processes"]) > len(names) else ""
        found.append(f"processes outlived the tasks and had to be ended: {', '.join(names)}{more}")
    for used in view.get("gpus_still_used", []):
        names = [
            f"pid {user.get('pid') or '?'} of {user.get('user') or '?'}" for user in used["gpus"][:_NAMED]
        ]
        found.append(f"its GPUs were still in use when it had ended: {', '.join(names)}")
    return found
