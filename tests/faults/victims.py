"""Finds the processes of mllaunch's own that look after one run."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from mllaunch_agent.probes import processes

_AGENT = b"mllaunch_agent"
_COLLECTOR = b"collect-detached"


def kill(pid: int) -> bool:
    """SIGKILL; False if it was gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def supervisor(folder: Path | None, submit: int) -> int | None:
    """The process that holds an attempt's supervisor.lock open, or the agent that waits for its specification.

    folder: the run's, which holds its attempts; None before the run is known. submit: pid of the submitting command.
    """
    for pid in agents():
        if folder is None or not folder.exists():
            found = processes.stat(pid)
            if found is not None and found.ppid == submit:
                return pid
        elif any(_is_in(folder, link, "supervisor.lock") for link in open_files(pid)):
            return pid
    return None


def shim(folder: Path | None) -> int | None:
    """A shim of any attempt of the run, also one whose task is not yet recorded."""
    if folder is None or not folder.exists():
        return None
    try:
        records = list(folder.glob("*/task-*.json"))
    except FileNotFoundError:
        records = []  # a refused submission has just taken its attempt's folder away
    for record in records:
        document = json.loads(record.read_bytes())
        if processes.is_same(document["shim_pid"], document["shim_start_ticks"]):
            return int(document["shim_pid"])
    for pid in agents():
        links = open_files(pid)
        watches = any(_is_in(folder, link, "supervisor.alive") for link in links)
        if watches and not any(_is_in(folder, link, "supervisor.lock") for link in links):
            return pid
    return None


def collector(home: Path) -> int | None:
    """The detached collector of a home."""
    wanted = b"MLLAUNCH_HOME=" + os.fsencode(home)
    for pid in _with(_COLLECTOR):
        try:
            if wanted in (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0"):
                return pid
        except OSError:
            continue  # it ended while we looked
    return None


def agents() -> Iterator[int]:
    """Every supervisor and shim on this machine, and agents that wait for their specification."""
    return _with(_AGENT)


def open_files(pid: int) -> list[str]:
    found = []
    try:
        with os.scandir(f"/proc/{pid}/fd") as entries:
            for entry in entries:
                found.append(os.readlink(entry.path))  # noqa: PTH115  fast, for it hurries after a moving target
    except OSError:
        pass  # it ended while we looked
    return found


def _is_in(folder: Path, link: str, name: str) -> bool:
    return link.startswith(f"{folder}/") and link.endswith(f"/{name}")


def _with(word: bytes) -> Iterator[int]:
    """Living processes with this in their command line."""
    for name in os.listdir("/proc"):  # noqa: PTH208
        if not name.isdigit():
            continue
        try:
            if word in Path("/proc", name, "cmdline").read_bytes():
                yield int(name)
        except OSError:
            continue  # it ended while we looked
