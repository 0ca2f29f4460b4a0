"""The agent of node rank 0: it listens, arranges the beginning, and tells the others of the end."""

from __future__ import annotations

from typing import Callable, Dict, List, Optional

from mllaunch_agent import protocol, system
from mllaunch_agent.peers.acceptor import Acceptor, Arrival
from mllaunch_agent.peers.interface import ARRIVAL_S, Peers, Verdict
from mllaunch_agent.peers.memory import Known, Memory, recall, remember
from mllaunch_agent.peers.wire import FAULTS, Message, Wire

_DETAIL = 1000  # characters


class First(Peers):
    """The agent of node rank 0."""

    def __init__(
        self,
        spec: protocol.TaskSpec,
        meeting: protocol.Meeting,
        queue: str,
        free_port: Callable[[], int],
    ) -> None:
        super().__init__(spec, meeting, queue)
        self._free_port = free_port
        self._wires: Dict[int, Wire] = {}
        self._codes: Dict[int, str] = {}
        self._told: List[int] = []  # those that may go on
        self._leased: List[int] = []
        self._ready: List[int] = []
        self._stops: List[Verdict] = []  # heard in this tick
        self._folder = spec["folder"]
        # From the agent before this one, if there was one.
        self._known, self._ended, self.go, self.verdict = recall(self._folder)
        self.has_turn = self.go is not None
        self._heard_s = {rank: system.boot_s() for rank in self._known}
        self._waits_since_s: Optional[float] = None
        self._acceptor = Acceptor(self._folder, self._token, self._count, system.boot_s())
        self._needs_turns = spec["gpus"] > 0

    def _remember(self) -> None:
        remember(self._folder, Memory(self._known, self._ended, self.go, self.verdict))

    def tick(self, now_s: float) -> None:
        for arrived in self._acceptor.tick(now_s):
            self._let_in(arrived, now_s)
        for rank, wire in list(self._wires.items()):
            try:
                wire.tick(now_s)
                for message in wire.heard():
                    self._heed(rank, message)
            except FAULTS:
                wire.close()
                del self._wires[rank]
            self._heard_s[rank] = wire.heard_s
        # What is heard at once has no order: but a stop makes tasks fail on other nodes, a failure asks for no stop.
        for verdict in sorted(self._stops, key=lambda stop: stop.kind == "failed"):
            self._decide(verdict)
        self._stops.clear()
        self._look_for_lost(now_s)
        if self.go is None and self.verdict is None:
            self._arrange(now_s)

    def _let_in(self, arrived: Arrival, now_s: float) -> None:
        rank, wire, said = arrived
        fields = ("node", "queue", "address")
        try:
            self._known[rank] = Known(*(str(said[field]) for field in fields))
        except KeyError:
            wire.close()
            return
        self._remember()
        if rank in self._wires:
            self._wires[rank].close()
        self._wires[rank] = wire
        self._heard_s[rank] = now_s
        for message in [{"welcome": True}, *self._news(rank)]:
            wire.say(message)

    def _news(self, rank: int) -> List[Message]:
        """What one that comes (again) must know."""
        news: List[Message] = []
        if rank in self._told or self.go is not None:
            news.append({"turn": True})
        if self.go is not None:
            news.append({"go": list(self.go)})
        if self.verdict is not None:
            news.append({"verdict": list(self.verdict)})
        return news

    def _heed(self, rank: int, message: Message) -> None:
        if "code" in message:
            self._codes[rank] = str(message["code"])
        if message.get("leased") and rank not in self._leased:
            self._leased.append(rank)
        if message.get("ready") and rank not in self._ready:
            self._ready.append(rank)
        if "stop" in message:
            kind, detail = message["stop"]
            self._stops.append(Verdict(str(kind), str(detail)[:_DETAIL], rank))
        if message.get("ended"):
            if rank not in self._ended:
                self._ended.append(rank)
                self._remember()
            self._wires[rank].say({"bye": True})

    # --- beginning together

    def _arrange(self, now_s: float) -> None:
        missing = [rank for rank in range(1, self._count) if rank not in self._known]
        self.waiting_for = ["node %d" % rank for rank in missing]
        if self._waits_since_s is None:
            self._waits_since_s = now_s
        if missing:
            if now_s - self._waits_since_s > ARRIVAL_S:
                words = ", ".join(self.waiting_for)
                self._decide(Verdict("incomplete", "%s of %d did not come" % (words, self._count), 0))
            return
        obstacle = self._obstacle()
        if obstacle is not None:
            self._decide(obstacle)
        elif len(self._codes) == self._count:  # else it is still being read, of much code for long
            self._go_on()

    def _obstacle(self) -> Optional[Verdict]:
        """Why those who have come cannot begin."""
        nodes = {0: self._node, **{rank: known.node for rank, known in self._known.items()}}
        queues = self._queues()
        same = [nodes[rank] for rank in nodes if list(queues.values()).count(queues[rank]) > 1]
        if same and self._needs_turns:
            # Two attempts could each have half of its GPUs, and wait for ever for the other half.
            return Verdict("same_node", "%s are the same machine; name it once" % " and ".join(same), 0)
        if len(self._codes) == self._count:
            strange = [node for rank, node in nodes.items() if self._codes[rank] != self._codes[0]]
            if strange:
                detail = "the code on %s is not that on %s" % (", ".join(sorted(strange)), self._node)
                return Verdict("mixed_code", detail, 0)
        return None

    def _queues(self) -> Dict[int, str]:
        return {0: self._queue, **{rank: known.queue for rank, known in self._known.items()}}

    def _go_on(self) -> None:
        for rank in self._turns():
            if rank == 0:
                self.has_turn = True
            elif rank in self._wires and rank not in self._told:
                self._wires[rank].say({"turn": True})
                self._told.append(rank)
        if len(self._ready) == self._count:
            self._begin()

    def _turns(self) -> List[int]:
        """Who may go on: all at once if there are no GPUs to take, else one after the other, by the names of their
        queues, so that all runs have the same order."""
        queues = self._queues()
        if not self._needs_turns:
            return list(queues)
        left = [rank for rank in queues if rank not in self._leased]
        return sorted(left, key=lambda rank: queues[rank])[:1]

    def _begin(self) -> None:
        reached = [known.address for _, known in sorted(self._known.items())]
        # That by which most have come; of several the first node's, but rather none that only its own machine knows.
        address = max(reached, key=lambda way: (not way.startswith("127."), reached.count(way)))
        self.go = (address, self._free_port())
        self._remember()
        self._tell_all({"go": list(self.go)})

    def say_code(self, code: str) -> None:
        self._codes[0] = code

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
            self._remember()
        self._tell_all({"verdict": list(self.verdict)})

    def _tell_all(self, message: Message) -> None:
        for wire in self._wires.values():
            wire.say(message)

    def _look_for_lost(self, now_s: float) -> None:
        for rank, heard_s in self._heard_s.items():
            if rank not in self._ended and rank not in self._wires and now_s - heard_s > self._lease_s:
                name = self._known[rank].node
                detail = "%s has been silent for %d s" % (name, now_s - heard_s)
                self._ended.append(rank)  # nobody waits for it any more
                self._decide(Verdict("lost", detail, rank))

    def say_ended(self) -> None:
        pass

    @property
    def others_go_on(self) -> bool:
        """Whether some node has tasks that have not ended, as far as is known here."""
        return any(rank not in self._ended for rank in self._known)

    @property
    def owes_word(self) -> bool:
        return False

    def filenos(self) -> List[int]:
        return [*self._acceptor.filenos(), *(wire.sock.fileno() for wire in self._wires.values())]

    def close(self) -> None:
        self.tick(system.boot_s())  # what was said last goes out
        self._acceptor.close()
        for wire in self._wires.values():
            wire.close()
