"""The agents of one attempt on several nodes, in touch with each other: docs/protocol.md, "Peers".

The agent of node rank 0 listens, the others come to it. Through it they take their GPUs one node after the other, in an
order that is the same for every run (so no two runs wait for each other), compare their code, begin together, and hear
of the first failure and of stops, whether or not a launcher is there. Everything here returns at once; the supervisor's
tick drives it.
"""

from __future__ import annotations

import abc
import hashlib
import hmac
import json
import os
import select
import socket
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple

from mllaunch_agent import protocol, system

__all__ = ["Peers", "Verdict", "addresses", "make"]

Message = Dict[str, Any]

_LINE_BYTES = 1 << 16  # more than any message; what sends more is none of ours
_AT_ONCE_BYTES = 4 * _LINE_BYTES
_STRANGER_BYTES = 4096
_DETAIL = 1000  # characters
_STRANGERS = 64  # connections that have not shown yet who they are
_FAULTS = (OSError, ValueError, KeyError, TypeError, ArithmeticError)
_AGAIN_S = 1.0
_PING_S = 2.0
_ANSWER_S = 3.0  # until the other end has shown who it is
_DEAF_S = 10.0  # a connection over which nothing comes for so long is given up, and made anew
_ARRIVAL_S = 60.0


class Verdict(NamedTuple):
    """Why every node is to stop. kind, detail: as outcome.Cause. node_rank: where it began."""

    kind: str
    detail: str
    node_rank: int


class Wire:
    """One connection, as lines of JSON in both directions; it never blocks."""

    def __init__(self, sock: socket.socket, now_s: float) -> None:
        self.sock = sock
        self.heard_s = now_s
        self.patience_s = _ANSWER_S
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


class Peers(abc.ABC):
    """What both sides have.

    has_turn: this node may take its GPUs. go: (address, port) of the first task, once all may begin. verdict: why all
    are to stop, once that is known.
    """

    def __init__(self, spec: protocol.TaskSpec, meeting: protocol.Meeting, code: str, queue: str) -> None:
        self._rank = spec["node_rank"]
        self._node = spec["node"]
        self._count = spec["nodes"]
        self._token = bytes.fromhex(meeting["token"])
        self._lease_s = meeting["lease_s"]
        self._code = code
        self._queue = queue
        self.verdict: Optional[Verdict] = None
        self.go: Optional[Tuple[str, int]] = None
        self.has_turn = False
        self.is_over = False
        self.waiting_for: List[str] = []

    def _proof(self, *words: object) -> str:
        text = "|".join(str(word) for word in words)
        return hmac.new(self._token, text.encode(), hashlib.sha256).hexdigest()

    @abc.abstractmethod
    def tick(self, now_s: float) -> None:
        """Send and hear what is due. now_s: seconds since boot."""

    @abc.abstractmethod
    def say_leased(self) -> None:
        """The GPUs of this node are taken."""

    @abc.abstractmethod
    def say_ready(self) -> None:
        """Everything is ready to start here."""

    @abc.abstractmethod
    def say_stop(self, kind: str, detail: str) -> None:
        """All are to stop; kind and detail as in Verdict."""

    @abc.abstractmethod
    def say_ended(self) -> None:
        """No task lives here any more."""

    @property
    @abc.abstractmethod
    def others_go_on(self) -> bool:
        """Whether somebody still needs this agent."""

    @abc.abstractmethod
    def filenos(self) -> List[int]:
        """Descriptors that no child may keep: the other end must see when this process is gone."""

    @abc.abstractmethod
    def close(self) -> None:
        """Leave."""


class _Known(NamedTuple):
    """What the first node knows of another."""

    node: str
    queue: str
    code: str
    address: str  # of the first node, as it was reached from there


