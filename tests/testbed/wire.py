"""A bad wire between two network devices: loses packets, delays them, or carries them one way only.

``python -m tests.testbed.wire INNER OUTER SETTINGS`` in their network namespace passes on what arrives at either
device, from when it prints a line until its stdin ends. SETTINGS is JSON. In user space, since not every kernel has a
queueing discipline that delays (tc-netem(8)).
"""

from __future__ import annotations

import json
import random
import select
import socket
import struct
import sys
import time
from collections import deque
from typing import NamedTuple

# linux/if_packet.h. With a header that tells about segments and checksums still to be made (virtio_net.h), what
# the kernel left to the hardware is left to it again.
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15
_ALL = 3  # ETH_P_ALL
_OUTGOING = 4  # PACKET_OUTGOING: what we have sent ourselves
_FRAME_BYTES = 1 << 17
_BUFFER_BYTES = 1 << 24


class Settings(NamedTuple):
    """loss: which part of the packets is lost, at random, in either direction. delay_s: of what the inner end sends.

    mute, deaf: nothing that the inner end sends arrives; nothing arrives at it.
    """

    loss: float = 0.0
    delay_s: float = 0.0
    mute: bool = False
    deaf: bool = False
    seed: int = 1


def carry(inner: str, outer: str, settings: Settings) -> None:
    """Until stdin ends; a line on stdout says that it has begun."""
    chance = random.Random(settings.seed)
    one, other = _open(inner), _open(outer)
    print(flush=True)
    late: deque[tuple[float, bytes]] = deque()  # (when it is due, frame), in that order
    while True:
        pause_s = max(0.0, late[0][0] - time.monotonic()) if late else None
        ready = select.select([one, other, sys.stdin], [], [], pause_s)[0]
        if sys.stdin in ready:
            return
        while late and late[0][0] <= time.monotonic():
            _send(other, late.popleft()[1])
        for end in (one, other):
            frame = _receive(end) if end in ready else None
            is_lost = settings.mute if end is one else settings.deaf
            if frame is None or is_lost or chance.random() < settings.loss:
                continue
            if end is one:
                late.append((time.monotonic() + settings.delay_s, frame))
            else:
                _send(one, frame)


def _open(device: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
    made.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, struct.pack("i", 1))
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
    made.bind((device, _ALL))
    return made


def _receive(end: socket.socket) -> bytes | None:
    frame, address = end.recvfrom(_FRAME_BYTES)
    return None if address[2] == _OUTGOING else frame


def _send(end: socket.socket, frame: bytes) -> None:
    try:
        end.send(frame)
    except OSError:
        pass  # the device is down: lost, as on any wire


if __name__ == "__main__":
    carry(sys.argv[1], sys.argv[2], Settings(**json.loads(sys.argv[3])))
