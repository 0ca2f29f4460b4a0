"""How busy the node as a whole is, out of /proc/stat, /proc/meminfo and /proc/net/dev. See proc(5)."""

from __future__ import annotations

import os
from typing import Callable, List, Optional, Tuple

__all__ = ["HostLoad", "parse_cpu", "parse_memory_used", "parse_network"]


class HostLoad:
    """Reads the node's load; every value is None where /proc does not tell."""

    def __init__(self) -> None:
        self._cpu: Optional[Tuple[int, int]] = None

    def cpu_busy(self) -> Optional[float]:
        """The share of all CPUs' time that was busy since the last call, 0 to 1; None at the first."""
        before, self._cpu = self._cpu, parse_cpu(_read("/proc/stat"))
        if before is None or self._cpu is None or self._cpu[1] <= before[1]:
            return None
        return min(1.0, max(0.0, (self._cpu[0] - before[0]) / (self._cpu[1] - before[1])))

    def memory_used_bytes(self) -> Optional[int]:
        """Memory that programs could not get: what is not available."""
        return parse_memory_used(_read("/proc/meminfo"))

    def network_bytes(self) -> Tuple[Optional[int], Optional[int]]:
        """(received, sent) since boot over the node's network cards. RDMA bypasses these counters."""
        return parse_network(_read("/proc/net/dev"), _is_card)


def parse_cpu(data: bytes) -> Optional[Tuple[int, int]]:
    """(busy, total) clock ticks since boot from /proc/stat. Waiting for disks is idle; guests are in user
    already."""
    fields = data.split(b"\n", 1)[0].split()
    if len(fields) < 6 or fields[0] != b"cpu":
        return None
    ticks = [int(field) for field in fields[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def parse_memory_used(data: bytes) -> Optional[int]:
    """MemTotal - MemAvailable of /proc/meminfo, in bytes."""
    fields = data.split()
    try:
        total = int(fields[fields.index(b"MemTotal:") + 1])
        return (total - int(fields[fields.index(b"MemAvailable:") + 1])) * 1024
    except (ValueError, IndexError):
        return None


def parse_network(data: bytes, is_card: Callable[[str], bool]) -> Tuple[Optional[int], Optional[int]]:
    """(received, sent) of /proc/net/dev over the interfaces that are cards, or over all but loopback if none
    is.

    Bridges, bonds and the like would count the same bytes twice; inside a container there is nothing but
    such.
    """
    cards: List[Tuple[int, int]] = []
    others: List[Tuple[int, int]] = []
    for line in data.decode("utf-8", "replace").splitlines()[2:]:
        name, _, rest = line.partition(":")
        fields = rest.split()
        if len(fields) >= 9 and name.strip() != "lo":
            (cards if is_card(name.strip()) else others).append((int(fields[0]), int(fields[8])))
    counted = cards or others
    if not counted:
        return None, None
    return sum(received for received, _ in counted), sum(sent for _, sent in counted)


def _is_card(name: str) -> bool:
    return os.path.exists("/sys/class/net/%s/device" % name)


def _read(path: str) -> bytes:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.read(file, 65536)
    except OSError:
        return b""
    finally:
        os.close(file)
