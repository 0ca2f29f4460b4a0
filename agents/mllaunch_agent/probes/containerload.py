"""What a container uses, by the kernel's account of its control groups: v1 and v2, see cgroups(7).

Unlike a sum over processes this counts those that have ended and what they left in the page cache, and it is what the
container's limits are held against.
"""

from __future__ import annotations

import os
from typing import Callable, Dict, Iterable, List, NamedTuple, Optional, Tuple

from mllaunch_agent.probes.cgroup import Mount, parse_mountinfo

__all__ = ["COLUMNS", "ContainerLoad", "folders", "reading"]

# (column, unit). Totals over the containers of the attempt on this node.
COLUMNS = (
    ("container.cpu_s", "s"),  # cumulative
    ("container.memory_bytes", "B"),  # without page cache that can go at any time
    ("container.read_bytes", "B"),  # from storage, cumulative
    ("container.written_bytes", "B"),
    ("container.processes", "1"),
)

ReadText = Callable[[str], Optional[str]]
Values = Tuple[Optional[float], ...]


class Folders(NamedTuple):
    """Where the kernel tells of a container: one folder for each controller (v1), or the same for all (v2)."""

    cpu: Optional[str]
    memory: Optional[str]
    io: Optional[str]
    pids: Optional[str]


def folders(mounts: List[Mount], own: str) -> Folders:
    """Pure. own: text of the main process's /proc/PID/cgroup, as seen from outside of the container."""
    found: Dict[str, str] = {}
    for line in own.splitlines():
        parts = line.split(":", 2)
        if len(parts) < 3:
            continue
        wanted = parts[1].split(",") if parts[1] else ["cpuacct", "memory", "blkio", "pids"]
        fs = "cgroup" if parts[1] else "cgroup2"
        for mount in mounts:
            if mount.fs == fs and (fs == "cgroup2" or set(wanted) & set(mount.options.split(","))):
                for controller in wanted:
                    # A v1 hierarchy that has the controller says more than a v2 one that has not.
                    if parts[1] or controller not in found:
                        found[controller] = mount.point + parts[2].rstrip("/")
    return Folders(found.get("cpuacct"), found.get("memory"), found.get("blkio"), found.get("pids"))


def reading(places: Folders, read: ReadText) -> Values:
    """The columns' values; None for what cannot be read."""
    read_bytes, written_bytes = _io(places.io, read)
    return (
        _cpu_s(places.cpu, read),
        _memory(places.memory, read),
        read_bytes,
        written_bytes,
        _pids(places.pids, read),
    )


def _cpu_s(folder: Optional[str], read: ReadText) -> Optional[float]:
    nanoseconds = _number(folder, "cpuacct.usage", read)
    if nanoseconds is not None:
        return round(nanoseconds / 1e9, 2)
    microseconds = _named(folder, "cpu.stat", "usage_usec", read)
    return None if microseconds is None else round(microseconds / 1e6, 2)


def _memory(folder: Optional[str], read: ReadText) -> Optional[int]:
    for file, cache in (
        ("memory.usage_in_bytes", "total_inactive_file"),
        ("memory.current", "inactive_file"),
    ):
        used = _number(folder, file, read)
        if used is not None:
            return max(0, used - (_named(folder, "memory.stat", cache, read) or 0))
    return None


def _io(folder: Optional[str], read: ReadText) -> Tuple[Optional[int], Optional[int]]:
    """io.stat: ``8:0 rbytes=1 wbytes=2 ...``; v1: ``8:0 Read 1``."""
    text = read("%s/io.stat" % folder) if folder else None
    if text is not None:
        pairs = [word.split("=") for word in text.split() if "=" in word]
        return tuple(sum(int(n) for key, n in pairs if key == name) for name in ("rbytes", "wbytes"))  # type: ignore[return-value]
    text = read("%s/blkio.throttle.io_service_bytes" % folder) if folder else None
    if text is None:
        return None, None
    rows = [line.split() for line in text.splitlines()]
    return tuple(sum(int(row[2]) for row in rows if row[1:2] == [name]) for name in ("Read", "Write"))  # type: ignore[return-value]


def _pids(folder: Optional[str], read: ReadText) -> Optional[int]:
    return _number(folder, "pids.current", read)


def _number(folder: Optional[str], file: str, read: ReadText) -> Optional[int]:
    text = (read("%s/%s" % (folder, file)) if folder else None) or ""
    return int(text) if text.strip().isdigit() else None


def _named(folder: Optional[str], file: str, name: str, read: ReadText) -> Optional[int]:
    text = (read("%s/%s" % (folder, file)) if folder else None) or ""
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.strip().isdigit():
            return int(value)
    return None


class ContainerLoad:
    """Readings of several containers together; what one that has ended had used stays in the sums."""

    def __init__(self) -> None:
        self._places: Dict[int, Folders] = {}
        self._last: Dict[int, Values] = {}

    def add(self, pid: int) -> None:
        """Take in the container whose main process this is."""
        own = _read("/proc/%d/cgroup" % pid)
        mounts = _read("/proc/self/mountinfo")
        if own and mounts:
            self._places[pid] = folders(parse_mountinfo(mounts), own)

    def read(self) -> Values:
        """The columns' values now."""
        for pid, places in self._places.items():
            now = reading(places, _read)
            before = self._last.get(pid, (None,) * len(COLUMNS))
            kept = [then if value is None else value for value, then in zip(now, before)]
            # Memory and processes are gone with the container, its sums are not.
            gone = [None if then is None else 0 for then in before]
            memory, count = (gone[n] if now[n] is None else now[n] for n in (1, 4))
            self._last[pid] = (kept[0], memory, kept[2], kept[3], count)
        return tuple(_sum(values) for values in zip(*self._last.values())) or (None,) * len(COLUMNS)


def _sum(values: Iterable[Optional[float]]) -> Optional[float]:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _read(path: str) -> Optional[str]:
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # Of a file made of many records, such as mountinfo, the kernel gives a page at a time.
        return b"".join(iter(lambda: os.read(file, 1 << 16), b"")).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(file)
