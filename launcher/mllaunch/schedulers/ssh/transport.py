"""Connections to nodes, through Fabric; nothing else of the project knows it.

What Fabric would do and we do not: it adds unknown host keys by itself. Here both unknown and changed ones are refused.
How a machine is reached is OpenSSH's to say, by the user's configuration (routes.py); where that has connections
shared, one that is open already is used, and where only OpenSSH can tell whether a key is to be trusted, it connects
itself (client.py).
"""

from __future__ import annotations

import shlex
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from mllaunch.errors import MllaunchError, NotPermitted, Unreachable
from mllaunch.schedulers.ssh import client, hostkeys, routes
from mllaunch.schedulers.ssh.hostkeys import Known
from mllaunch.schedulers.ssh.links import ANSWER_S, CONNECT_S

if TYPE_CHECKING:
    from fabric import Connection

    from mllaunch.schedulers.ssh.links import Link
    from mllaunch.schedulers.ssh.routes import Route

__all__ = ["Address", "connect"]

_KEEPALIVE_S = 5
_SILENCE_S = 15.0
_SSH_PORT = 22
_EVIDENCE = 3  # lines
# What OpenSSH says where it reached a machine, and either of them did not want the other.
_REFUSALS = ("Permission denied", "Host key verification failed", "Too many authentication failures")


class Address(NamedTuple):
    """Where a node is. host, user, port: None for what the ssh configuration says. python: the interpreter there.

    known_hosts, config: files to use in place of the user's own.
    """

    name: str
    host: str | None = None
    user: str | None = None
    port: int | None = None
    python: str | None = None
    known_hosts: str | None = None
    config: str | None = None

    @property
    def shown(self) -> str:
        """As the user would write it for ssh."""
        return f"{self.user}@{self.host or self.name}" if self.user else self.host or self.name


class FabricPipe:
    def __init__(self, channel: Any) -> None:
        self._channel = channel
        channel.settimeout(ANSWER_S)
        self.stdin: BinaryIO = channel.makefile("wb", -1)
        self.stdout: BinaryIO = channel.makefile("rb", -1)

    @property
    def has_ended(self) -> bool:
        return bool(self._channel.closed or self._channel.eof_received)

    def set_patience(self, seconds: float | None) -> None:
        self._channel.settimeout(seconds)

    def receive(self, limit: int) -> bytes:
        data: bytes = self._channel.recv(limit)
        return data

    def send(self, data: bytes) -> None:
        self._channel.sendall(data)

    def complaint(self) -> tuple[int | None, str]:
        self._channel.settimeout(CONNECT_S)
        try:
            text = self._channel.makefile_stderr("rb", -1).read()
        except (OSError, EOFError):
            return None, ""
        ended = self._channel.status_event.wait(CONNECT_S)
        status = self._channel.recv_exit_status() if ended else None
        return status, text.decode(errors="replace").strip()

    def close(self) -> None:
        self._channel.close()


class FabricLink:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def is_open(self) -> bool:
        return bool(self._connection.is_connected)

    def run(self, command: str) -> FabricPipe:
        from paramiko import SSHException

        transport = self._connection.transport
        if transport is None or not transport.active:
            raise ConnectionError("the connection is closed")
        try:
            channel = transport.open_session(timeout=CONNECT_S)
            channel.exec_command(command)
        except (SSHException, EOFError) as error:
            raise ConnectionError(str(error) or "the connection was closed") from error
        return FabricPipe(channel)

    def close(self) -> None:
        self._connection.close()


class _Stage(NamedTuple):
    """One machine of the way: the node itself, or one that leads to it."""

    route: Route
    connection: Connection
    known: Known

    @property
    def has_let_in(self) -> bool:
        transport = self.connection.client.get_transport()
        return transport is not None and bool(transport.is_authenticated())

    @property
    def has_answered(self) -> bool:
        transport = self.connection.client.get_transport()
        # Whoever has accepted a connection, and said nothing since, has not answered.
        return transport is not None and bool(transport.is_active() and transport.initial_kex_done)


