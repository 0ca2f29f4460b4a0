"""One run as one screen shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mllaunch.domain import codeuse, provenance
from mllaunch.domain.remarks import warnings
from mllaunch.domain.run import Run, RunStatus
from mllaunch.domain.usage import usage
from mllaunch.ports import BlobStore, RunLog
from mllaunch.usecases.explain import hints
from mllaunch.usecases.provenance import gather

SCHEMA = "mllaunch.show/1"


def document(
    log: RunLog, blobs: BlobStore, run: Run, status: RunStatus, not_told: Sequence[str] = ()
) -> dict[str, Any]:
    """What is known of a run now, shorter than its provenance. Keys may be added, never renamed.

    not_told: the nodes that do not know yet that they are to stop.
    """
    recorded = gather(log, blobs, run, status)
    changes = codeuse.changes(recorded.views, recorded.traced)
    newest = [(node, view) for (number, node), view in recorded.views.items() if number == status.attempt]
    written = [
        line for number, _, line in recorded.files if number == status.attempt and line["kind"] == "file"
    ]
    missing = [entry for view in recorded.views.values() for entry in view["not_captured"]]
    return {
        "schema": SCHEMA,
        "run": provenance.run_part(recorded),
        "waiting": status.waiting,
        "unreachable": status.shown_unreachable,
        "command": provenance.command_part(run),
        "code": provenance.code_part(recorded, changes),
        "image": run.image and {"reference": run.image.reference, "digest": run.image.digest},
        "places": [_place(node, view) for node, view in newest],
        "inputs": [{"path": path} for path in run.spec.data],
        "outputs": {"files": len(written), "size_bytes": sum(line["size_bytes"] or 0 for line in written)}
        if any(view["seal"] for _, view in newest)
        else None,
        "usage": usage(recorded.views),
        "attempts": provenance.attempts_part(run, status, recorded.views),
        "max_retries": run.spec.max_retries,
        "timeout_s": run.spec.timeout_s,
        "stops": stops([view for _, view in newest]),
        "not_told": list(not_told),
        "parent": run.parent and run.parent._asdict(),
        "warnings": warnings(run, status, recorded.views, changes),
        "hints": hints(blobs, log, run, status),
        "not_captured": missing,
        "seal": provenance.seal_part(recorded),
    }


def stops(views: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was asked for, in order of time: each request once, with when the first node heard of it."""
    requests: dict[tuple[Any, ...], dict[str, Any]] = {}
    for view in views:
        heard: dict[tuple[Any, ...], int] = {}
        for stop in view["stops"]:
            kind = (stop["by"], stop["now"])
            heard[kind] = heard.get(kind, 0) + 1
            request = (*kind, heard[kind])
            if stop["at"] < requests.setdefault(request, stop)["at"]:
                requests[request] = stop
    return sorted(requests.values(), key=lambda stop: str(stop["at"]))


def _place(node: str, view: dict[str, Any]) -> dict[str, Any]:
    """Where the newest attempt runs or ran. gpus: those leased, with their names where they are known."""
    names = {gpu.get("uuid"): gpu.get("name") for gpu in (view["host"] or {}).get("gpus") or ()}
    return {
        "node": node,
        "workdir": view["workdir"]["path"] if view["workdir"] else None,
        "method": view["workdir"]["method"] if view["workdir"] else None,
        "gpus": [{"uuid": uuid, "name": names.get(uuid)} for uuid in view["gpus"]],
        "tasks": [
            {
                "rank": int(rank),
                "pid": task["pid"],
                "container": task.get("container"),
                "started_at": task["started_at"],
                "exit_code": task["exit"]["exit_code"] if task["exit"] else None,
                "signal": task["exit"]["signal"] if task["exit"] else None,
                "ended_at": task["exit"]["at"] if task["exit"] else None,
            }
            for rank, task in sorted(view["tasks"].items(), key=lambda item: int(item[0]))
        ],
    }
