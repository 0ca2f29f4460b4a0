"""The agents of one attempt on several nodes, all in this process: they begin together and end together."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mllaunch_agent import peers, system
from mllaunch_agent.peers import Peers, Verdict
from mllaunch_agent.peers.first import First
from mllaunch_agent.peers.member import Member
from mllaunch_agent.peers.session import FIRST, OTHER, Direction, session_key

TOKEN = "5e" * 32
LEASE_S = 30.0
HOME = "127.0.0.1"
# As deep as it can be read, so that it could not be written any more.
DEEP = b'{"NONCE": %s}\n' % (b"[" * 900 + b"]" * 900)


class Scene:
    """The agents of one attempt, by rank. Time stands still but for ``pass_s``; who is not in ``ticking`` does nothing.

    queues, codes: of each node, by rank; no codes: nobody has read them yet.
    """

    def __init__(self, folder: Path, queues: Sequence[str], codes: str) -> None:
        self.now_s = 1000.0
        self.folder = folder
        self.queues = queues
        self.codes = codes
        self.addresses = [HOME]
        self.gpus = 1
        self.free_port = 4711
        self.ticking: dict[int, Peers] = {}
        self.asleep: list[Peers] = []
        self.others: list[socket.socket] = []
        self.between: Relay | None = None

    def begin(self, *ranks: int) -> None:
        for rank in ranks or range(len(self.queues)):
            self.ticking[rank] = self.make(rank)
        self.settle()

    def make(self, rank: int, token: str = TOKEN) -> Peers:
        meeting = {"token": token, "addresses": self.addresses if rank else [], "port": 0, "lease_s": LEASE_S}
        if rank:
            meeting["port"] = self.between.port if self.between else self.port
        spec: Any = {
            "node": f"n{rank}",
            "node_rank": rank,
            "nodes": len(self.queues),
            "folder": str(self.folder),
            "gpus": self.gpus,
            "meeting": meeting,
        }
        made = peers.make(spec, self.queues[rank], lambda: self.free_port)
        assert made is not None
        if self.codes:
            made.say_code(self.codes[rank])
        return made

    @property
    def port(self) -> int:
        return int(json.loads((self.folder / "meeting.json").read_text())["port"])

    def tick(self) -> None:
        for peer in self.ticking.values():
            peer.tick(self.now_s)
        if self.between:
            self.between.tick()

    def settle(self) -> None:
        """Until nobody has anything to say or to hear any more."""
        quiet = 0
        for _ in range(1000):
            self.tick()
            heard = [*self.ticking.values(), *([self.between] if self.between else [])]
            filenos = [fileno for who in heard for fileno in who.filenos()]
            quiet = 0 if select.select(filenos, [], [], 0.001)[0] else quiet + 1
            if quiet == 3:  # what is said in one tick goes out in the next
                return
        pytest.fail("they never stop talking")

    def pass_s(self, seconds: float) -> None:
        for _ in range(round(seconds)):
            self.now_s += 1
            self.settle()

    def fall_silent(self, rank: int) -> None:
        """Its connection stays, but nothing comes any more."""
        self.asleep.append(self.ticking.pop(rank))

    def die(self, rank: int) -> None:
        close(self.ticking.pop(rank))

    def cut(self, rank: int) -> None:
        """The connection of a member breaks off."""
        with self.own_end(rank) as sock:
            sock.shutdown(socket.SHUT_RDWR)

    def own_end(self, rank: int) -> socket.socket:
        (fileno,) = self.ticking[rank].filenos()
        return socket.socket(fileno=os.dup(fileno))

    def stranger(self) -> socket.socket:
        """Somebody else who comes to the first agent."""
        self.others.append(socket.create_connection((HOME, self.port), timeout=5))
        return self.others[-1]

    def relay(self, from_first: bool, tamper: Callable[[bytes], list[bytes]]) -> Relay:
        """From now on members come through it."""
        self.between = Relay(self.port, from_first, tamper)
        return self.between

    def take_gpus(self) -> None:
        """Everybody whose turn comes takes them."""
        for _ in self.ticking:
            for peer in self.ticking.values():
                if peer.has_turn:
                    peer.say_leased()
            self.settle()

    def say_ready(self, *ranks: int) -> None:
        for rank in ranks or self.ticking:
            self.ticking[rank].say_ready()
        self.settle()

    def arrange(self) -> None:
        self.take_gpus()
        self.say_ready()

    def turns(self) -> list[int]:
        return [rank for rank, peer in self.ticking.items() if peer.has_turn]

    def verdicts(self) -> set[Verdict | None]:
        return {peer.verdict for peer in self.ticking.values()}

    def goes(self) -> set[tuple[str, int] | None]:
        return {peer.go for peer in self.ticking.values()}


class Relay:
    """Stands between a member and the first agent, and does once as ``tamper`` says to what one of them says.

    passed: the lines that went through, by whether they were the first agent's.
    """

    def __init__(self, port: int, from_first: bool, tamper: Callable[[bytes], list[bytes]]) -> None:
        self._first_port = port
        self._server = socket.create_server((HOME, 0))
        self.port = self._server.getsockname()[1]
        self._from_first = from_first
        self._tamper = tamper
        self._ends: dict[bool, socket.socket] = {}  # by whether it is the first agent's
        self.passed: dict[bool, list[bytes]] = {False: [], True: []}
        self.tampered = False
        self.was_hung_up_on = False

    def tick(self) -> None:
        if select.select([self._server], [], [], 0)[0]:
            self.passed = {False: [], True: []}
            self._ends = {False: self._server.accept()[0]}
            self._ends[True] = socket.create_connection((HOME, self._first_port))
            for end in self._ends.values():
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for is_first, end in list(self._ends.items()):
            if not select.select([end], [], [], 0)[0]:
                continue
            try:
                data = end.recv(1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                self.was_hung_up_on = True
                self._hang_up()
                return
            for line in data.splitlines():
                # Until the greeting is over there is nothing that tampering could achieve.
                is_due = (
                    not self.tampered and is_first is self._from_first and len(self.passed[is_first]) >= 2
                )
                self.tampered = self.tampered or is_due
                for said in self._tamper(line) if is_due else [line]:
                    self.passed[is_first].append(said)
                    with contextlib.suppress(ConnectionError):
                        self._ends[not is_first].sendall(said + b"\n")

    def filenos(self) -> list[int]:
        return [self._server.fileno(), *(end.fileno() for end in self._ends.values())]

    def _hang_up(self) -> None:
        for end in self._ends.values():
            end.close()
        self._ends = {}

    def close(self) -> None:
        self._hang_up()
        self._server.close()


def close(peer: Peers) -> None:
    """As the kernel does when its process is gone: without a word."""
    if isinstance(peer, First):
        peer._acceptor.close()
        for wire in peer._wires.values():
            wire.close()
    elif isinstance(peer, Member):
        peer.close()


def is_closed(sock: socket.socket) -> bool:
    """Whether the other end has closed the connection; what it said before does not matter."""
    try:
        while sock.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Scene]]:
    scenes: list[Scene] = []
    monkeypatch.setattr(system, "boot_s", lambda: scenes[-1].now_s)

    def make(queues: Sequence[str] = "abc", codes: str = "xxx") -> Scene:
        folder = tmp_path / f"attempt-{len(scenes)}"
        folder.mkdir()
        scenes.append(Scene(folder, queues, codes))
        return scenes[-1]

    yield make
    for scene in scenes:
        for peer in (*scene.ticking.values(), *scene.asleep):
            close(peer)
        for sock in scene.others:
            sock.close()
        if scene.between:
            scene.between.close()


@pytest.fixture
def scene(attempt: Callable[..., Scene]) -> Scene:
    """Three nodes that know each other."""
    scene = attempt()
    scene.begin()
    return scene


# --- beginning together


def test_all_begin_together_and_agree_on_where_the_first_task_is(scene: Scene) -> None:
    scene.take_gpus()
    scene.say_ready(0, 2)
    assert scene.goes() == {None}
    scene.say_ready(1)
    assert scene.goes() == {(HOME, 4711)}
    assert scene.verdicts() == {None}


def test_an_attempt_on_one_node_has_no_peers() -> None:
    spec: Any = {"meeting": None}
    assert peers.make(spec, "a", lambda: 4711) is None


def test_nobody_takes_gpus_before_all_have_come(attempt: Callable[..., Scene]) -> None:
    scene = attempt()
    scene.begin(0, 2)
    assert scene.turns() == []
    assert scene.ticking[0].waiting_for == ["node 1"]
    scene.begin(1)
    assert scene.turns() == [0]
    assert scene.ticking[0].waiting_for == []


def test_without_gpus_all_go_on_at_once_but_not_before_all_have_come(attempt: Callable[..., Scene]) -> None:
    scene = attempt()
    scene.gpus = 0
    scene.begin(0, 2)
    assert scene.turns() == []
    scene.begin(1)
    assert scene.turns() == [0, 2, 1]
    scene.say_ready()
    assert scene.goes() == {(HOME, 4711)}


@pytest.mark.parametrize(("queues", "order"), [("abc", [0, 1, 2]), ("cba", [2, 1, 0]), ("bca", [2, 0, 1])])
def test_gpus_are_taken_one_node_after_the_other_by_the_names_of_their_queues(
    attempt: Callable[..., Scene], queues: str, order: list[int]
) -> None:
    scene = attempt(queues)
    scene.begin()
    for count, rank in enumerate(order, 1):
        assert scene.turns() == sorted(order[:count])
        scene.ticking[rank].say_leased()
        scene.settle()


def test_two_names_of_one_machine_are_refused_where_its_gpus_would_be_waited_for_twice(
    attempt: Callable[..., Scene],
) -> None:
    scene = attempt("aba")
    scene.begin()
    assert scene.verdicts() == {Verdict("same_node", "n0 and n2 are the same machine; name it once", 0)}
    assert scene.turns() == []


def test_without_gpus_one_machine_may_have_two_names(attempt: Callable[..., Scene]) -> None:
    scene = attempt(queues=["", ""], codes="xx")
    scene.gpus = 0
    scene.begin()
    scene.arrange()
    assert scene.goes() == {(HOME, 4711)}


def test_two_attempts_with_opposite_orders_of_nodes_do_not_wait_for_each_other(
    attempt: Callable[..., Scene],
) -> None:
    taken = []
    for queues in ("ab", "ba"):
        scene = attempt(queues, "xx")
        scene.begin()
        (rank,) = scene.turns()
        taken.append(queues[rank])
    assert taken == ["a", "a"]


def test_a_node_with_other_code_stops_all_and_is_named(attempt: Callable[..., Scene]) -> None:
    scene = attempt(codes="xxy")
    scene.begin()
    assert scene.verdicts() == {Verdict("mixed_code", "the code on n2 is not that on n0", 0)}
    assert scene.turns() == []


def test_nodes_that_never_come_end_the_attempt_as_incomplete(attempt: Callable[..., Scene]) -> None:
    scene = attempt("abcd", "xxxx")
    scene.begin(0, 2)
    scene.pass_s(60)
    assert scene.verdicts() == {None}
    scene.pass_s(1)
    assert scene.verdicts() == {Verdict("incomplete", "node 1, node 3 of 4 did not come", 0)}


def test_while_code_is_being_read_all_are_in_touch_and_none_is_missed(attempt: Callable[..., Scene]) -> None:
    scene = attempt("ab", "")
    scene.begin()
    scene.pass_s(120)
    assert scene.verdicts() == {None}
    assert scene.turns() == []
    scene.ticking[1].say_code("x")
    scene.settle()
    assert scene.turns() == []
    scene.ticking[0].say_code("x")
    scene.settle()
    assert scene.turns() == [0]


# --- strangers and damage


def test_one_without_the_token_is_never_counted_and_disturbs_nobody(attempt: Callable[..., Scene]) -> None:
    scene = attempt("ab", "xx")
    scene.begin(0)
    false = scene.make(1, token="00" * 32)
    scene.ticking[1] = false
    false.say_stop("failed", "out of spite")
    scene.pass_s(3)
    assert scene.ticking[0].waiting_for == ["node 1"]
    assert scene.verdicts() == {None}
    scene.asleep.append(scene.ticking.pop(1))
    scene.begin(1)
    scene.arrange()
    assert scene.goes() == {(HOME, 4711)}
    assert false.go is None


@pytest.mark.parametrize("rank", [0, 2, 99, -1])
def test_a_rank_that_the_attempt_has_not_is_refused(attempt: Callable[..., Scene], rank: int) -> None:
    scene = attempt("ab", "xx")
    scene.begin(0)
    sock = scene.stranger()
    scene.settle()
    nonce = json.loads(sock.recv(4096))["nonce"]
    said = Direction(session_key(bytes.fromhex(TOKEN), nonce, "00", rank), OTHER)
    introduction = said.sign(b'{"node": "n", "queue": "a", "address": "127.0.0.1"}')
    sock.sendall(json.dumps({"rank": rank, "nonce": "00"}).encode() + b"\n" + introduction + b"\n")
    scene.settle()
    assert is_closed(sock)
    assert scene.ticking[0].waiting_for == ["node 1"]


@pytest.mark.parametrize(
    "said",
    [
        [b'{"go": ["evil", 1]}', b'{"verdict": ["failed", "", 0]}'],
        [Direction(session_key(b"guessed", "00", "00", 1), FIRST).sign(b'{"go": ["evil", 1]}')],
    ],
    ids=["without-a-mac", "with-a-guessed-one"],
)
def test_a_member_does_as_told_by_the_first_agent_alone(
    attempt: Callable[..., Scene], said: list[bytes]
) -> None:
    scene = attempt("ab", "xx")
    with socket.create_server((HOME, 0)) as server:
        document = {"port": server.getsockname()[1], "addresses": [HOME]}
        (scene.folder / "meeting.json").write_text(json.dumps(document))
        scene.begin(1)
        sock, _ = server.accept()
    with sock:
        sock.sendall(b'{"nonce": "00"}\n' + b"".join(line + b"\n" for line in said))
        scene.settle()
        sock.settimeout(5)
        assert is_closed(sock)
    assert scene.goes() == {None}
    assert scene.verdicts() == {None}


def test_a_member_that_is_greeted_with_nonsense_comes_again(attempt: Callable[..., Scene]) -> None:
    scene = attempt("ab", "xx")
    with socket.create_server((HOME, 0)) as server:
        document = {"port": server.getsockname()[1], "addresses": [HOME]}
        (scene.folder / "meeting.json").write_text(json.dumps(document))
        scene.begin(1)
        for _ in range(2):
            sock, _ = server.accept()
            with sock:
                sock.sendall(DEEP.replace(b"NONCE", b"nonce"))
                scene.settle()
                sock.settimeout(5)
                assert is_closed(sock)
            scene.pass_s(2)


def altered(line: bytes) -> list[bytes]:
    return [line.replace(b"}", b" }")]


@pytest.mark.parametrize("from_first", [False, True], ids=["of-the-member", "of-the-first"])
@pytest.mark.parametrize(
    "tamper",
    [lambda line: [line, line], lambda line: [], altered, lambda line: [line, b'{"stop": ["stopped", ""]}']],
    ids=["replayed", "dropped", "altered", "with-more"],
)
def test_what_was_tampered_with_on_its_way_ends_the_connection(
    attempt: Callable[..., Scene], from_first: bool, tamper: Callable[[bytes], list[bytes]]
) -> None:
    scene = attempt("ab", "xx")
    scene.begin(0)
    relay = scene.relay(from_first, tamper)
    scene.begin(1)
    scene.take_gpus()
    scene.say_ready()
    scene.pass_s(5)  # a message that is missing is missed when the next one comes
    assert relay.tampered
    assert relay.was_hung_up_on
    assert scene.verdicts() == {None}
    assert scene.goes() == {(HOME, 4711)}  # over the connection after that, which nobody tampered with


def test_what_was_said_over_one_connection_counts_on_no_other(attempt: Callable[..., Scene]) -> None:
    scene = attempt("ab", "xx")
    scene.begin(0)
    relay = scene.relay(False, lambda line: [line])
    scene.begin(1)
    scene.take_gpus()
    scene.die(1)
    scene.settle()
    assert len(relay.passed[False]) >= 3
    sock = scene.stranger()
    sock.sendall(b"".join(line + b"\n" for line in relay.passed[False]))
    scene.settle()
    assert is_closed(sock)
    assert not scene.ticking[0]._wires  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "said",
    [
        b"nonsense\n",
        b"[]\n",
        b"{}\n",
        b'{"rank": "one"}\n',
        b'{"rank": null}\n',
        b'{"rank": 1e999, "proof": ""}\n',
        b"[" * 60_000 + b"\n",
        DEEP.replace(b"NONCE", b'rank": 1, "nonce'),
        b"\xff\xfe\n",
        b"x" * 70_000,
    ],
)
def test_a_stranger_who_talks_nonsense_is_hung_up_on(scene: Scene, said: bytes) -> None:
    sock = scene.stranger()
    sock.sendall(said)
    scene.settle()
    assert is_closed(sock)
    scene.arrange()
    assert scene.goes() == {(HOME, 4711)}


def test_a_stranger_who_says_nothing_is_hung_up_on(scene: Scene) -> None:
    sock = scene.stranger()
    scene.pass_s(5)
    assert is_closed(sock)


@pytest.mark.parametrize("said", [b"nonsense\n", b"[1]\n", b'{"stop": 3}\n', b"x" * 70_000])
def test_a_damaged_or_endless_line_closes_only_that_connection(scene: Scene, said: bytes) -> None:
    others = scene.own_end(2)
    before = others.getsockname()
    others.close()
    with scene.own_end(1) as sock:
        sock.sendall(said)
        scene.settle()
    assert scene.ticking[1].filenos() == []
    scene.pass_s(2)
    with scene.own_end(2) as others:
        assert others.getsockname() == before
    scene.arrange()
    assert scene.goes() == {(HOME, 4711)}
    assert scene.verdicts() == {None}


# --- ending together


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_failure_on_one_node_is_heard_by_all_and_the_first_counts(scene: Scene, rank: int) -> None:
    scene.arrange()
    scene.ticking[rank].say_stop("failed", "rank 5 exited with 1")
    scene.settle()
    scene.ticking[(rank + 1) % 3].say_stop("failed", "rank 6 exited with 2")
    scene.settle()
    assert scene.verdicts() == {Verdict("failed", "rank 5 exited with 1", rank)}


@pytest.mark.parametrize(("failing", "stopped"), [(1, 2), (2, 1)])
def test_of_a_stop_and_a_failure_that_are_heard_at_once_the_stop_counts(
    scene: Scene, failing: int, stopped: int
) -> None:
    scene.arrange()
    scene.ticking[failing].say_stop("failed", "rank 1 exited with 1")
    scene.ticking[stopped].say_stop("stopped", "ann")
    scene.settle()
    assert scene.verdicts() == {Verdict("stopped", "ann", stopped)}


@pytest.mark.parametrize("rank", [0, 2])
def test_a_stop_is_heard_by_all_before_they_have_begun_too(scene: Scene, rank: int) -> None:
    scene.ticking[rank].say_stop("stopped", "ann")
    scene.settle()
    assert scene.verdicts() == {Verdict("stopped", "ann", rank)}
    scene.arrange()
    assert scene.goes() == {None}


def test_each_is_there_for_the_others_until_they_have_ended(scene: Scene) -> None:
    first, one, two = scene.ticking.values()
    for peer in (first, one):
        peer.say_ended()
    scene.settle()
    assert first.others_go_on
    assert not one.others_go_on
    two.say_ended()
    assert two.others_go_on  # the first agent has not heard it yet
    scene.settle()
    assert not first.others_go_on
    assert not two.others_go_on


def test_a_member_that_cannot_say_that_it_has_ended_leaves_in_time(scene: Scene) -> None:
    scene.fall_silent(0)
    scene.ticking[1].say_ended()
    scene.pass_s(9)
    assert scene.ticking[1].others_go_on
    scene.pass_s(1)
    assert not scene.ticking[1].others_go_on


def test_last_words_before_a_close_are_heard(scene: Scene) -> None:
    first = scene.ticking.pop(0)
    first.say_stop("failed", "rank 0 exited with 1")
    first.close()
    scene.settle()
    assert scene.verdicts() == {Verdict("failed", "rank 0 exited with 1", 0)}


def test_last_words_of_a_member_are_heard(scene: Scene) -> None:
    one = scene.ticking.pop(1)
    one.say_stop("failed", "rank 1 exited with 1")
    one.say_ended()
    one.tick(scene.now_s)
    one.close()
    scene.settle()
    assert scene.verdicts() == {Verdict("failed", "rank 1 exited with 1", 1)}
    assert scene.ticking[0].others_go_on  # node 2
    scene.pass_s(LEASE_S + 1)
    assert scene.verdicts() == {Verdict("failed", "rank 1 exited with 1", 1)}


# --- broken connections


def test_a_member_that_lost_its_connection_comes_back_and_hears_what_it_missed(scene: Scene) -> None:
    scene.ticking[0].say_leased()
    scene.cut(1)
    scene.settle()
    assert not scene.ticking[1].has_turn
    scene.ticking[0].say_stop("stopped", "ann")
    scene.settle()
    assert scene.ticking[1].verdict is None
    scene.pass_s(2)
    assert scene.verdicts() == {Verdict("stopped", "ann", 0)}


def test_what_a_member_said_while_it_was_cut_off_is_heard_once_it_is_back(scene: Scene) -> None:
    scene.take_gpus()
    scene.cut(1)
    scene.settle()
    scene.say_ready()
    assert scene.goes() == {None}
    scene.pass_s(2)
    assert scene.goes() == {(HOME, 4711)}


def test_one_that_was_cut_off_when_the_others_began_still_hears_of_it(scene: Scene) -> None:
    scene.take_gpus()
    scene.say_ready(1)
    scene.cut(1)
    scene.settle()
    scene.say_ready(0, 2)
    assert scene.goes() == {None, (HOME, 4711)}
    scene.pass_s(2)
    assert scene.goes() == {(HOME, 4711)}
    assert scene.verdicts() == {None}


def test_while_all_talk_nobody_is_lost(scene: Scene) -> None:
    scene.arrange()
    scene.pass_s(2 * LEASE_S)
    assert scene.verdicts() == {None}


def test_a_member_that_is_silent_for_longer_than_the_lease_is_lost(scene: Scene) -> None:
    scene.arrange()
    scene.fall_silent(1)
    scene.pass_s(LEASE_S - 1)
    assert scene.verdicts() == {None}
    scene.pass_s(4)
    (verdict,) = scene.verdicts()
    assert verdict is not None
    assert (verdict.kind, verdict.node_rank) == ("lost", 1)
    assert verdict.detail.startswith("n1 has been silent for 3")
    scene.ticking[2].say_ended()
    scene.settle()
    assert not scene.ticking[0].others_go_on  # nobody waits for the one that is lost


def test_one_that_is_back_before_the_lease_ends_is_not_lost(scene: Scene) -> None:
    scene.arrange()
    scene.fall_silent(1)
    scene.pass_s(LEASE_S - 5)
    scene.ticking[1] = scene.asleep.pop()
    scene.pass_s(LEASE_S)
    assert scene.verdicts() == {None}


def test_a_first_agent_that_is_silent_for_longer_than_the_lease_is_lost(scene: Scene) -> None:
    scene.arrange()
    scene.die(0)
    scene.pass_s(LEASE_S - 1)
    assert scene.verdicts() == {None}
    scene.pass_s(4)
    for verdict in scene.verdicts():
        assert verdict is not None
        assert (verdict.kind, verdict.node_rank) == ("lost", 0)


def test_one_that_takes_over_from_the_first_agent_listens_where_that_did(scene: Scene) -> None:
    port = scene.port
    scene.die(0)
    scene.settle()
    scene.begin(0)
    assert scene.port == port
    scene.pass_s(2)
    scene.arrange()
    assert scene.goes() == {(HOME, 4711)}
    assert scene.verdicts() == {None}


def test_one_that_takes_over_waits_for_a_port_that_somebody_has_taken(scene: Scene) -> None:
    port = scene.port
    scene.die(0)
    scene.settle()
    taken = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    scene.ticking[0] = scene.make(0)
    scene.pass_s(3)
    taken.close()
    scene.pass_s(15)
    scene.arrange()
    assert scene.goes() == {(HOME, 4711)}


def test_one_that_takes_over_from_the_first_agent_knows_who_belongs_to_the_attempt(scene: Scene) -> None:
    scene.arrange()
    scene.ticking[1].say_ended()
    scene.settle()
    scene.die(1)
    scene.die(0)
    scene.ticking[0] = scene.make(0)
    scene.ticking[0].go = (HOME, 4711)  # as its supervisor has it on record
    scene.pass_s(90)
    assert scene.verdicts() == {None}  # that one has ended and gone is no reason to stop
    scene.die(2)
    scene.pass_s(LEASE_S + 2)
    verdict = scene.ticking[0].verdict
    assert verdict is not None and verdict.kind == "lost" and "n2" in verdict.detail


def test_one_that_takes_over_says_what_the_first_agent_had_said(scene: Scene) -> None:
    scene.arrange()
    scene.die(0)
    scene.free_port = 4712
    scene.begin(0)
    assert scene.ticking[0].has_turn
    scene.pass_s(2)
    assert scene.goes() == {(HOME, 4711)}
    scene.ticking[1].say_stop("failed", "rank 1 exited with 1")
    scene.settle()
    scene.die(0)
    scene.ticking[2].say_stop("failed", "rank 2 exited with 2")
    scene.begin(0)
    scene.pass_s(2)
    assert scene.verdicts() == {Verdict("failed", "rank 1 exited with 1", 1)}


def test_nobody_is_told_what_would_be_forgotten(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.take_gpus()
    kept: list[Any] = []
    write = system.write_atomic

    def keep(path: str, data: bytes, durable: bool = False) -> None:
        write(path, data, durable)
        kept.append((durable, json.loads(data), scene.ticking[1].go, scene.ticking[1].verdict))

    monkeypatch.setattr(system, "write_atomic", keep)
    scene.say_ready()
    scene.ticking[0].say_stop("failed", "rank 0 exited with 1")
    scene.settle()
    (begun, ended) = kept
    assert (begun[0], begun[1]["go"], begun[2]) == (True, [HOME, 4711], None)
    assert (ended[0], ended[1]["verdict"], ended[3]) == (True, ["failed", "rank 0 exited with 1", 0], None)
    assert scene.verdicts() == {Verdict("failed", "rank 0 exited with 1", 0)}


def test_on_a_full_disk_all_are_told_all_the_same(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object, **more: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(system, "write_atomic", refuse)
    scene.arrange()
    scene.ticking[0].say_stop("stopped", "ann")
    scene.settle()
    assert scene.goes() == {(HOME, 4711)}
    assert scene.verdicts() == {Verdict("stopped", "ann", 0)}


def test_one_that_takes_over_from_a_member_is_told_all_again(scene: Scene) -> None:
    scene.arrange()
    scene.die(2)
    scene.ticking[0].say_stop("stopped", "ann")
    scene.begin(2)
    assert scene.ticking[2].has_turn
    assert scene.goes() == {(HOME, 4711)}
    assert scene.verdicts() == {Verdict("stopped", "ann", 0)}


def test_of_several_addresses_the_one_that_answers_is_used(attempt: Callable[..., Scene]) -> None:
    scene = attempt("ab", "xx")
    scene.addresses = ["255.255.255.255", HOME]
    scene.begin()
    scene.pass_s(1)
    scene.arrange()
    assert scene.goes() == {(HOME, 4711)}


def test_no_child_keeps_a_connection(scene: Scene) -> None:
    for peer, count in zip(scene.ticking.values(), (3, 1, 1), strict=True):
        assert len(peer.filenos()) == count
        assert not any(os.get_inheritable(fileno) for fileno in peer.filenos())
