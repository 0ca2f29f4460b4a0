"""A connection between two agents, as messages."""

from __future__ import annotations

import json
import socket
from typing import Any, Dict, Iterator, Optional

from mllaunch_agent.peers.session import Direction

__all__ = ["DEAF_S", "FAULTS", "Message", "Wire"]

Message = Dict[str, Any]

FAULTS = (OSError, ValueError, KeyError, TypeError, ArithmeticError)  # of a wire, or of what came over it
DEAF_S = 10.0  # a connection over which nothing comes for so long is given up, and made anew
_ANSWER_S = 3.0  # until the other end has shown who it is
_LINE_BYTES = 1 << 16  # more than any message; what sends more is none of ours
_STRANGERS_LINE_BYTES = 4096
_PING_S = 2.0


class Wire:
    """One connection, as lines of JSON in both directions; it never blocks.

    heard_s: when the last message was heard.
    """

    def __init__(self, sock: socket.socket, now_s: float) -> None:
        self.sock = sock
        self.heard_s = now_s
        self._now_s = now_s
        self._said_s = now_s
        self._patience_s = _ANSWER_S
        self._line_bytes = _STRANGERS_LINE_BYTES
        self._says: Optional[Direction] = None
        self._hears: Optional[Direction] = None
        self._in = b""
        self._out = b""
        self._fault: Optional[OSError] = None
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def protect(self, key: bytes, own: str, other: str) -> None:
        """From now on every message, in both directions, must prove that it is the next."""
        self._says, self._hears = Direction(key, own), Direction(key, other)

    @property
    def is_protected(self) -> bool:
        return self._hears is not None

    def trust(self) -> None:
        """The other end has shown who it is."""
        self._patience_s, self._line_bytes = DEAF_S, _LINE_BYTES

    def say(self, message: Message) -> None:
        """At once, as far as it can be sent: the answer to it is what the next tick is waited for."""
        line = json.dumps(message).encode("ascii")
        self._out += (line if self._says is None else self._says.sign(line)) + b"\n"
        try:
            self._send()
        except OSError as error:
            self._fault = error

    def tick(self, now_s: float) -> None:
        """Send and receive what can be. OSError or ValueError once it is of no more use, and all was heard."""
        self._now_s = now_s
        if self._fault is None:
            if self.is_protected and now_s - self._said_s >= _PING_S:
                self.say({"ping": True})
                self._said_s = now_s
            try:
                self._send()
                self._receive()
            except BlockingIOError:
                pass
            except OSError as error:
                self._fault = error
        if self._fault is not None:
            self._hear_last_words()
        if self._fault is not None and b"\n" not in self._in:
            raise self._fault
        if now_s - self.heard_s > self._patience_s and b"\n" not in self._in:
            raise ConnectionError("silent")

    def _send(self) -> None:
        try:
            while self._out:
                self._out = self._out[self.sock.send(self._out) :]
        except BlockingIOError:
            pass

    def _hear_last_words(self) -> None:
        """What came before the fault, whoever has seen that."""
        try:
            self._receive()
        except OSError:
            pass

    def _receive(self) -> None:
        while len(self._in) <= self._line_bytes:
            data = self.sock.recv(self._line_bytes)
            if not data:
                raise ConnectionError("closed")
            self._in += data

    def heard(self) -> Iterator[Message]:
        """The new messages, one by one: what one says may decide how the next is read. ValueError if one is none."""
        while True:
            line, end, rest = self._in.partition(b"\n")
            if len(line) > self._line_bytes:
                raise ValueError("no line")
            if not end:
                return
            self._in = rest
            message = _message(line if self._hears is None else self._hears.verify(line))
            self.heard_s = self._now_s
            yield message

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