class First(Peers):
    """The agent of node rank 0."""

    def __init__(
        self,
        spec: protocol.TaskSpec,
        meeting: protocol.Meeting,
        code: str,
        queue: str,
        free_port: Callable[[], int],
    ) -> None:
        super().__init__(spec, meeting, code, queue)
        self._free_port = free_port
        self._listener: Optional[socket.socket] = None
        self._listened_s = -_AGAIN_S
        self._new: List[Tuple[Wire, str]] = []  # with the nonce that it was asked to prove itself with
        self._wires: Dict[int, Wire] = {}
        self._known: Dict[int, _Known] = {}
        self._heard_s: Dict[int, float] = {}
        self._told: List[int] = []  # those that may take their GPUs
        self._leased: List[int] = []
        self._ready: List[int] = []
        self._ended: List[int] = []
        self._folder = spec["folder"]
        self._recall()
        self._waits_since_s: Optional[float] = None
        self._listen(system.boot_s())
        self._needs_turns = spec["gpus"] > 0

    def _recall(self) -> None:
        """What the agent before this one knew of who belongs to the attempt."""
        from mllaunch_agent import node

        for rank, known, has_ended in node.read_json(self._peers_path()) or ():
            self._known[rank] = _Known(*known)
            self._heard_s[rank] = system.boot_s()
            if has_ended:
                self._ended.append(rank)

    def _remember(self) -> None:
        found = [[rank, list(known), rank in self._ended] for rank, known in self._known.items()]
        try:
            system.write_atomic(self._peers_path(), json.dumps(found).encode())
        except OSError:
            pass  # the disk is full: only another agent would miss it

    def _peers_path(self) -> str:
        return os.path.join(self._folder, "peers.json")

    def tick(self, now_s: float) -> None:
        self._accept(now_s)
        for wire, nonce in list(self._new):
            self._greet(wire, nonce, now_s)
        for rank, wire in list(self._wires.items()):
            try:
                messages = wire.tick(now_s)
            except _FAULTS:
                wire.close()
                del self._wires[rank]
            else:
                self._heard_s[rank] = wire.heard_s
                self._heed_all(rank, messages)
        self._look_for_lost(now_s)
        if self.go is None and self.verdict is None:
            self._arrange(now_s)

    def _listen(self, now_s: float) -> None:
        """Of one that takes over somebody may have the port: then again later, for the tasks go on meanwhile."""
        if self._listener is None and now_s - self._listened_s >= _AGAIN_S:
            self._listened_s = now_s
            try:
                self._listener = _listen(self._folder)
            except OSError:
                pass

    def _accept(self, now_s: float) -> None:
        self._listen(now_s)
        if self._listener is None:
            return
        for _ in range(_STRANGERS):
            if not select.select([self._listener], [], [], 0)[0]:
                return
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if len(self._new) >= _STRANGERS:
                self._new.pop(0)[0].close()  # who belongs to us comes again
            wire, nonce = Wire(sock, now_s), os.urandom(16).hex()
            wire.say({"nonce": nonce})
            self._new.append((wire, nonce))

    def _greet(self, wire: Wire, nonce: str, now_s: float) -> None:
        try:
            messages = wire.tick(now_s)
            if not messages:
                if now_s - wire.came_s > _ANSWER_S:
                    raise ValueError("it does not say who it is")
                return
            hello = messages[0]
            rank = hello["rank"]
            if not (
                isinstance(rank, int)
                and hmac.compare_digest(str(hello["proof"]), self._proof(nonce, rank))
                and 0 < rank < self._count
            ):
                raise ValueError("not one of us")
            fields = ("node", "queue", "code", "address")
            self._known[rank] = _Known(*(str(hello[field]) for field in fields))
            self._remember()
            wire.say({"proof": self._proof(hello["nonce"], 0)})
        except _FAULTS:
            wire.close()
        else:
            if rank in self._wires:
                self._wires[rank].close()
            wire.patience_s, wire.at_once_bytes = _DEAF_S, _AT_ONCE_BYTES
            self._wires[rank] = wire
            self._heard_s[rank] = now_s
            for message in self._news(rank):
                wire.say(message)
            self._heed_all(rank, messages[1:])
        self._new.remove((wire, nonce))

    def _news(self, rank: int) -> List[Message]:
        """What one that comes (again) must know."""
        news: List[Message] = []
        if rank in self._told:
            news.append({"turn": True})
        if self.go is not None:
            news.append({"go": list(self.go)})
        if self.verdict is not None:
            news.append({"verdict": list(self.verdict)})
        return news

    def _heed_all(self, rank: int, messages: List[Message]) -> None:
        for message in messages:
            try:
                self._heed(rank, message)
            except _FAULTS:
                if rank in self._wires:
                    self._wires.pop(rank).close()
                return

    def _heed(self, rank: int, message: Message) -> None:
        if message.get("leased") and rank not in self._leased:
            self._leased.append(rank)
        if message.get("ready") and rank not in self._ready:
            self._ready.append(rank)
        if "stop" in message:
            kind, detail = message["stop"]
            self._decide(Verdict(str(kind), str(detail)[:_DETAIL], rank))
        if message.get("ended"):
            if rank not in self._ended:
                self._ended.append(rank)
                self._remember()
            if rank in self._wires:
                self._wires[rank].say({"bye": True})

    # --- beginning together

    def _arrange(self, now_s: float) -> None:
        missing = [rank for rank in range(1, self._count) if rank not in self._known]
        self.waiting_for = ["node %d" % rank for rank in missing]
        if self._waits_since_s is None:
            self._waits_since_s = now_s
        if missing:
            if now_s - self._waits_since_s > _ARRIVAL_S:
                words = ", ".join(self.waiting_for)
                self._decide(Verdict("incomplete", "%s of %d did not come" % (words, self._count), 0))
            return
        strange = [known.node for known in self._known.values() if known.code != self._code]
        if strange:
            detail = "the code on %s is not that on %s" % (", ".join(sorted(strange)), self._node)
            self._decide(Verdict("mixed_code", detail, 0))
            return
        if not self._needs_turns:
            self._leased = list(range(self._count))
        if self._turn() in (0, None):
            self.has_turn = True
        turn = self._turn()
        if turn is not None and turn not in self._told and turn in self._wires:
            self._wires[turn].say({"turn": True})
            self._told.append(turn)
        if len(self._ready) == self._count:
            self._begin()

    def _turn(self) -> Optional[int]:
        """Whose turn it is to take GPUs: by the names of their queues, so that all runs have the same order."""
        if len(self._known) < self._count - 1:
            return None
        queues = {0: self._queue, **{rank: known.queue for rank, known in self._known.items()}}
        order = sorted(queues, key=lambda rank: (queues[rank], rank))
        left = [rank for rank in order if rank not in self._leased]
        return left[0] if left else None

    def _begin(self) -> None:
        reached = [known.address for _, known in sorted(self._known.items())]
        # That by which most have come; of several the first node's, but rather none that only its own machine knows.
        address = max(reached, key=lambda way: (not way.startswith("127."), reached.count(way)))
        self.go = (address, self._free_port())
        self._tell_all({"go": list(self.go)})

    def say_leased(self) -> None:
        if 0 not in self._leased:
            self._leased.append(0)

    def say_ready(self) -> None:
        if 0 not in self._ready:
            self._ready.append(0)

    # --- ending together

    def say_stop(self, kind: str, detail: str) -> None:
        self._decide(Verdict(kind, detail, 0))

    def _decide(self, verdict: Verdict) -> None:
        """The first that is heard of counts."""
        if self.verdict is None:
            self.verdict = verdict
        self._tell_all({"verdict": list(self.verdict)})

    def _tell_all(self, message: Message) -> None:
        for wire in self._wires.values():
            wire.say(message)

    def _look_for_lost(self, now_s: float) -> None:
        for rank, heard_s in self._heard_s.items():
            if rank not in self._ended and rank not in self._wires and now_s - heard_s > self._lease_s:
                node = self._known[rank].node
                detail = "%s has been silent for %d s" % (node, now_s - heard_s)
                self._decide(Verdict("lost", detail, rank))
                self._ended.append(rank)  # nobody waits for it any more

    def say_ended(self) -> None:
        pass

    @property
    def others_go_on(self) -> bool:
        """Whether some node has tasks that have not ended, as far as is known here."""
        return any(rank not in self._ended for rank in self._known)

    def filenos(self) -> List[int]:
        wires = [*self._wires.values(), *(wire for wire, _ in self._new)]
        own = [] if self._listener is None else [self._listener.fileno()]
        return [*own, *(wire.sock.fileno() for wire in wires)]

    def close(self) -> None:
        self.tick(system.boot_s())  # what was said last goes out
        if self._listener is not None:
            self._listener.close()
        for wire in [*self._wires.values(), *(wire for wire, _ in self._new)]:
            wire.close()


