"""What a run used, added up over its nodes and attempts; pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Views = dict[tuple[int, str], dict[str, Any]]

AMOUNTS = ("wall_s", "cpu_s", "max_rss_bytes", "read_bytes", "written_bytes")


def usage(views: Views) -> dict[str, Any] | None:
    """Totals and, under ``per_node``, what each node used in each attempt; None while nothing is known.

    Nodes work at the same time and attempts one after the other: cpu_s, read_bytes, written_bytes and energy_j are sums
    over all of them; wall_s is the sum over attempts of the longest node's; max_rss_bytes and the GPUs' memory
    are those of the attempt with the largest sum over its nodes. A total of which a part is unknown is None.
    """
    per_node = [of_node(number, node, view) for (number, node), view in views.items()]
    per_node = [entry for entry in per_node if any(entry[name] is not None for name in (*AMOUNTS, "gpu"))]
    if not per_node:
        return None
    attempts = [[e for e in per_node if e["attempt"] == n] for n in sorted({e["attempt"] for e in per_node})]

    def total(name: str, over_nodes: Callable[..., Any], over_attempts: Callable[..., Any]) -> Any:
        return _known(over_attempts, [_known(over_nodes, [e[name] for e in nodes]) for nodes in attempts])

    return {
        "wall_s": _rounded(total("wall_s", max, sum)),
        "cpu_s": _rounded(total("cpu_s", sum, sum)),
        "max_rss_bytes": total("max_rss_bytes", sum, max),
        "read_bytes": total("read_bytes", sum, sum),
        "written_bytes": total("written_bytes", sum, sum),
        "gpu": _gpu(attempts),
        "per_node": per_node,
    }


def of_node(number: int, node: str, view: dict[str, Any]) -> dict[str, Any]:
    """What one node used in one attempt; None for what is not known."""
    sampled = view["usage"] or {}
    exits = [task["exit"] for task in view["tasks"].values() if task["exit"]]
    amounts = {name: sampled.get(name) for name in AMOUNTS}
    # Both are lower bounds: samples miss what came after the last one, exit records what the task never waited for.
    amounts["cpu_s"] = _larger(amounts["cpu_s"], _known(sum, [e["cpu_s"] for e in exits]))
    amounts["max_rss_bytes"] = _larger(
        amounts["max_rss_bytes"], _known(max, [e["max_rss_bytes"] for e in exits])
    )
    return {"node": node, "attempt": number, **amounts, "gpu": sampled.get("gpu")}


def _gpu(attempts: list[list[dict[str, Any]]]) -> dict[str, Any] | None:
    """Over all nodes with a GPU; utilisation is the mean weighted by time."""
    used = [[e for e in nodes if e["gpu"]] for nodes in attempts]
    used = [nodes for nodes in used if nodes]
    if not used:
        return None
    every = [e for nodes in used for e in nodes]
    weights = [(e["gpu"]["mean_utilisation"], e["wall_s"]) for e in every]
    mean = None
    if all(part is not None for pair in weights for part in pair) and sum(wall for _, wall in weights):
        mean = round(sum(share * wall for share, wall in weights) / sum(wall for _, wall in weights), 4)
    memory = [_known(sum, [e["gpu"]["max_memory_bytes"] for e in nodes]) for nodes in used]
    return {
        "mean_utilisation": mean,
        "max_memory_bytes": _known(max, memory),
        "energy_j": _rounded(_known(sum, [e["gpu"]["energy_j"] for e in every])),
    }


def _known(combine: Callable[[list[Any]], Any], values: Iterable[Any]) -> Any:
    """The combination of values if there are any and all are known, else None."""
    values = list(values)
    return combine(values) if values and None not in values else None


def _larger(one: Any, other: Any) -> Any:
    known = [value for value in (one, other) if value is not None]
    return max(known) if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
