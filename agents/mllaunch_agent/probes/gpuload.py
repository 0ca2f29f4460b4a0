"""What an attempt's GPUs do, sample by sample, and what that adds up to."""

from __future__ import annotations

import os
from typing import Any, Collection, Dict, List, Mapping, Optional

from mllaunch_agent.probes.gpu import Reading

__all__ = ["COLUMNS", "GpuUsage", "row", "sees_all_pids", "task_memory_bytes"]

# (column, unit), once for each GPU, after "gpuN."
COLUMNS = (
    ("utilisation", "%"),
    ("memory_bytes", "B"),
    ("power_w", "W"),
    ("temperature_c", "°C"),
    ("task_memory_bytes", "B"),  # of the task's own processes
)

INITIAL_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h


def row(reading: Optional[Reading], pids: Collection[int], all_pids_visible: bool) -> List[Any]:
    """One GPU's values in the order of COLUMNS."""
    if reading is None:
        return [None] * len(COLUMNS)
    power_w = None if reading.power_mw is None else round(reading.power_mw / 1000, 1)
    return [
        reading.utilisation_percent,
        reading.memory_bytes,
        power_w,
        reading.temperature_c,
        task_memory_bytes(reading, pids, all_pids_visible),
    ]


def task_memory_bytes(reading: Reading, pids: Collection[int], all_pids_visible: bool) -> Optional[int]:
    """GPU memory of the processes ``pids``; None if the driver does not say.

    NVML speaks of the host's pids. Inside a pid namespace finding none of ours proves nothing, so that is
    None, too.
    """
    if reading.processes is None or reading.memory_bytes is None:
        return None
    own = [memory for pid, memory in reading.processes.items() if pid in pids]
    if None in own:
        return None
    return sum(memory for memory in own if memory is not None) if own or all_pids_visible else None


def sees_all_pids() -> bool:
    """Whether pids here are the host's, that is: not inside a pid namespace."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino == INITIAL_PID_NAMESPACE
    except OSError:
        return False


class GpuUsage:
    """Adds samples up to what the GPUs of an attempt did over its whole time."""

    def __init__(self) -> None:
        self._utilisation_sum = 0
        self._utilisations = 0
        self._max_memory_bytes: Optional[int] = None
        self._energy_mj: Optional[float] = None
        self._counters: Dict[str, int] = {}
        self._last_s: Optional[float] = None

    def add(self, now_s: float, readings: Mapping[str, Optional[Reading]]) -> None:
        """Take one sample into account. now_s: seconds since boot."""
        known = {uuid: reading for uuid, reading in readings.items() if reading is not None}
        for reading in known.values():
            if reading.utilisation_percent is not None:
                self._utilisation_sum += reading.utilisation_percent
                self._utilisations += 1
        memory = [reading.memory_bytes for reading in known.values() if reading.memory_bytes is not None]
        if memory:
            self._max_memory_bytes = max(sum(memory), self._max_memory_bytes or 0)
        for uuid, reading in known.items():
            self._add_energy(uuid, reading, 0.0 if self._last_s is None else now_s - self._last_s)
        self._last_s = now_s

    def _add_energy(self, uuid: str, reading: Reading, elapsed_s: float) -> None:
        """By the GPU's own counter; GPUs before Volta have none, there by power times time."""
        if reading.energy_mj is not None:
            spent: float = max(0, reading.energy_mj - self._counters.get(uuid, reading.energy_mj))
            self._counters[uuid] = reading.energy_mj
        elif reading.power_mw is not None:
            spent = reading.power_mw * elapsed_s
        else:
            return
        self._energy_mj = (self._energy_mj or 0) + spent

    def summary(self) -> Optional[Dict[str, Any]]:
        """{"mean_utilisation": 0 to 1 over all GPUs and samples, "max_memory_bytes": of all GPUs together,
        "energy_j"}.

        None when no GPU ever gave a value.
        """
        result = {
            "mean_utilisation": round(self._utilisation_sum / self._utilisations / 100, 4)
            if self._utilisations
            else None,
            "max_memory_bytes": self._max_memory_bytes,
            "energy_j": None if self._energy_mj is None else round(self._energy_mj / 1000, 1),
        }
        return result if any(value is not None for value in result.values()) else None
