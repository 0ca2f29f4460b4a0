"""What is known of one attempt on one node, folded from its events. Pure; docs/protocol.md lists the events.

A view is a JSON document, so that it can be stored and grow without a migration. Its keys:

    node, hostname, boot_id, state, reason, exit_code, started_at, ended_at, last_event_at
    waiting     {wanted, free, holders, ahead, foreign} while it waits for GPUs
    gpus        [uuid]; gpu_indices: their numbers on the node, in the same order
    workdir     {path, method}
    tasks       {rank: {pid, container, output, started_at, exit: ExitRecord | null, out_of_memory}}
    engine      {name, version, image, pulled} of containers
    host, variables, redacted, python, usage
    data        [DATA event fields], data_changes [..], code_changes [..], code_verified [..], code_mixed [..]
    gaps, not_captured, stops, leftovers, gpus_still_used, restarts: lists, in order
    seal        {status, at, streams} once sealed and verified by the collector
"""

from __future__ import annotations

from typing import Any

from mllaunch.domain.state import TRANSITIONS, State
from mllaunch_agent import protocol

View = dict[str, Any]
Event = dict[str, Any]


def empty() -> View:
    return {
        "node": None,
        "hostname": None,
        "boot_id": None,
        "state": State.QUEUED.value,
        "reason": None,
        "exit_code": None,
        "started_at": None,
        "ended_at": None,
        "last_event_at": None,
        "waiting": None,
        "gpus": [],
        "gpu_indices": [],
        "workdir": None,
        "tasks": {},
        "host": None,
        "variables": {},
        "redacted": [],
        "python": None,
        "usage": None,
        "data": [],
        "data_changes": [],
        "engine": None,
        "code_changes": [],
        "code_verified": [],
        "code_mixed": [],
        "gaps": [],
        "not_captured": [],
        "stops": [],
        "leftovers": [],
        "gpus_still_used": [],
        "restarts": [],
        "seal": None,
    }


def fold(view: View, event: Event) -> View:
    """The view after one more event. An event of an unknown kind (a newer agent's) changes nothing but the time."""
    change = _CHANGES.get(event["kind"])
    changed = {**view, "last_event_at": event["at"]}
    return {**changed, **change(view, event)} if change else changed


def _advance(view: View, state: State) -> str:
    """The new state if the table allows it; otherwise the old one: a state never runs backwards."""
    current = State(view["state"])
    return state.value if state in TRANSITIONS[current] else current.value


def _started(view: View, event: Event) -> View:
    return {"node": event["node"], "hostname": event["hostname"], "boot_id": event["boot_id"]}


def _waiting(view: View, event: Event) -> View:
    return {"waiting": _fields(event)}


def _leased(view: View, event: Event) -> View:
    leased = {"gpus": event["gpus"], "gpu_indices": event.get("indices", [])}
    return {**leased, "waiting": None, "state": _advance(view, State.STARTING)}


def _workdir(view: View, event: Event) -> View:
    return {"workdir": _fields(event), "state": _advance(view, State.STARTING)}


def _task_started(view: View, event: Event) -> View:
    task = {"pid": event["pid"], "started_at": event["at"], "exit": None, "out_of_memory": False}
    if event.get("container"):
        task.update(container=event["container"], output=event.get("output"))
    return {
        "tasks": {**view["tasks"], str(event["rank"]): task},
        "started_at": view["started_at"] or event["at"],
        "state": _advance({**view, "state": _advance(view, State.STARTING)}, State.RUNNING),
    }


def _task_exited(view: View, event: Event) -> View:
    record = _fields(event)
    # This event carries the time of the exit record: when the task ended, not when that was noticed.
    record["at"] = event["at"]
    oom = record.pop("out_of_memory", False)
    rank = str(event["rank"])
    task = view["tasks"].get(rank, {"pid": None, "started_at": None})
    return {"tasks": {**view["tasks"], rank: {**task, "exit": record, "out_of_memory": oom}}}


def _stop_requested(view: View, event: Event) -> View:
    return {
        "stops": [*view["stops"], {"by": event["by"], "at": event["at"], "now": event["now"]}],
        "state": _advance(view, State.STOPPING),
    }


def _timed_out(view: View, event: Event) -> View:
    return {"state": _advance(view, State.STOPPING)}


def _ended(view: View, event: Event) -> View:
    return {
        "state": event["state"],
        "exit_code": event["exit_code"],
        "reason": event["reason"],
        "ended_at": event["at"],
        "waiting": None,
    }


def _host(view: View, event: Event) -> View:
    return {"host": event["facts"], "variables": event["variables"], "redacted": event["redacted"]}


def _python(view: View, event: Event) -> View:
    return {"python": event["facts"]}


def _usage(view: View, event: Event) -> View:
    return {"usage": _fields(event)}


def _appends(key: str) -> Any:
    def change(view: View, event: Event) -> View:
        # A view that an earlier version has stored lacks what that one did not know of.
        return {key: [*view.get(key, ()), {**_fields(event), "at": event["at"]}]}

    return change


def _engine(view: View, event: Event) -> View:
    return {"engine": _fields(event)}


def _fields(event: Event) -> dict[str, Any]:
    return {k: v for k, v in event.items() if k not in ("seq", "at", "boot_s", "kind")}


_CHANGES = {
    protocol.ATTEMPT_STARTED: _started,
    protocol.WAITING: _waiting,
    protocol.GPUS_LEASED: _leased,
    protocol.WORKDIR_READY: _workdir,
    protocol.TASK_STARTED: _task_started,
    protocol.TASK_EXITED: _task_exited,
    protocol.STOP_REQUESTED: _stop_requested,
    protocol.TIMED_OUT: _timed_out,
    protocol.ATTEMPT_ENDED: _ended,
    protocol.HOST: _host,
    protocol.PYTHON: _python,
    protocol.USAGE: _usage,
    protocol.DATA: _appends("data"),
    protocol.DATA_CHANGED: _appends("data_changes"),
    protocol.CODE_CHANGED: _appends("code_changes"),
    protocol.CODE_VERIFIED: _appends("code_verified"),
    protocol.CODE_MIXED: _appends("code_mixed"),
    protocol.ENGINE: _engine,
    protocol.GAP: _appends("gaps"),
    protocol.NOT_CAPTURED: _appends("not_captured"),
    protocol.LEFTOVERS: _appends("leftovers"),
    protocol.GPUS_STILL_USED: _appends("gpus_still_used"),
    protocol.RESTARTED: _appends("restarts"),
}


def damaged(view: View, stream: str, offset: int, size_bytes: int) -> View:
    """The view after finding bytes in a stream that are not what the agent wrote."""
    gap = {"stream": stream, "offset": offset, "size_bytes": size_bytes, "reason": "damaged"}
    return {**view, "gaps": [*view["gaps"], gap]}
