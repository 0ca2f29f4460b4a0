"""From how the tasks ended to how the attempt ended; pure."""

from __future__ import annotations

from typing import Any, Dict, List, NamedTuple, Optional

from mllaunch_agent.protocol import PEER_FAILED, ExitRecord

_SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
}
_SIGNALS.update({10: "SIGUSR1", 11: "SIGSEGV", 12: "SIGUSR2", 13: "SIGPIPE", 14: "SIGALRM", 15: "SIGTERM"})


# What ends an attempt on several nodes: the reason's code, its origin, and whether to try again.
_OF_SEVERAL_NODES = {
    "elsewhere": (PEER_FAILED, "user", True),
    "lost": ("node_lost", "infrastructure", True),
    "incomplete": ("incomplete", "infrastructure", True),
    "mixed_code": ("mixed_code", "infrastructure", False),
    "same_node": ("same_node", "user", False),
}


_PEER_GRACE_S = 10.0


class Cause(NamedTuple):
    """Why the agent began to stop the tasks, if it did.

    "stopped" by a user, "timeout", "peer" (another task failed here), "elsewhere" (one failed on another node), "lost"
    (a node is silent), "incomplete" (not all nodes began), "mixed_code" (they have not the same code) or "same_node"
    (two of them are one machine).
    """

    kind: str
    detail: str


def grace_s(cause: Cause, wanted_s: float) -> float:
    """How long tasks may take to end: what waits for a node that has failed has nothing to save."""
    return wanted_s if cause.kind in ("stopped", "timeout") else min(_PEER_GRACE_S, wanted_s)


class OomCounter:
    """Tells an out-of-memory kill from another SIGKILL by the kernel's own count for our memory cgroup."""

    def __init__(self) -> None:
        self._before = oom_kills()
        self.ranks: List[int] = []

    def check(self, rank: int, record: ExitRecord) -> bool:
        """Whether the task that just ended was killed because memory ran out."""
        oom = record.get("out_of_memory")
        if oom is None:
            oom = record["signal"] == 9 and self._before is not None and (oom_kills() or 0) > self._before
        else:
            oom = oom and exit_code(record) != 0  # a task may survive the death of a helper
        if oom:
            self.ranks.append(rank)
        return oom


def oom_kills() -> Optional[int]:
    """How often the kernel has killed for memory in our cgroup (v2 or v1); None where it does not say."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as f:
            entries = [line.rstrip("\n").split(":", 2) for line in f]
    except OSError:
        return None
    for _, controllers, path in entries:
        if controllers == "memory":
            name = "/sys/fs/cgroup/memory%s/memory.oom_control" % path
        elif controllers == "":
            name = "/sys/fs/cgroup%s/memory.events" % path
        else:
            continue
        try:
            with open(name, encoding="ascii") as f:
                for line in f:
                    key, _, value = line.partition(" ")
                    if key == "oom_kill":
                        return int(value)
        except OSError:
            continue
    return None


class Outcome(NamedTuple):
    """state: succeeded, failed or cancelled. exit_code: 128+N for signal N, None when nobody could read it."""

    state: str
    exit_code: Optional[int]
    reason: Optional[Dict[str, Any]]


def exit_code(record: ExitRecord) -> Optional[int]:
    """A shell's view of an exit: 128+N for signal N, None for unknown."""
    if record["signal"] is not None:
        return 128 + record["signal"]
    return record["exit_code"]


def signal_name(number: int) -> str:
    return _SIGNALS.get(number, "signal %d" % number)


def decide(exits: List[ExitRecord], cause: Optional[Cause], node: str, oom_ranks: List[int]) -> Outcome:
    """The attempt's end. The first rank to fail gives the exit code; others, stopped because of it, do not count.

    exits has one record per rank, in any order.
    """
    failed = sorted((e for e in exits if exit_code(e) != 0), key=lambda e: (e["at"], e["rank"]))
    first = failed[0] if failed else None
    code = exit_code(first) if first else 0 if exits else None  # None: nothing ever ran
    if cause and cause.kind == "stopped":
        return Outcome("cancelled", code, _reason("stopped", "stopped by %s" % cause.detail, "user", node))
    if cause and cause.kind == "timeout":
        return Outcome("failed", code, _reason("timeout", "ran longer than %s" % cause.detail, "user", node))
    if cause and cause.kind in _OF_SEVERAL_NODES:
        return Outcome("failed", code, _of_several_nodes(cause, node))
    if first is None:
        return Outcome("succeeded", 0, None)
    return Outcome("failed", code, _failure(first, node, first["rank"] in oom_ranks))


def _of_several_nodes(cause: Cause, node: str) -> Dict[str, Any]:
    code, origin, retryable = _OF_SEVERAL_NODES[cause.kind]
    words = "stopped: %s" % cause.detail if cause.kind == "elsewhere" else cause.detail
    return _reason(code, words, origin, node, retryable=retryable)


def _failure(record: ExitRecord, node: str, oom: bool) -> Dict[str, Any]:
    rank = record["rank"]
    if record["error"]:
        return _reason("not_started", "could not start: %s" % record["error"], "user", node, rank)
    if oom:
        return _reason("out_of_memory", "killed: out of memory", "user", node, rank, retryable=True)
    if record.get("by_engine"):
        text = "stopped through the container engine, or with it; exit code %s" % record["exit_code"]
        return _reason("engine_stopped", text, "infrastructure", node, rank, retryable=True)
    if record["signal"] is not None:
        text = "killed by %s" % signal_name(record["signal"])
        return _reason("signal", text, "user", node, rank, retryable=True)
    if record["exit_code"] is None:
        text = "ended on %s while nobody could watch; its exit code is unknown" % node
        return _reason("unknown_exit", text, "infrastructure", node, rank, retryable=True)
    text = "exited with %d" % record["exit_code"]
    number = record["exit_code"] - 128
    if number in _SIGNALS:  # a shell, and the first process of a container, pass on what a signal ended
        text += " (128 + %s)" % signal_name(number)
    return _reason("exit", text, "user", node, rank, retryable=True)


def _reason(
    code: str, message: str, origin: str, node: str, rank: Optional[int] = None, retryable: bool = False
) -> Dict[str, Any]:
    return {
        "code": code,
        "message": message,
        "origin": origin,
        "node": node,
        "rank": rank,
        "retryable": retryable,
    }
