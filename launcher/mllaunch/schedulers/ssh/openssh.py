"""The command line of the user's own OpenSSH client: ControlMaster, ProxyJump, agents and keys count as ever."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mllaunch.schedulers.ssh.transport import Address

__all__ = ["client", "command"]


def command(address: Address, words: Sequence[str], *, terminal: bool) -> list[str]:
    """Runs a command on a node, in a terminal or in none. An unknown host key is refused, as by ourselves."""
    return [*client(address, "-t" if terminal else "-T"), shlex.join(words)]


def client(address: Address, *first: str) -> list[str]:
    """ssh with these options and what leads to a node; what is to run there may follow, as its shell reads it."""
    options = [*first, "-o", "StrictHostKeyChecking=yes"]
    if address.config is not None:
        options += ["-F", address.config]
    if address.known_hosts is not None:
        options += [
            "-o",
            f'UserKnownHostsFile="{address.known_hosts}"',
            "-o",
            "GlobalKnownHostsFile=/dev/null",
        ]
    if address.user is not None:
        options += ["-l", address.user]
    if address.port is not None:
        options += ["-p", str(address.port)]
    return ["ssh", *options, "--", address.host or address.name]
