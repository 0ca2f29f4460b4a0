"""Where a run stands, from the views of its attempts; pure."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mllaunch.domain import view as folding
from mllaunch.domain.run import FOLDER_LOST, NODE_LOST, RunStatus
from mllaunch.domain.state import Reason, State
from mllaunch_agent.protocol import PEER_FAILED


def run_status(
    max_retries: int,
    views: dict[tuple[int, str], dict[str, Any]],
    count: int = 1,
    lost: Mapping[str, str] = MappingProxyType({}),
) -> RunStatus:
    """The run's status after the newest attempt. views: by (attempt, node). count: how many nodes each attempt is on;
    while some were never heard of, nothing is final. lost: nodes that count as lost, with since when they are silent;
    of views and these there is at least one.

    While retries are left, an attempt that failed and may go otherwise leaves the run queued for the next.
    """
    number = max((attempt for attempt, _ in views), default=1)
    given_up = _given_up(lost, views, number)
    views = {**views, **given_up}
    nodes = [view for (attempt, _), view in sorted(views.items()) if attempt == number]
    first = min((view["started_at"] for view in views.values() if view["started_at"]), default=None)
    view = _representative(nodes)
    if len(nodes) < count and State(view["state"]).is_final:
        view = {**view, "state": State.RUNNING.value, "reason": None, "exit_code": None}
    state = State(view["state"])
    reason = Reason(**view["reason"]) if view["reason"] else None
    unsure = given_up or any(v["reason"] and v["reason"]["code"] == FOLDER_LOST for v in nodes)
    if unsure and reason is not None:
        reason = reason._replace(retryable=False)  # what is not known to be dead may still write
    if wants_retry(max_retries, number, state, reason):
        tasks = sum(len(view["tasks"]) for view in nodes)
        waiting = f"attempt {number + 1} follows: attempt {number} {reason.words(tasks)}" if reason else None
        mixed = any(view.get("code_mixed") for view in views.values())
        return RunStatus(State.QUEUED, reason, None, number, first, None, waiting, mixed=mixed)
    ended = max((v["ended_at"] for v in nodes if v["ended_at"]), default=None) if state.is_final else None
    # Of earlier attempts, too: more may come of those that a retry has overtaken.
    seal = _seal([v["seal"]["status"] if v["seal"] else None for v in views.values()])
    if len(nodes) < count:
        seal = None
    waiting = waiting_words(view["waiting"])
    mixed = any(view.get("code_mixed") for view in views.values())
    return RunStatus(state, reason, view["exit_code"], number, first, ended, waiting, seal, mixed)


def _given_up(
    lost: Mapping[str, str], views: dict[tuple[int, str], dict[str, Any]], number: int
) -> dict[tuple[int, str], dict[str, Any]]:
    """The views of an attempt that end because their nodes are lost; None is, while another node of it goes on: the
    agents are in touch with each other, and know better.
    """
    here = {node: view for (attempt, node), view in views.items() if attempt == number}
    living = {node for node, view in here.items() if not State(view["state"]).is_final}
    if not living <= set(lost):
        return {}
    return {
        (number, node): {
            **here.get(node, folding.empty()),
            "state": State.FAILED.value,
            "reason": Reason(
                NODE_LOST, f"{node} has not answered since {since}", "infrastructure", node
            )._asdict(),
            "ended_at": since,
        }
        for node, since in lost.items()
        if node in living or node not in here
    }


def _seal(seals: list[str | None]) -> str | None:
    """The run's seal: complete only if every attempt's is on every node; None while one is missing."""
    if None in seals:
        return None
    if "unsealed" in seals:
        return "unsealed"
    return "sealed-complete" if set(seals) == {"sealed-complete"} else "sealed-with-gaps"


def wants_retry(max_retries: int, number: int, state: State, reason: Reason | None) -> bool:
    """Whether attempt ``number``, which ended so, is to be followed by another."""
    return state is State.FAILED and reason is not None and reason.retryable and number <= max_retries


def _representative(nodes: list[dict[str, Any]]) -> dict[str, Any]:
    """The node whose state is the run's: one that failed by itself, first, else the one that is least far."""
    order = [s.value for s in State]
    failed = [v for v in nodes if v["state"] == State.FAILED.value]
    if failed and all(State(v["state"]).is_final for v in nodes):
        return min(failed, key=lambda v: (_is_collateral(v), v["ended_at"] or ""))
    return min(nodes, key=lambda v: order.index(v["state"]))


def _is_collateral(view: dict[str, Any]) -> bool:
    """Whether the node's tasks were stopped because another node's had failed."""
    return bool(view["reason"]) and view["reason"]["code"] == PEER_FAILED


def waiting_words(waiting: dict[str, Any] | None) -> str | None:
    """Why a run waits and for whom, in a few words."""
    if not waiting:
        return None
    parts = [f"waits for {waiting['wanted']} GPU{'s' if waiting['wanted'] != 1 else ''}"]
    holders = sorted({f"{h.get('run') or '?'} ({h.get('user') or '?'})" for h in waiting["holders"]})
    if holders:
        parts.append("held by " + ", ".join(holders))
    foreign = sorted({f"pid {f.get('pid')} of {f.get('user') or '?'}" for f in waiting["foreign"]})
    if foreign:
        parts.append("used by " + ", ".join(foreign))
    ahead = [str(a.get("run") or "?") for a in waiting["ahead"]]
    if ahead:
        parts.append("behind " + ", ".join(ahead))
    return "; ".join(parts)
