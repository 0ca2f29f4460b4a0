"""How much memory and CPU the kernel lets this process have: cgroup v1 and v2. See cgroups(7).

A limit holds for a cgroup and all below it, so the tightest on the way up to the root counts.
"""

from __future__ import annotations

from typing import Callable, Iterator, List, NamedTuple, Optional, Tuple

__all__ = ["Mount", "limits", "parse_mountinfo"]

ReadText = Callable[[str], Optional[str]]


class Mount(NamedTuple):
    """One line of /proc/PID/mountinfo: ``root`` within the filesystem is seen at ``point``."""

    root: str
    point: str
    fs: str
    source: str
    options: str


def parse_mountinfo(text: str) -> List[Mount]:
    """Parse /proc/PID/mountinfo (proc_pid_mountinfo(5)); octal escapes in paths are decoded."""
    mounts = []
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        fields, rest = left.split(), right.split(" ")
        if separator and len(fields) >= 6 and len(rest) >= 2:
            options = rest[2] if len(rest) > 2 else ""
            mounts.append(
                Mount(_unescape(fields[3]), _unescape(fields[4]), rest[0], _unescape(rest[1]), options)
            )
    return mounts


def limits(mounts: List[Mount], own: str, read: ReadText) -> Tuple[Optional[int], Optional[float]]:
    """(memory in bytes, CPUs) that the cgroups allow; None where they set no limit.

    own: text of /proc/self/cgroup. read: gives a file's text, or None when it cannot be read.
    """
    memory: List[int] = []
    cpus: List[float] = []
    for controllers, path in _memberships(own):
        for mount in mounts:
            if not _holds(mount, controllers):
                continue
            for folder in _upwards(mount, path):
                memory.extend(_memory_limit(folder, read))
                cpus.extend(_cpu_limit(folder, read))
    return min(memory, default=None), min(cpus, default=None)


def _memberships(own: str) -> Iterator[Tuple[List[str], str]]:
    for line in own.splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            yield [name for name in parts[1].split(",") if name], parts[2]


def _holds(mount: Mount, controllers: List[str]) -> bool:
    """v2 has one hierarchy, without controllers in its line; in v1 the mount's options name them."""
    if not controllers:
        return mount.fs == "cgroup2"
    return mount.fs == "cgroup" and any(
        name in ("memory", "cpu") and name in mount.options.split(",") for name in controllers
    )


def _upwards(mount: Mount, path: str) -> Iterator[str]:
    """The cgroup's folder and those above it. Inside a container without a cgroup namespace the path is the
    host's: what is above the mount's root is not to be seen."""
    if mount.root != "/" and (path + "/").startswith(mount.root + "/"):
        path = path[len(mount.root) :]
    parts = [part for part in path.split("/") if part]
    for count in range(len(parts), -1, -1):
        yield "/".join([mount.point] + parts[:count])


def _memory_limit(folder: str, read: ReadText) -> Iterator[int]:
    for name in ("memory.max", "memory.limit_in_bytes"):
        text = (read("%s/%s" % (folder, name)) or "").strip()
        if text.isdigit() and int(text) < 1 << 60:  # v1 writes "no limit" as nearly 2**63
            yield int(text)


def _cpu_limit(folder: str, read: ReadText) -> Iterator[float]:
    v2 = (read(folder + "/cpu.max") or "").split()
    quota = v2[0] if v2 else (read(folder + "/cpu.cfs_quota_us") or "").strip()
    period = v2[1] if len(v2) == 2 else (read(folder + "/cpu.cfs_period_us") or "").strip()
    if quota.isdigit() and period.isdigit() and int(period):  # "max" or -1: no limit
        yield int(quota) / int(period)


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
