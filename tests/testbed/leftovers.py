"""Removes an engine of the tests from the machine, whatever state it is in: processes, network, mounts, folder.

Only the engine's folder need be known. So this serves both an orderly end and, in a later session, what an
earlier one that was killed has left behind.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from tests.testbed import bridge

_DAEMONS = ("dockerd", "containerd")  # and its shims, whose name begins so
_TIMEOUT_S = 30.0


def remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove engines whose session is gone: nobody holds the lock in their folder."""
    for folder in parent.glob(f"{prefix}*"):
        try:
            with (folder / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(folder)
        except OSError:
            continue  # in use, just being made, or being removed by another session


def remove(folder: Path) -> None:
    """Remove the engine that lives in this folder, whose name is the engine's tag."""
    _kill(folder)
    for address in folder.glob("exec/containerd/daemon/*/moby/*/address"):
        # The shim's socket, which containerd makes outside of the folder.
        Path(address.read_text().removeprefix("unix://")).unlink(missing_ok=True)
    bridge.remove(folder.name)
    if Path("/run/netns", folder.name).exists():
        subprocess.run(["ip", "netns", "delete", folder.name], check=True)
    for mount in _mounts_below(folder):
        subprocess.run(["umount", "--lazy", mount], check=True)
    for group in _cgroups(folder.name):
        _remove_cgroup(group)
    shutil.rmtree(folder)


def _kill(folder: Path) -> None:
    """Kill daemons before containers, so that no container is started anew."""
    deadline = time.monotonic() + _TIMEOUT_S
    while processes := list(_processes(folder)):
        assert time.monotonic() < deadline, f"cannot be killed: {processes}"
        for process in processes:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                pass
        time.sleep(0.01)


def _processes(folder: Path) -> Iterator[psutil.Process]:
    """Living processes of the engine: its daemons, what they started, and what runs in its control groups."""
    inside = {pid for group in _cgroups(folder.name) for pid in _members(group)}
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        try:
            if process.name().startswith(_DAEMONS) and any(str(folder) in word for word in process.cmdline()):
                found.setdefault(process.pid, process)
                found.update((child.pid, child) for child in process.children(recursive=True))
            elif process.pid in inside:
                found[process.pid] = process
        except psutil.NoSuchProcess:
            continue
    for process in found.values():
        try:
            if process.status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                yield process
        except psutil.NoSuchProcess:
            continue


def _cgroups(tag: str) -> list[Path]:
    """The engine's control groups: one in each hierarchy of version 1, or the one of version 2."""
    root = Path("/sys/fs/cgroup")
    return [path for path in (root / tag, *root.glob(f"*/{tag}")) if path.is_dir() and not path.is_symlink()]


def _members(group: Path) -> Iterator[int]:
    for folder, _, files in os.walk(group):
        if "cgroup.procs" in files:
            try:
                yield from map(int, Path(folder, "cgroup.procs").read_text().split())
            except OSError:
                continue


def _remove_cgroup(group: Path) -> None:
    """A killed process may stay a member for a moment."""
    deadline = time.monotonic() + _TIMEOUT_S
    for folder, _, _ in os.walk(group, topdown=False):
        while True:
            try:
                Path(folder).rmdir()
            except FileNotFoundError:
                pass
            except OSError:
                if time.monotonic() < deadline:
                    time.sleep(0.01)
                    continue
                raise
            break


def _mounts_below(folder: Path) -> list[str]:
    """Innermost first."""
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return sorted((point for point in points if point.startswith(f"{folder}/")), key=len, reverse=True)