def connect(address: Address, timeout_s: float = CONNECT_S) -> Link:
    """Open a connection, or find that each command needs one of its own. Raises MllaunchError: "unreachable",
    "unknown_host_key", "changed_host_key", "revoked_keys", "ssh_login", "ssh_config"."""
    import logging

    # It prints whole tracebacks of what it also raises.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)
    route = routes.look_up(address.host or address.name, address.user, address.port, address.config)
    if route.shares and (held := client.find(address, route)) is not None:
        return held
    way = routes.way(route, address.config)
    try:
        known = [_known(address, each) for each in way]  # before anything runs: it may refuse
    except _OnlyOpenSsh:
        return client.ClientLink(address, way)
    stages: list[_Stage] = []
    try:
        for each, keys in zip(way, known, strict=True):
            stages.append(_stage(each, keys, stages[-1].connection if stages else None, timeout_s))
            connection = stages[-1].connection
            connection.open()
            # Until a session begins, sshd's small messages wait as ours would, and ask for our acknowledgement.
            _set(connection.transport.sock, "TCP_QUICKACK", 1)
    except BaseException as error:
        if not stages or isinstance(error, MllaunchError):
            raise
        explained = _explained(address, stages, error)  # before what shows how far it came is closed
        for stage in stages:
            stage.connection.client.close()  # paramiko leaves threads and sockets behind
        raise explained from error
    connection.transport.set_keepalive(_KEEPALIVE_S)
    return FabricLink(connection)


def _stage(route: Route, known: Known, gateway: Connection | None, timeout_s: float) -> _Stage:
    import paramiko
    from fabric import Config, Connection

    way = {}
    if gateway is None and route.command is not None:
        way["sock"] = paramiko.ProxyCommand(shlex.join(["/bin/sh", "-c", f"exec {route.command}"]))
    connection = Connection(
        host=route.host,
        user=route.user,
        port=route.port,
        gateway=gateway or False,
        config=Config(ssh_config=paramiko.SSHConfig()),  # all that it says is in the route
        connect_timeout=int(timeout_s),
        connect_kwargs={
            **way,
            "transport_factory": _transport,
            "banner_timeout": timeout_s,
            "auth_timeout": timeout_s,
            "key_filename": list(route.keys),
            "look_for_keys": False,
            "allow_agent": route.agent != "none",
        },
    )
    if route.agent not in (None, "none"):
        connection.client._agent = _agent(str(route.agent))
    _trust(connection, known)
    return _Stage(route, connection, known)


def _agent(path: str) -> Any:
    """The agent at a socket; one without keys, if nobody answers there. paramiko itself asks the user's own only."""
    import paramiko

    agent = paramiko.agent.AgentSSH()
    asked = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        asked.connect(path)
        agent._connect(asked)
    except Exception:  # noqa: BLE001  whatever listens there
        asked.close()
    return agent


def _known(address: Address, route: Route) -> Known:
    """The keys by which a machine is known. NotPermitted if what revokes keys cannot be read; _OnlyOpenSsh."""
    known = hostkeys.known(route.known_hosts, route.known_as)
    revoked = list(known.revoked)
    if address.known_hosts is not None:
        known = hostkeys.known([address.known_hosts], route.known_as)
        revoked += known.revoked
    if route.revoked is not None:
        try:
            revoked += hostkeys.listed(route.revoked)
        except ValueError as error:
            raise _OnlyOpenSsh from error
        except OSError as error:
            raise NotPermitted(
                "revoked_keys",
                f"{address.name}: which keys were revoked is not known: {route.revoked}: {error.strerror}",
                hint=f"ssh -G {address.shown} | grep -i revokedhostkeys",
            ) from error
    if known.has_authority:
        raise _OnlyOpenSsh
    return Known(tuple((key, file) for key, file in known.keys if key not in revoked), tuple(revoked))


class _OnlyOpenSsh(Exception):
    """Whether a machine's key is to be trusted only OpenSSH can tell."""


def _trust(connection: Connection, known: Known) -> None:
    """Trust the known keys alone."""
    import paramiko

    class Refuse(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            raise _Unknown(hostname, key)

    client = connection.client
    client.set_missing_host_key_policy(Refuse())
    name = connection.host if connection.port == _SSH_PORT else f"[{connection.host}]:{connection.port}"
    for key, _ in reversed(known.keys):  # of several of one kind the last one counts
        client.get_host_keys().add(name, key.get_name(), key)


def _explained(address: Address, stages: Sequence[_Stage], error: BaseException) -> BaseException:
    """What to raise in place of what a library raised; what is none of its business, such as Ctrl-C, as it is."""
    import paramiko
    from invoke.exceptions import Exit

    stage = next((stage for stage in stages if not stage.has_let_in), stages[-1])
    if isinstance(error, paramiko.BadHostKeyException):
        return _changed(address, stage, error)
    if isinstance(error, _Unknown):
        return _unknown(address, stage, error)
    is_of_ssh = isinstance(error, (paramiko.SSHException, OSError, EOFError, Exit))
    if isinstance(error, paramiko.AuthenticationException) or (is_of_ssh and stage.has_answered):
        return _no_login(address, stage, error)
    if is_of_ssh:
        return unreachable(address, error)
    if isinstance(error, Exception):
        return MllaunchError(
            "ssh", f"{address.name}: {type(error).__name__}: {error}", hint=f"{_typed(address)} true"
        )
    return error


def _who(address: Address, stage: _Stage) -> str:
    """The node, or one that leads to it."""
    is_node = stage.route.word == (address.host or address.name)
    return address.name if is_node else f"{stage.route.word}, on the way to {address.name},"


def _no_login(address: Address, stage: _Stage, error: BaseException) -> NotPermitted:
    hint = f"does this work? {_typed(address)} true   (ssh-add gives the agent a key with a passphrase)"
    if stage.route.shares:
        hint = f"log in yourself, and the connection is shared: {_typed(address, '-MNf')}"
    who = f"{_who(address, stage)} lets nobody in as {stage.route.user}"
    return NotPermitted("ssh_login", f"{who}: {str(error).rstrip('.')}", hint=hint)


def _transport(sock: Any, **how: Any) -> Any:
    """paramiko's, over a socket that suits us."""
    import paramiko

    # A small message would wait until the one before was acknowledged, which machines put off for 40 ms.
    _set(sock, "TCP_NODELAY", 1)
    # What a machine that has fallen silent does not acknowledge would be sent again for a quarter of an hour.
    _set(sock, "TCP_USER_TIMEOUT", int(_SILENCE_S * 1000))
    return paramiko.Transport(sock, **how)


def _set(sock: Any, option: str, value: int) -> None:
    """Set an option of tcp(7), where this system has it. Behind a gateway it is no socket of ours."""
    number = getattr(socket, option, None)
    if number is not None and isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, number, value)


