"""Telemetry of one attempt on one node: a header line, then one compact JSON array for each reading.

How the caller is protected: /proc never blocks; NVML may hang for ever inside the driver, so it is asked in
a daemon thread of its own with a time limit (see gpu), and the caller only ever waits that long. Call
``sample`` from one thread, best a daemon thread. The format is described in docs/samples.md.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

from mllaunch_agent.probes import NotCaptured, containerload, gpuload, not_captured, processes
from mllaunch_agent.probes.accounting import Share, Total
from mllaunch_agent.probes.gpu import Gpus
from mllaunch_agent.probes.hostload import HostLoad

__all__ = ["SCHEMA", "Sampler"]

SCHEMA = "mllaunch.samples/1"

# (column, unit). Cumulative ones never decrease between two headers.
COLUMNS = (
    ("boot_s", "s"),  # since boot
    ("cpu_s", "s"),  # of the tasks' trees, cumulative, ended processes included
    ("rss_bytes", "B"),  # of the trees; pages that processes share count once for each
    ("pss_bytes", "B"),  # shared pages divided; null in most samples, because it is dear
    ("read_bytes", "B"),  # from storage, cumulative; what the page cache had is not in it
    ("written_bytes", "B"),  # to storage, cumulative
    ("processes", "1"),
    ("host_cpu_busy", "1"),  # share of the node's CPU time since the last sample, 0 to 1
    ("host_memory_used_bytes", "B"),
    ("network_received_bytes", "B"),  # by the node, since boot
    ("network_sent_bytes", "B"),
)

GPU_TIMEOUT_S = 0.8  # of a one-second period: a driver that takes longer must not delay the other values
PSS_EVERY_S = 30.0
PSS_CPU_SHARE = 0.001  # of one core, at most
PSS_MAX_RSS_BYTES = 32 << 30  # walking larger page tables takes long enough for the task to notice


class Sampler:
    """Reads the process trees below ``root_pids`` and the GPUs ``gpu_uuids``.

    containers: each root is the main process of a container, of which the kernel's account is read as well.
    Processes that leave the tree (daemons) are followed for as long as they live if they were in it at any
    sample.
    """

    def __init__(
        self,
        root_pids: Iterable[int],
        gpu_uuids: Sequence[str] = (),
        import_path: Sequence[str] = (),
        containers: bool = False,
    ) -> None:
        self._known: Dict[int, int] = {}
        self._containers = containerload.ContainerLoad() if containers else None
        for pid in root_pids:
            self.add(pid)
        self._uuids = tuple(gpu_uuids)
        self._gpus = Gpus(import_path, timeout_s=GPU_TIMEOUT_S) if self._uuids else None
        self._gpu_usage = gpuload.GpuUsage()
        self._all_pids_visible = gpuload.sees_all_pids()
        self._host = HostLoad()
        self._ticks_per_s = os.sysconf("SC_CLK_TCK")
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._cpu, self._read, self._written = Total(), Total(), Total()
        self._usage: Dict[str, Any] = dict.fromkeys(("cpu_s", "max_rss_bytes", "read_bytes", "written_bytes"))
        self._pss_due_s = 0.0
        self._missing: List[NotCaptured] = []
        self._reported: Dict[str, str] = {}

    def add(self, pid: int) -> None:
        """Read the tree below this process too, unless it has ended already. From the thread that samples."""
        started = processes.start_ticks(pid)
        if started is not None:
            self._known[pid] = started
            if self._containers:
                self._containers.add(pid)

    def header(self) -> str:
        """The first line: {"schema", "columns", "units", "gpus": [uuid]}, without a newline.

        Counting begins anew with each header: a stream has several if the agent was restarted.
        """
        columns = list(COLUMNS)
        for index in range(len(self._uuids)):
            columns += [("gpu%d.%s" % (index, name), unit) for name, unit in gpuload.COLUMNS]
        columns += containerload.COLUMNS if self._containers else ()
        names, units = zip(*columns)
        head = {"schema": SCHEMA, "columns": names, "units": units, "gpus": self._uuids}
        return json.dumps(head, separators=(",", ":"), ensure_ascii=False)

    def sample(self, now_boot_s: float) -> str:
        """One reading as a JSON array without a newline, in the order of the header. Never raises."""
        try:
            return json.dumps(self._row(now_boot_s), separators=(",", ":"))
        except Exception as error:  # noqa: BLE001  what is left of a sample is its time
            self._report("sample", repr(error))
            width = len(COLUMNS) + len(self._uuids) * len(gpuload.COLUMNS)
            width += len(containerload.COLUMNS) if self._containers else 0
            return json.dumps([round(now_boot_s, 2)] + [None] * (width - 1), separators=(",", ":"))

    def usage(self) -> Dict[str, Any]:
        """What the attempt used up to the last sample: {"cpu_s", "max_rss_bytes", "read_bytes",
        "written_bytes", "gpu"}.

        None where nothing was seen. What happened after the last sample is missing; of CPU time and memory
        the exit records have the exact values of the main processes.
        """
        return dict(self._usage, gpu=self._gpu_usage.summary())

    def not_captured(self) -> List[NotCaptured]:
        """What could not be read, each reason once; every entry is handed out once."""
        missing, self._missing = self._missing, []
        return missing

    def _row(self, now_s: float) -> List[Any]:
        tree = processes.tree(self._known)
        self._known = {pid: found.start_ticks for pid, found in tree.items()}
        rss = sum(found.rss_pages for found in tree.values()) * self._page_bytes
        cpu_s = self._cpu_s(tree)
        read, written = self._io(tree)
        if tree:
            self._usage["cpu_s"] = cpu_s
            self._usage["max_rss_bytes"] = max(rss, self._usage["max_rss_bytes"] or 0)
            self._usage["read_bytes"], self._usage["written_bytes"] = read, written
        busy = self._host.cpu_busy()
        row = [
            round(now_s, 2),
            cpu_s,
            rss,
            self._pss(tree, rss, now_s),
            read,
            written,
            len(tree),
            None if busy is None else round(busy, 3),
            self._host.memory_used_bytes(),
            *self._host.network_bytes(),
        ]
        return row + self._gpu_columns(tree, now_s) + self._container_columns()

    def _container_columns(self) -> List[Any]:
        if self._containers is None:
            return []
        values = self._containers.read()
        for name, value in zip(("cpu_s", None, "read_bytes", "written_bytes"), values):
            if name and value is not None:
                self._usage[name] = max(value, self._usage[name] or 0)
        return list(values)

    def _cpu_s(self, tree: Dict[int, processes.Stat]) -> float:
        ticks = self._cpu.update(
            {
                pid: Share(
                    found.start_ticks, found.ppid, found.own_ticks + found.reaped_ticks, found.reaped_ticks
                )
                for pid, found in tree.items()
            }
        )
        return round(ticks / self._ticks_per_s, 2)

    def _io(self, tree: Dict[int, processes.Stat]) -> Tuple[Optional[int], Optional[int]]:
        """(read, written); (None, None) once the I/O of any process could not be read, as the sum would be
        wrong."""
        reads: Dict[int, Share] = {}
        writes: Dict[int, Share] = {}
        for pid, found in tree.items():
            done = processes.io_bytes(pid)
            if done is not None:
                reads[pid] = Share(found.start_ticks, found.ppid, done[0], done[0])
                writes[pid] = Share(found.start_ticks, found.ppid, done[1], done[1])
                continue
            read, written = (
                self._read.last(pid, found.start_ticks),
                self._written.last(pid, found.start_ticks),
            )
            if read is not None and written is not None:  # it has just ended
                reads[pid], writes[pid] = read, written
            elif not found.is_dead and processes.is_same(pid, found.start_ticks):
                self._report(
                    "read_bytes and written_bytes", "/proc/%d/io may not be read: %s" % (pid, found.name)
                )
        totals = self._read.update(reads), self._written.update(writes)
        return (None, None) if "read_bytes and written_bytes" in self._reported else totals

    def _pss(self, tree: Dict[int, processes.Stat], rss: int, now_s: float) -> Optional[int]:
        """The trees' proportional memory if it is due, else None. It is due as rarely as its cost demands."""
        if now_s < self._pss_due_s or not tree:
            return None
        self._pss_due_s = now_s + PSS_EVERY_S
        if rss > PSS_MAX_RSS_BYTES:
            self._report("pss_bytes", "reading it would slow down tasks of more than 32 GiB")
            return None
        before_s = time.thread_time()
        total = 0
        for pid, found in tree.items():
            pss = processes.pss_bytes(pid)
            if pss is None and not found.is_dead and processes.is_same(pid, found.start_ticks):
                self._report("pss_bytes", "/proc/%d/smaps_rollup may not be read: %s" % (pid, found.name))
                return None
            total += pss or 0
        cost_s = time.thread_time() - before_s
        self._pss_due_s = now_s + max(PSS_EVERY_S, cost_s / PSS_CPU_SHARE)
        return total

    def _gpu_columns(self, tree: Dict[int, processes.Stat], now_s: float) -> List[Any]:
        if self._gpus is None:
            return []
        readings = self._gpus.sample(self._uuids)
        self._missing.extend(self._gpus.not_captured())
        self._gpu_usage.add(now_s, readings)
        row = []
        for uuid in self._uuids:
            row += gpuload.row(readings.get(uuid), tree, self._all_pids_visible)
        return row

    def _report(self, what: str, why: str) -> None:
        if what not in self._reported:
            self._reported[what] = why
            self._missing.append(not_captured(what, why))
