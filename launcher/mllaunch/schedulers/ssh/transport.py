"""Connections to nodes, through Fabric; but for what it raises (failures.py) nothing else of the project knows it.

What Fabric would do and we do not: it adds unknown host keys by itself. Here both unknown and changed ones are refused.
How a machine is reached is OpenSSH's to say, by the user's configuration (routes.py); where that has connections
shared, one that is open already is used, and where only OpenSSH can tell whether a key is to be trusted, it connects
itself (client.py).
"""

from __future__ import annotations

import shlex
import socket
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from mllaunch.errors import NotPermitted
from mllaunch.schedulers.ssh import client, failures, hostkeys, routes
from mllaunch.schedulers.ssh.failures import Stage, UnknownKey
from mllaunch.schedulers.ssh.hostkeys import Known
from mllaunch.schedulers.ssh.links import ANSWER_S, CONNECT_S

if TYPE_CHECKING:
    from fabric import Connection

    from mllaunch.schedulers.ssh.links import Link
    from mllaunch.schedulers.ssh.routes import Route

__all__ = ["Address", "connect"]

_KEEPALIVE_S = 5
_SILENCE_S = 15.0


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
        self.stdin = self
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

    def write(self, data: bytes) -> int:
        try:
            self.send(data)
        except OSError:
            if not (self.has_ended and self._channel.get_transport().is_active()):
                raise
            # It ended before it was given this; why, is told by what it has said.
        return len(data)

    def flush(self) -> None:
        pass

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
    stages: list[Stage] = []
    try:
        for each, keys in zip(way, known, strict=True):
            stages.append(_stage(each, keys, stages[-1].connection if stages else None, timeout_s))
            connection = stages[-1].connection
            connection.open()
            # Until a session begins, sshd's small messages wait as ours would, and ask for our acknowledgement.
            _set(connection.transport.sock, "TCP_QUICKACK", 1)
    except BaseException as error:
        if not stages:
            raise
        explained = failures.explained(address, stages, error)  # before what shows how far it came is closed
        for stage in stages:
            stage.connection.client.close()  # paramiko leaves threads and sockets behind
        raise explained from error
    connection.transport.set_keepalive(_KEEPALIVE_S)
    return FabricLink(connection)


def _stage(route: Route, known: Known, gateway: Connection | None, timeout_s: float) -> Stage:
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
    return Stage(route, connection, known)


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
            raise UnknownKey(hostname, key)

    client = connection.client
    client.set_missing_host_key_policy(Refuse())
    name = connection.host if connection.port == routes.SSH_PORT else f"[{connection.host}]:{connection.port}"
    for key, _ in reversed(known.keys):  # of several of one kind the last one counts
        client.get_host_keys().add(name, key.get_name(), key)


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
