"""A connection between two agents, as messages."""

from __future__ import annotations

import json
import socket
from typing import Any, Dict, List, Optional

__all__ = ["AT_ONCE_BYTES", "DEAF_S", "FAULTS", "Message", "Wire"]

Message = Dict[str, Any]

FAULTS = (OSError, ValueError, KeyError, TypeError, ArithmeticError)  # of a wire, or of what came over it
DEAF_S = 10.0  # a connection over which nothing comes for so long is given up, and made anew
ANSWER_S = 3.0  # until the other end has shown who it is
AT_ONCE_BYTES = 1 << 18
_LINE_BYTES = 1 << 16  # more than any message; what sends more is none of ours
_STRANGER_BYTES = 4096
_PING_S = 2.0


class Wire:
    """One connection, as lines of JSON in both directions; it never blocks."""

    def __init__(self, sock: socket.socket, now_s: float) -> None:
        self.sock = sock
        self.heard_s = now_s
        self.patience_s = ANSWER_S
        self.at_once_bytes = _STRANGER_BYTES
        self.came_s = now_s
        self._said_s = now_s
        self._in = b""
        self._out = b""
        self._fault: Optional[OSError] = None
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def say(self, message: Message) -> None:
        self._out += json.dumps(message).encode("ascii") + b"\n"

    def tick(self, now_s: float) -> List[Message]:
        """Send and receive what can be; the new messages. OSError or ValueError once it is of no more use."""
        if self._fault is not None:
            raise self._fault
        if now_s - self._said_s >= _PING_S:
            self.say({"ping": True})
            self._said_s = now_s
        try:
            self._send()
            self._receive(now_s)
        except BlockingIOError:
            pass
        except OSError as error:
            self._fault = error  # after the last words, which may have come before
        *lines, self._in = self._in.split(b"\n")
        if self._fault is not None and not lines:
            raise self._fault
        if max(map(len, [*lines, self._in])) > _LINE_BYTES or len(self._in) >= self.at_once_bytes:
            raise ValueError("no line")
        if now_s - self.heard_s > self.patience_s:
            raise ConnectionError("silent")
        return [_message(line) for line in lines]

    def _send(self) -> None:
        try:
            while self._out:
                self._out = self._out[self.sock.send(self._out) :]
        except BlockingIOError:
            pass

    def _receive(self, now_s: float) -> None:
        while len(self._in) < self.at_once_bytes:
            data = self.sock.recv(self.at_once_bytes)
            if not data:
                raise ConnectionError("closed")
            self._in += data
            self.heard_s = now_s

    def close(self) -> None:
        self.sock.close()


def _message(line: bytes) -> Message:
    """ValueError if it is none."""
    try:
        found = json.loads(line)
    except RecursionError:
        found = None
    if not isinstance(found, dict):
        raise ValueError("no message")
    return found
