"""Which living processes belong to an attempt's tasks, wherever they went.

Four nets, since a process may leave any one of them: the process tree below the tasks, the children that the
kernel gave to our subreapers (shims and supervisor) when their parents died, the attempt's cgroup, and the
environment that every descendant inherits.
"""

from __future__ import annotations

import os
from typing import Iterable, List, Optional, Set

from mllaunch_agent.environment import AGENT_MARK
from mllaunch_agent.probes import processes

_TRACE = b"MLLAUNCH_TRACE="
_UNIFIED = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


class Family:
    """The processes of one attempt on one node. guardians: pids of the shims, whose children belong to the tasks.

    trace: where they leave their notes, which is elsewhere for another node of the attempt on the same machine.
    """

    def __init__(self, run_id: str, attempt: int, trace: str, cgroup: Optional[str]) -> None:
        self.cgroup = cgroup
        self._marks = {b"MLLAUNCH_RUN_ID=" + run_id.encode(), b"MLLAUNCH_ATTEMPT=%d" % attempt}
        self._trace = _TRACE + os.fsencode(trace)

    def living(self, mains: Iterable[int], guardians: Iterable[int], thorough: bool = False) -> List[int]:
        """Living members, zombies left out. thorough also searches every process by its environment: some
        milliseconds, needed once a guardian has died and its orphans may have gone to init."""
        found: Set[int] = set()
        roots = list(mains)
        for guardian in [*guardians, os.getpid()]:
            roots.extend(processes.children(guardian))
        roots.extend(self._in_cgroup())
        if thorough:
            roots.extend(pid for pid in all_pids() if self._is_marked(pid))
        while roots:
            pid = roots.pop()
            if pid in found or pid == os.getpid() or is_agent(pid):
                continue  # another run that this task launched lives on by itself
            found.add(pid)
            roots.extend(processes.children(pid))
        return sorted(pid for pid in found if is_running(pid))

    def _in_cgroup(self) -> List[int]:
        if not self.cgroup:
            return []
        try:
            with open(os.path.join(self.cgroup, "cgroup.procs"), encoding="ascii") as f:
                return [int(pid) for pid in f.read().split()]
        except OSError:
            return []

    def _is_marked(self, pid: int) -> bool:
        entries = environment(pid)
        traces = [entry for entry in entries if entry.startswith(_TRACE)]
        return self._marks <= entries and traces in ([], [self._trace])

    def close(self) -> None:
        if self.cgroup:
            try:
                os.rmdir(self.cgroup)
            except OSError:
                pass  # somebody is still in it; an empty one costs nothing


def make_cgroup(run_id: str, attempt: int, node_rank: int) -> Optional[str]:
    """A cgroup of our own below the one we are in, where the system lets us (root, or a delegated unit)."""
    try:
        with open("/proc/self/cgroup", encoding="utf-8") as f:
            own = [line[3:].strip() for line in f if line.startswith("0::")]
    except OSError:
        return None
    for mount in _UNIFIED:
        if own and os.path.exists(os.path.join(mount, "cgroup.procs")):
            path = os.path.join(mount, own[0].lstrip("/"), "mllaunch-%s-%d-%d" % (run_id, attempt, node_rank))
            try:
                os.makedirs(path, exist_ok=True)
            except OSError:
                return None
            return path if os.access(os.path.join(path, "cgroup.procs"), os.W_OK) else None
    return None


def all_pids() -> List[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def environment(pid: int) -> Set[bytes]:
    """The entries of the environment that the process was started with; empty if it may not be read."""
    try:
        with open("/proc/%d/environ" % pid, "rb") as f:
            return set(f.read().split(b"\0"))
    except OSError:
        return set()


def is_agent(pid: int) -> bool:
    """Whether the process is mllaunch's own (an agent or a collector of any run)."""
    mark = AGENT_MARK.encode() + b"="
    return any(entry.startswith(mark) for entry in environment(pid))


def is_running(pid: int) -> bool:
    """Whether the process exists and is neither a zombie nor about to be one."""
    stat = processes.stat(pid)
    return stat is not None and not stat.is_dead and stat.virtual_bytes > 0
