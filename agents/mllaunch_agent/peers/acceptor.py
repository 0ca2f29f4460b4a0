"""The first agent's door: who comes there and proves to belong to the attempt is let in."""

from __future__ import annotations

import os
import select
import socket
from typing import List, NamedTuple, Optional

from mllaunch_agent.peers.interface import AGAIN_S
from mllaunch_agent.peers.meeting import listen
from mllaunch_agent.peers.session import FIRST, OTHER, session_key
from mllaunch_agent.peers.wire import FAULTS, Message, Wire

__all__ = ["Acceptor", "Arrival"]

_STRANGERS = 64  # connections that have not shown yet who they are


class Arrival(NamedTuple):
    """Somebody who has proved to be the agent of a node; said: its first message."""

    rank: int
    wire: Wire
    said: Message


class _Stranger:
    """rank: who it says it is."""

    def __init__(self, wire: Wire, nonce: str) -> None:
        self.wire = wire
        self.nonce = nonce
        self.rank: Optional[int] = None


class Acceptor:
    """folder: the attempt's. count: of its nodes."""

    def __init__(self, folder: str, token: bytes, count: int, now_s: float) -> None:
        self._folder = folder
        self._token = token
        self._count = count
        self._listener: Optional[socket.socket] = None
        self._listened_s = -AGAIN_S
        self._strangers: List[_Stranger] = []
        self._listen(now_s)

    def tick(self, now_s: float) -> List[Arrival]:
        self._listen(now_s)
        self._accept(now_s)
        arrived = []
        for stranger in list(self._strangers):
            try:
                found = self._greet(stranger, now_s)
            except FAULTS:
                stranger.wire.close()
                self._strangers.remove(stranger)
            else:
                if found is not None:
                    arrived.append(found)
                    self._strangers.remove(stranger)
        return arrived

    def _listen(self, now_s: float) -> None:
        """Of one that takes over somebody may have the port: then again later, for the tasks go on meanwhile."""
        if self._listener is None and now_s - self._listened_s >= AGAIN_S:
            self._listened_s = now_s
            try:
                self._listener = listen(self._folder)
            except OSError:
                pass

    def _accept(self, now_s: float) -> None:
        for _ in range(_STRANGERS):
            if self._listener is None or not select.select([self._listener], [], [], 0)[0]:
                return
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if len(self._strangers) >= _STRANGERS:
                self._strangers.pop(0).wire.close()  # who belongs to us comes again
            stranger = _Stranger(Wire(sock, now_s), os.urandom(16).hex())
            stranger.wire.say({"nonce": stranger.nonce})
            self._strangers.append(stranger)

    def _greet(self, stranger: _Stranger, now_s: float) -> Optional[Arrival]:
        stranger.wire.tick(now_s)
        for message in stranger.wire.heard():
            if (
                stranger.rank is not None
            ):  # and the message has a MAC that only an agent of the attempt can make
                stranger.wire.trust()
                return Arrival(stranger.rank, stranger.wire, message)
            rank, nonce = message["rank"], message["nonce"]
            if not (isinstance(rank, int) and 0 < rank < self._count and isinstance(nonce, str)):
                raise ValueError("no node of the attempt")
            stranger.rank = rank
            key = session_key(self._token, stranger.nonce, nonce, rank)
            stranger.wire.protect(key, own=FIRST, other=OTHER)
        return None

    def filenos(self) -> List[int]:
        own = [] if self._listener is None else [self._listener.fileno()]
        return [*own, *(stranger.wire.sock.fileno() for stranger in self._strangers)]

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        for stranger in self._strangers:
            stranger.wire.close()
