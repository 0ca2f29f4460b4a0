"""Connections through the user's own OpenSSH client: each command is an `ssh` of its own.

Where one is held open for sharing (ControlMaster in ssh_config(5)) it costs milliseconds. So nodes are reached that ask
for more than a key, such as a code from a telephone, once the user has logged in there. Elsewhere each is a connection
of its own: to machines of which only OpenSSH can tell whether their keys are to be trusted. Nothing is asked of the
user here, and no master opened.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, BinaryIO

from mllaunch.schedulers.ssh import openssh
from mllaunch.schedulers.ssh.links import ANSWER_S, CONNECT_S

if TYPE_CHECKING:
    from mllaunch.schedulers.ssh.routes import Route
    from mllaunch.schedulers.ssh.transport import Address

__all__ = ["ClientLink", "SharedLink", "find"]

_END_S = 1.0
# For a command of ours, whatever the user's configuration has for her own.
_OPTIONS = (
    *("ControlMaster=no", "BatchMode=yes", "RemoteCommand=none", "PermitLocalCommand=no", "LogLevel=ERROR"),
    *("ClearAllForwardings=yes", "ForwardAgent=no", "ForwardX11=no"),
    *(f"ConnectTimeout={CONNECT_S:.0f}", "ServerAliveInterval=5", "ServerAliveCountMax=3"),
)


class ClientPipe:
    def __init__(self, argv: list[str]) -> None:
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with the pipe
        # Two of them: what an ssh that ends has not read would be an error for who reads what it said.
        self._to, stdin = socket.socketpair()
        self._from, stdout = socket.socketpair()
        with stdin, stdout:
            # In a session of its own, where the terminal's Ctrl-C does not end it in mid-sentence.
            self._process = subprocess.Popen(
                argv,
                stdin=stdin.fileno(),
                stdout=stdout.fileno(),
                stderr=self._complaints,
                start_new_session=True,
                env={**os.environ, "SSH_ASKPASS_REQUIRE": "never"},
            )
        self.set_patience(ANSWER_S)
        self.stdin = self
        self.stdout: BinaryIO = self._from.makefile("rb")

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def set_patience(self, seconds: float | None) -> None:
        for end in (self._to, self._from):
            end.settimeout(seconds)

    def receive(self, limit: int) -> bytes:
        return self._from.recv(limit)

    def send(self, data: bytes) -> None:
        self._to.sendall(data)

    def write(self, data: bytes) -> int:
        try:
            self.send(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # how it has ended is told by what it has said
        return len(data)

    def flush(self) -> None:
        pass

    def complaint(self) -> tuple[int | None, str]:
        try:
            status = self._process.wait(CONNECT_S)
        except subprocess.TimeoutExpired:
            return None, ""
        self._complaints.seek(0)
        return status, self._complaints.read().decode(errors="replace").strip()

    def close(self) -> None:
        for end in (self._to, self._from):
            try:
                end.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for it, too
            except OSError:
                pass
        self.stdout.close()
        self._to.close()
        self._from.close()
        self._signal(signal.SIGTERM)
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._process.wait()
        self._complaints.close()

    def _signal(self, number: int) -> None:
        """To those that lead to jumps, too; once it has ended they have."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, number)


class ClientLink:
    """Opens a connection for each command. Whether it can, the command tells. way: to the node, which is last."""

    def __init__(self, address: Address, way: Sequence[Route]) -> None:
        self._address = address
        self._way = way

    @property
    def is_open(self) -> bool:
        return True

    def run(self, command: str) -> ClientPipe:
        return ClientPipe([*command_line(self._address, self._way), command])

    def close(self) -> None:
        pass  # that of a command ends with it


class SharedLink(ClientLink):
    """Has all commands share a connection, which is the user's."""

    @property
    def is_open(self) -> bool:
        return _is_there(self._address)


def find(address: Address, route: Route) -> SharedLink | None:
    """The connection to a node that is held open; None if there is none."""
    return SharedLink(address, [route]) if _is_there(address) else None


def command_line(address: Address, way: Sequence[Route]) -> list[str]:
    """ssh to a node; a command may follow. It gives none of its options to those that lead to jumps, so these are told
    it here.
    """
    before = ""
    for number, hop in enumerate(way[:-1]):
        there = address._replace(name=hop.word, host=hop.word, user=hop.user, port=hop.port)
        options = _options(hop, before)
        if number == 0 and hop.jumps:
            options += ["-o", "ProxyJump=none"]  # it would lead here again
        *words, word = openssh.client(there, *options)
        # What begins with a percent sign is for the ssh that reads it to fill in.
        before = _escaped(words[:-1]) + " -W '[%h]:%p' " + _escaped([words[-1], word])
    return openssh.client(address, "-T", *_options(way[-1], before))


def _options(route: Route, before: str) -> list[str]:
    """before: the command that leads to the machine before it, if there is one."""
    named = [*_OPTIONS, *route.usual, *([f"ProxyCommand={before}"] if before else ())]
    return [word for option in named for word in ("-o", option)]


def _escaped(words: Sequence[str]) -> str:
    return shlex.join(words).replace("%", "%%")


def _is_there(address: Address) -> bool:
    if shutil.which("ssh") is None:
        return False
    try:
        done = subprocess.run(
            openssh.client(address, "-O", "check"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CONNECT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