class Member(Peers):
    """The agent of any other node."""

    def __init__(self, spec: protocol.TaskSpec, meeting: protocol.Meeting, code: str, queue: str) -> None:
        super().__init__(spec, meeting, code, queue)
        self._ways = [(address, meeting["port"]) for address in meeting["addresses"]]
        self._way = 0
        self._wire: Optional[Wire] = None
        self._is_known = False
        self._nonce = ""
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
                for message in self._wire.tick(now_s):
                    self._heed(message)
                if self._is_known:
                    self._heard_s = self._wire.heard_s
        except _FAULTS:
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
        if self._wire is not None or (now_s - self._tried_s < _AGAIN_S and self._way % len(self._ways) == 0):
            return
        self._tried_s = now_s
        address, port = self._ways[self._way % len(self._ways)]
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        self._wire = Wire(sock, now_s)
        sock.connect_ex((address, port))  # whether it succeeds, the first sending or receiving shows

    def _heed(self, message: Message) -> None:
        assert self._wire is not None
        if "nonce" in message and not self._is_known:
            self._nonce = os.urandom(16).hex()
            self._wire.say(
                {
                    "rank": self._rank,
                    "node": self._node,
                    "queue": self._queue,
                    "code": self._code,
                    "address": self._ways[self._way % len(self._ways)][0],
                    "nonce": self._nonce,
                    "proof": self._proof(message["nonce"], self._rank),
                }
            )
        elif "proof" in message and not self._is_known:
            if not hmac.compare_digest(str(message["proof"]), self._proof(self._nonce, 0)):
                raise ValueError("not the first node")
            self._is_known = True
            self._wire.patience_s, self._wire.at_once_bytes = _DEAF_S, _AT_ONCE_BYTES
            self._was_known = True
            for lasting in self._lasting:
                self._wire.say(lasting)
        elif self._is_known:
            self._obey(message)

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
        patience_s = self._lease_s if self._was_known else min(2 * _ARRIVAL_S, self._lease_s)
        if self.verdict is None and now_s - self._heard_s > patience_s:
            detail = "the first node has been silent for %d s" % (now_s - self._heard_s)
            self.verdict = Verdict("lost", detail, 0)

    def _say(self, message: Message) -> None:
        if message not in self._lasting:
            self._lasting.append(message)
            if self._wire is not None and self._is_known:
                self._wire.say(message)

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
        return not self._may_leave and waited_s < _DEAF_S

    def filenos(self) -> List[int]:
        return [] if self._wire is None else [self._wire.sock.fileno()]

    def close(self) -> None:
        self.is_over = True
        if self._wire is not None:
            self._wire.close()


def make(spec: protocol.TaskSpec, code: str, queue: str, free_port: Callable[[], int]) -> Optional[Peers]:
    """None for an attempt on one node."""
    meeting = spec["meeting"]
    if meeting is None:
        return None
    if spec["node_rank"] == 0:
        return First(spec, meeting, code, queue, free_port)
    return Member(spec, meeting, code, queue)


def _listen(folder: str) -> socket.socket:
    """On a port that stays the attempt's: meeting.json tells it to the launcher, and to an agent that takes over."""
    from mllaunch_agent import node

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
