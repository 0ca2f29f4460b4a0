"""What can be said of the nodes of the configuration; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mllaunch.domain.causes import Cause, Problem, together
from mllaunch.domain.placement import Known
from mllaunch.errors import MllaunchError


class Asked(NamedTuple):
    """What a node answered, and when that was sent and came back: Unix seconds of this machine."""

    hello: dict[str, Any]
    offer: dict[str, Any]
    engine: dict[str, Any]
    sent_s: float
    came_s: float


def entry(
    node: Known, host: str | None, answer: Asked | MllaunchError, last_seen: str | None
) -> dict[str, Any]:
    """One node of `nodes --json`. last_seen: when it answered last, RFC 3339; None: never.

    ``code`` says what the table does of the state of one that is not up: what keeps it from being used.
    """
    known: dict[str, Any] = {
        "name": node.name,
        "host": host or node.name,
        "groups": list(node.groups),
        "labels": dict(node.labels),
        "last_seen": last_seen,
    }
    if isinstance(answer, MllaunchError):
        problem = {"code": answer.code, "message": answer.message, "hint": answer.hint}
        return {**known, "state": "unreachable", "code": answer.code, "problem": problem}
    hello, offer = answer.hello, answer.offer
    return {
        **known,
        "state": "up",
        "code": None,
        "problem": None,
        "hostname": hello["hostname"],
        "boot_id": hello["boot_id"],
        "gpus": [_gpu(gpu, offer) for gpu in offer["gpus"]],
        "gpus_free": len(offer["free"]),
        "gpu_problems": offer["problems"],
        "waiting": [_who(waiter) for waiter in offer["waiting"]],
        "driver": offer["driver"],
        "cpus": offer["cpus"],
        "load": offer["load"],
        "memory_bytes": offer["memory_bytes"],
        "free_memory_bytes": offer["free_memory_bytes"],
        "docker": _engine(answer.engine),
        # As if the question had been read halfway between.
        "clock_offset_s": round(hello["at_s"] - (answer.sent_s + answer.came_s) / 2, 3),
        "agent": {"version": hello["version"], "python": hello["python"]},
    }


def _engine(found: dict[str, Any]) -> dict[str, Any]:
    return {"version": found["version"] and found["version"].get("Version"), "problem": found["problem"]}


def causes(entries: Sequence[dict[str, Any]]) -> list[Cause]:
    """What keeps nodes from being used, each cause once, in the order of the nodes."""
    return together(
        Problem(entry["name"], entry["host"], entry["problem"]["message"], entry["problem"]["hint"])
        for entry in entries
        if entry["problem"] is not None
    )


def _gpu(gpu: dict[str, Any], offer: dict[str, Any]) -> dict[str, Any]:
    holder = next((h for h in offer["holders"] if h["gpu"] == gpu["uuid"]), None)
    strangers = [s for s in offer["strangers"] if s["gpu"] == gpu["uuid"]]
    return {
        **{key: gpu[key] for key in ("index", "uuid", "name", "memory_bytes")},
        "held_by": holder and _who(holder),
        "used_by": [{"pid": s["pid"], "user": s["user"], "command": s["command"]} for s in strangers],
    }


def _who(holder: dict[str, Any]) -> dict[str, Any]:
    return {key: holder.get(key) for key in ("run", "user")}
