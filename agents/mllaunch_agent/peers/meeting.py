"""Where the agent of the first node can be reached."""

from __future__ import annotations

import json
import os
import socket
from typing import List

from mllaunch_agent import node, system

__all__ = ["addresses", "listen"]


def listen(folder: str) -> socket.socket:
    """On a port that stays the attempt's: meeting.json tells it to the launcher, and to an agent that takes over."""
    path = os.path.join(folder, "meeting.json")
    known = node.read_json(path)
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    listener = socket.create_server(
        ("", known["port"] if known else 0), family=family, dualstack_ipv6=family == socket.AF_INET6
    )
    listener.setblocking(False)
    os.set_inheritable(listener.fileno(), False)
    if not known:
        document = {"port": listener.getsockname()[1], "addresses": addresses()}
        system.write_atomic(path, json.dumps(document).encode(), durable=True)
    return listener


def addresses() -> List[str]:
    """Where this node may be reached: where the launcher reached it, then what its network interfaces have."""
    reached = os.environ.get("MLLAUNCH_REACHED", "")
    return list(dict.fromkeys(filter(_is_address, [reached, *_interface_addresses()])))


def _is_address(text: str) -> bool:
    """Whether other machines can be told of it: no name, and none that counts on one link only."""
    import ipaddress

    try:
        return not ipaddress.ip_address(text).is_link_local
    except ValueError:
        return False


def _interface_addresses() -> List[str]:
    """IPv4 addresses of the interfaces that are up, but for loopback and the bridges of container engines."""
    import fcntl
    import struct

    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            if name == "lo" or name.startswith(("docker", "br-", "veth", "cni", "virbr")):
                continue
            try:
                # SIOCGIFADDR, netdevice(7)
                answer = fcntl.ioctl(sock.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # it has none
            found.append(socket.inet_ntoa(answer[20:24]))
    return found
