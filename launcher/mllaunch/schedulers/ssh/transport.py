"""Connections to nodes, through Fabric; nothing else of the project knows it.

What Fabric would do and we do not: it adds unknown host keys by itself. Here both unknown and changed ones are refused.
The user's ssh configuration counts (Host, HostName, User, Port, IdentityFile, ProxyJump, ProxyCommand), and so do the
keys of an agent; and where it has connections shared, one that is open already is used (master.py).
"""

from __future__ import annotations

import os
import shlex
import socket
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from mllaunch.errors import ConfigError, MllaunchError, NotPermitted, Unreachable
from mllaunch.schedulers.ssh import master
from mllaunch.schedulers.ssh.links import ANSWER_S, CONNECT_S

if TYPE_CHECKING:
    from fabric import Connection

    from mllaunch.schedulers.ssh.links import Link

__all__ = ["Address", "connect"]

_KEEPALIVE_S = 5
_SILENCE_S = 15.0
_SSH_PORT = 22
# ssh_config(5): UserKnownHostsFile, GlobalKnownHostsFile
_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_SYSTEM_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


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


def connect(address: Address, timeout_s: float = CONNECT_S) -> Link:
    """Open a connection. Raises MllaunchError: "unreachable", "unknown_host_key", "changed_host_key", "ssh_login"."""
    import logging

    from fabric import Config, Connection

    # It prints whole tracebacks of what it also raises.
    logging.getLogger("paramiko").setLevel(logging.CRITICAL + 1)
    if address.config is not None and not os.path.exists(address.config):
        raise ConfigError("ssh_config", f"there is no {address.config}", hint="ssh: {config: PATH}")
    connection = None
    try:
        connection = Connection(
            host=address.host or address.name,
            user=address.user,
            port=address.port,
            config=Config(runtime_ssh_path=address.config),
            connect_timeout=int(timeout_s),
            connect_kwargs={"banner_timeout": timeout_s, "auth_timeout": timeout_s},
        )
        if _is_shared(connection) and (held := master.find(address)) is not None:
            return held
        _check_keys(connection, address)
        connection.open()
    except BaseException as error:
        _close_all(connection)
        shared = connection is not None and _is_shared(connection)
        raise _explained(address, error, shared) from error
    assert connection.transport is not None
    connection.transport.set_keepalive(_KEEPALIVE_S)
    _notice_silence(connection.transport.sock)
    return FabricLink(connection)


def _is_shared(connection: Connection) -> bool:
    """Whether the user's OpenSSH may hold connections to it open."""
    return str(connection.ssh_config.get("controlpath", "none")).lower() != "none"


def _close_all(connection: Any) -> None:
    """What was opened on a way that came to nothing: paramiko leaves threads and sockets behind."""
    while connection is not None and not isinstance(connection, str):
        connection.client.close()
        connection = connection.gateway


def _explained(address: Address, error: BaseException, shared: bool) -> BaseException:
    """What to raise in place of what a library raised; what is none of its business, such as Ctrl-C, as it is. shared:
    where the user can open a connection, others can use it.
    """
    import paramiko
    from invoke.exceptions import Exit

    if isinstance(error, paramiko.BadHostKeyException):
        return _changed(address, error)
    if isinstance(error, _Unknown):
        return _unknown(address, error)
    if isinstance(error, paramiko.AuthenticationException):
        hint = f"does this work? ssh {address.shown} true   (ssh-add gives the agent a key with a passphrase)"
        if shared:
            hint = f"log in yourself, and the connection is shared: {_typed(address, '-MNf')}"
        return NotPermitted(
            "ssh_login", f"{address.name} lets nobody in as {_who(address)}: {error}", hint=hint
        )
    if isinstance(error, (paramiko.SSHException, OSError, EOFError, Exit)):
        return unreachable(address, error)
    if isinstance(error, Exception):  # a host name that is none, a known_hosts file that nobody can read
        return MllaunchError(
            "ssh", f"{address.name}: {type(error).__name__}: {error}", hint=f"ssh {address.shown} true"
        )
    return error


def _notice_silence(sock: Any) -> None:
    """Have the kernel close a connection whose other end has fallen silent: tcp(7), TCP_USER_TIMEOUT.

    Without it what was sent would be sent again for a quarter of an hour. Behind a gateway it is no socket of ours.
    """
    if isinstance(sock, socket.socket):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_SILENCE_S * 1000))


def unreachable(address: Address, error: BaseException) -> Unreachable:
    silent = isinstance(error, TimeoutError) or "timed out" in str(error)
    said = "it does not answer" if silent else getattr(error, "strerror", None) or str(error)
    said = said or type(error).__name__
    where = "" if address.host in (None, address.name) else f" ({address.host})"
    return Unreachable(
        "unreachable",
        f"{address.name}{where} cannot be reached: {said}",
        hint=f"does this work? ssh {address.shown} true",
    )


class _Unknown(Exception):
    def __init__(self, hostname: str, key: Any) -> None:
        super().__init__(hostname)
        self.hostname = hostname
        self.key = key


def _check_keys(connection: Connection, address: Address) -> None:
    """Trust the keys of known_hosts alone, for the node as for every machine on the way to it."""
    import paramiko

    class Refuse(paramiko.MissingHostKeyPolicy):  # type: ignore[misc]
        def missing_host_key(self, client: Any, hostname: str, key: Any) -> None:
            raise _Unknown(hostname, key)

    while connection is not None and not isinstance(connection, str):
        client = connection.client
        client.set_missing_host_key_policy(Refuse())
        configured = connection.ssh_config.get("userknownhostsfile", _KNOWN_HOSTS).split()
        files = [*configured, *_SYSTEM_KNOWN_HOSTS] if address.known_hosts is None else [address.known_hosts]
        for file in map(os.path.expanduser, files):
            if os.path.exists(file):
                client.load_system_host_keys(file)
        connection = connection.gateway


def _unknown(address: Address, error: _Unknown) -> MllaunchError:
    return NotPermitted(
        "unknown_host_key",
        f"{address.name}: nobody has said yet that this is its key: {_print(error.key)}",
        evidence=(
            "compare it with what the machine itself says: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        ),
        hint=_accept(address),
    )


def _changed(address: Address, error: Any) -> MllaunchError:
    return NotPermitted(
        "changed_host_key",
        f"{address.name} shows another key than before: {_print(error.key)}, not {_print(error.expected_key)}",
        evidence=("either the machine was set up anew, or somebody else answers in its place",),
        hint=f"if it was set up anew: ssh-keygen -R '{error.hostname}'   and then: {_accept(address)}",
    )


def _accept(address: Address) -> str:
    """The command that accepts a key after asking."""
    return f"{_typed(address)} true"


def _typed(address: Address, *first: str) -> str:
    """What the user would type to log in."""
    words = ["ssh", *first]
    words += ["-o", f"UserKnownHostsFile={address.known_hosts}"] if address.known_hosts else []
    words += ["-F", address.config] if address.config else []
    words += ["-p", str(address.port)] if address.port not in (None, _SSH_PORT) else []
    return shlex.join([*words, address.shown])


def _print(key: Any) -> str:
    """As ssh-keygen -l shows it."""
    return f"{key.get_name()} {key.fingerprint}"


def _who(address: Address) -> str:
    return address.user or "the configured user"
