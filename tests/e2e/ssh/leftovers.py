"""What runs have left on hosts: nothing, once they have ended."""

from __future__ import annotations

from collections.abc import Iterable

from tests.testbed.hosts import Host


def agents(hosts: Iterable[Host]) -> list[str]:
    """What looks after runs there, and their tasks' shims: processes that complain in an attempt's own stream."""
    return _lines(hosts, "sh", "-c", "ls -l /proc/[0-9]*/fd/2 2>/dev/null | grep /streams/agent")


def orphans(hosts: Iterable[Host]) -> list[str]:
    """The environments of processes that were begun by a task, as paths below /proc."""
    return _lines(hosts, "sh", "-c", "grep -lz ^MLLAUNCH_RUN_ID= /proc/[0-9]*/environ 2>/dev/null")


def mounts(hosts: Iterable[Host]) -> list[str]:
    """File systems in the folders of attempts."""
    return [line for line in _lines(hosts, "cat", "/proc/self/mounts") if "/runs/" in line]


def _lines(hosts: Iterable[Host], *command: str) -> list[str]:
    found = [host.run(*command, check=False) for host in hosts if host.is_up]
    return [line for text in found for line in text.splitlines()]
