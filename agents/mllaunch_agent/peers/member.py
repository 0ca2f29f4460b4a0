"""The agent of any node but the first: it comes to that one, and does as it says."""

from __future__ import annotations

import os
import socket
from typing import List, Optional

from mllaunch_agent import protocol, system
from mllaunch_agent.peers.interface import AGAIN_S, ARRIVAL_S, Peers, Verdict
from mllaunch_agent.peers.session import FIRST, OTHER, session_key
from mllaunch_agent.peers.wire import DEAF_S, FAULTS, Message, Wire


class Member(Peers):
    """The agent of any other node."""

    def __init__(self, spec: protocol.TaskSpec, meeting: protocol.Meeting, queue: str) -> None:
        super().__init__(spec, meeting, queue)
        self._ways = [(address, meeting["port"]) for address in meeting["addresses"]]
        self._way = 0
        self._wire: Optional[Wire] = None
        self._is_known = False
        self._tried_s = 0.0
        self._heard_s = system.boot_s()
        self._ended_s: Optional[float] = None
        self._may_leave = False
        self._was_known = False
        self._lasting: List[Message] = []  # said again over each new connection

    def tick(self, now_s: float) -> None:
        if self.is_over:
            return
        try:
            self._connect(now_s)
            if self._wire is not None:
                self._wire.tick(now_s)
                for message in self._wire.heard():
                    self._heed(message)
                if self._is_known:
                    self._heard_s = self._wire.heard_s
        except FAULTS:
            self._disconnect()
        self._look_for_lost(now_s)

    def _disconnect(self) -> None:
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        if not self._is_known:
            self._way += 1
        self._is_known = False

    def _connect(self, now_s: float) -> None:
        if self._wire is not None or (now_s - self._tried_s < AGAIN_S and self._way % len(self._ways) == 0):
            return
        self._tried_s = now_s
        address, port = self._ways[self._way % len(self._ways)]
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        self._wire = Wire(sock, now_s)
        sock.connect_ex((address, port))  # whether it succeeds, the first sending or receiving shows

    def _heed(self, message: Message) -> None:
        assert self._wire is not None
        if not self._wire.is_protected:
            if not isinstance(message["nonce"], str):
                raise ValueError("no greeting")
            self._introduce(self._wire, message["nonce"])
            return
        if not self._is_known:  # the message has a MAC that only the first agent can make
            self._is_known = self._was_known = True
            self._wire.trust()
            for lasting in self._lasting:
                self._wire.say(lasting)
        self._obey(message)

    def _introduce(self, wire: Wire, first_nonce: str) -> None:
        nonce = os.urandom(16).hex()
        wire.say({"rank": self._rank, "nonce": nonce})
        wire.protect(session_key(self._token, first_nonce, nonce, self._rank), own=OTHER, other=FIRST)
        address = self._ways[self._way % len(self._ways)][0]
        wire.say({"node": self._node, "queue": self._queue, "address": address})

    def _obey(self, message: Message) -> None:
        if message.get("turn"):
            self.has_turn = True
        if "go" in message:
            address, port = message["go"]
            self.go = (str(address), int(port))
        if message.get("bye"):
            self._may_leave = True
        if "verdict" in message and self.verdict is None:
            kind, detail, rank = message["verdict"]
            self.verdict = Verdict(str(kind), str(detail), int(rank))

    def _look_for_lost(self, now_s: float) -> None:
        # A first agent that never answered has ended before this one came: nobody else waits so long for it.
        patience_s = self._lease_s if self._was_known else min(2 * ARRIVAL_S, self._lease_s)
        if self.verdict is None and now_s - self._heard_s > patience_s:
            detail = "the first node has been silent for %d s" % (now_s - self._heard_s)
            self.verdict = Verdict("lost", detail, 0)

    def _say(self, message: Message) -> None:
        if message not in self._lasting:
            self._lasting.append(message)
            if self._wire is not None and self._is_known:
                self._wire.say(message)

    def say_code(self, code: str) -> None:
        self._say({"code": code})

    def say_leased(self) -> None:
        self._say({"leased": True})

    def say_ready(self) -> None:
        self._say({"ready": True})

    def say_stop(self, kind: str, detail: str) -> None:
        self._say({"stop": [kind, detail]})

    def say_ended(self) -> None:
        self._ended_s = system.boot_s()
        self._say({"ended": True})

    @property
    def others_go_on(self) -> bool:
        """The first node is to know that nobody is left here; if it cannot be told, it will see that in time."""
        waited_s = system.boot_s() - (self._ended_s or system.boot_s())
        return not self._may_leave and waited_s < DEAF_S

    def filenos(self) -> List[int]:
        return [] if self._wire is None else [self._wire.sock.fileno()]

    def close(self) -> None:
        self.is_over = True
        if self._wire is not None:
            self._wire.close()