def refused(address: Address, said: Sequence[str]) -> MllaunchError:
    """What to raise where ssh itself gave up. said: the lines it printed; behind a jump that refuses they go on."""
    for number, line in reversed(list(enumerate(said))):
        if any(words in line for words in _REFUSALS):
            before = tuple(said[max(0, number - _EVIDENCE) : number])
            message = f"{address.name}: ssh says: {line.strip()}"
            hint = f"does this work, and asks nothing? {_typed(address, '-o', 'BatchMode=yes')} true"
            return NotPermitted("ssh_login", message, evidence=before, hint=hint)
    return unreachable(address, ConnectionError(said[-1]))


def unreachable(address: Address, error: BaseException) -> Unreachable:
    silent = isinstance(error, TimeoutError) or "timed out" in str(error)
    said = "it does not answer" if silent else getattr(error, "strerror", None) or str(error)
    said = said or type(error).__name__
    where = "" if address.host in (None, address.name) else f" ({address.host})"
    return Unreachable(
        "unreachable",
        f"{address.name}{where} cannot be reached: {said}",
        hint=f"does this work? {_typed(address)} true",
    )


class _Unknown(Exception):
    def __init__(self, hostname: str, key: Any) -> None:
        super().__init__(hostname)
        self.hostname = hostname
        self.key = key


def _unknown(address: Address, stage: _Stage, error: _Unknown) -> MllaunchError:
    who = _who(address, stage)
    if error.key in stage.known.revoked:
        return NotPermitted("changed_host_key", f"{who} shows a key that was revoked: {_print(error.key)}")
    return NotPermitted(
        "unknown_host_key",
        f"{who.rstrip(',')}: nobody has said yet that this is its key: {_print(error.key)}",
        evidence=(
            "compare it with what the machine itself says: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        ),
        hint=_accept(address, stage),
    )


def _changed(address: Address, stage: _Stage, error: Any) -> MllaunchError:
    file = next(file for key, file in stage.known.keys if key == error.expected_key)
    forget = shlex.join(["ssh-keygen", "-R", stage.route.known_as, "-f", file])
    return NotPermitted(
        "changed_host_key",
        f"{_who(address, stage)} shows another key than before: {_print(error.key)}, not "
        f"{_print(error.expected_key)}",
        evidence=("either the machine was set up anew, or somebody else answers in its place",),
        hint=f"if it was set up anew: {forget}   and then: {_accept(address, stage)}",
    )


def _accept(address: Address, stage: _Stage) -> str:
    """The command that accepts a machine's key after asking."""
    is_node = stage.route.word == (address.host or address.name)
    there = address if is_node else Address(stage.route.word, None, None, None, None, *address[5:])
    return f"{_typed(there)} true"


def _typed(address: Address, *first: str) -> str:
    """What the user would type to log in."""
    words = ["ssh", *first]
    # Quotes of ssh's own, which takes several files otherwise.
    words += ["-o", f'UserKnownHostsFile="{address.known_hosts}"'] if address.known_hosts else []
    words += ["-F", address.config] if address.config else []
    words += ["-p", str(address.port)] if address.port not in (None, _SSH_PORT) else []
    return shlex.join([*words, address.shown])


def _print(key: Any) -> str:
    """As ssh-keygen -l shows it."""
    return f"{key.get_name()} {key.fingerprint}"
