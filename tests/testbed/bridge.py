"""A network for an engine of the tests, made beside a developer's own Docker and never through it.

A second dockerd that looks after networking itself is no good neighbour: it rewrites the chains of the first,
and in some cases, such as ``--bridge none``, deletes its ``docker0``. So here the engine is told to leave iptables
alone, and gets a bridge with a name and addresses of its own. All that is made carries the engine's tag or its
addresses, so that it can be found and removed later, also by another process.
"""

from __future__ import annotations

import fcntl
import json
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, NamedTuple

SHARED = Path("/run/mllaunch-testbed")  # what all test sessions of this machine must agree about
_PREFIX = "mlb-"
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")
_CHAINS = (("filter", "FORWARD"), ("nat", "POSTROUTING"))


class Bridge(NamedTuple):
    """A bridge and the addresses that belong to it: its own, and those for networks that users create."""

    name: str
    network: IPv4Network  # /16: the first /24 is the bridge's, the upper half is for user networks
    mtu: int

    def arguments(self, again: bool) -> list[str]:
        """What dockerd must be told.

        again: it has run on its data before. Version 20.10 then deletes ``docker0``, whosever it is, if it is told of
        address pools. Without, it keeps the networks that users have, and new ones get addresses of its own choice,
        from which nothing outside is reached.
        """
        pool = list(self.network.subnets(1))[1]
        return [
            f"--bridge={self.name}",
            "--iptables=false",
            "--ip6tables=false",
            "--ip-forward=false",
            f"--mtu={self.mtu}",
            *([] if again else [f"--default-address-pool=base={pool},size=24"]),
        ]


def make(tag: str) -> Bridge:
    """Make the bridge of the engine with this tag (its last 8 characters must be its own).

    Containers on it, and in networks that users create, reach what this machine reaches; but see `arguments`.
    """
    with _alone():
        taken = list(_addresses())
        free = (IPv4Network(f"10.{number}.0.0/16") for number in range(200, 255))
        network = next(candidate for candidate in free if not any(candidate.overlaps(one) for one in taken))
        device = _way_out()
        mtu = int(Path("/sys/class/net", device, "mtu").read_text()) if device else 1500
        bridge = Bridge(_PREFIX + tag[-8:], network, mtu)
        _run("ip", "link", "add", bridge.name, "type", "bridge")
        _run("ip", "address", "add", f"{network[1]}/24", "dev", bridge.name)
        _run("ip", "link", "set", bridge.name, "up")
        inside, mark = str(network), ("-m", "comment", "--comment", tag)
        _run("iptables", "-w", "-I", "FORWARD", "-s", inside, *mark, "-j", "ACCEPT")
        _run("iptables", "-w", "-I", "FORWARD", "-d", inside, *mark, "-j", "ACCEPT")
        outward = ("-s", inside, "!", "-d", inside, *mark, "-j", "MASQUERADE")
        _run("iptables", "-w", "-t", "nat", "-I", "POSTROUTING", *outward)
        _forward()
    return bridge


def remove(tag: str) -> None:
    """Remove what was made for the engine with this tag, the networks of its users included."""
    with _alone():
        for table, chain in _CHAINS:
            for rule in _run("iptables", "-w", "-t", table, "-S", chain).splitlines():
                words = shlex.split(rule)
                if tag in words:
                    _run("iptables", "-w", "-t", table, "-D", *words[1:])
                    _remove_links(IPv4Network(words[words.index("-s" if "-s" in words else "-d") + 1]))
        subprocess.run(["ip", "link", "delete", _PREFIX + tag[-8:]], stderr=subprocess.DEVNULL)
        _forward_no_more()


def _forward() -> None:
    """Let this machine pass packets on, as dockerd would: it is switched on before dockerd starts, which else
    warns with each container."""
    if _FORWARD.read_text().strip() == "0":
        (SHARED / "forwarding-was-off").touch()
        _FORWARD.write_text("1")


def _forward_no_more() -> None:
    """Undo `_forward` with the last of our bridges; but not as long as there are others', who rely on it by now."""
    note = SHARED / "forwarding-was-off"
    if note.exists() and not _ip("link", "show", "type", "bridge"):
        _FORWARD.write_text("0")
        note.unlink()


def _remove_links(network: IPv4Network) -> None:
    for link in _ip("address"):
        if any(IPv4Network(f"{info['local']}/32").subnet_of(network) for info in _inet(link)):
            subprocess.run(["ip", "link", "delete", link["ifname"]], stderr=subprocess.DEVNULL)


def _addresses() -> Iterator[IPv4Network]:
    """What is in use here: addresses, and routes to elsewhere."""
    for link in _ip("address"):
        for info in _inet(link):
            yield IPv4Network(f"{info['local']}/{info['prefixlen']}", strict=False)
    for route in _ip("route", "show", "table", "all"):
        if route["dst"] != "default" and ":" not in route["dst"]:
            yield IPv4Network(route["dst"], strict=False)


def _inet(link: dict[str, Any]) -> list[dict[str, Any]]:
    return [info for info in link.get("addr_info", []) if info["family"] == "inet"]


def _way_out() -> str | None:
    """The device to which the default route leads."""
    return next((route["dev"] for route in _ip("route", "show", "default") if "dev" in route), None)


@contextmanager
def _alone() -> Iterator[None]:
    """Sessions that look for free addresses at the same time would find the same."""
    SHARED.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (SHARED / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _ip(*words: str) -> list[dict[str, Any]]:
    # Some versions leave empty objects in place of what was not asked for.
    return [found for found in json.loads(_run("ip", "-4", "-json", *words) or "[]") if found]


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"
    return done.stdout
