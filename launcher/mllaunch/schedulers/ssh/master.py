"""Connections that the user's own OpenSSH holds open for sharing (ControlMaster in ssh_config(5)).

So nodes are reached that ask for more than a key, such as a code from a telephone, once the user has logged in there.
Each command is an `ssh` of its own, which costs milliseconds. Nothing is asked of the user here, and no master opened.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from typing import IO, TYPE_CHECKING, BinaryIO

from mllaunch.schedulers.ssh import openssh
from mllaunch.schedulers.ssh.links import ANSWER_S, CONNECT_S

if TYPE_CHECKING:
    from mllaunch.schedulers.ssh.transport import Address

__all__ = ["SharedLink", "find"]

_END_S = 1.0
_OPTIONS = (
    *("-T", "-o", "ControlMaster=no", "-o", "BatchMode=yes", "-o", "RemoteCommand=none"),
    *("-o", f"ConnectTimeout={CONNECT_S:.0f}"),
)


class SharedPipe:
    def __init__(self, argv: list[str]) -> None:
        self._complaints: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  closed with the pipe
        self._socket, theirs = socket.socketpair()
        with theirs:
            # In a session of its own, where the terminal's Ctrl-C does not end it in mid-sentence.
            self._process = subprocess.Popen(
                argv,
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._complaints,
                start_new_session=True,
            )
        self._socket.settimeout(ANSWER_S)
        self.stdin = self
        self.stdout: BinaryIO = self._socket.makefile("rb")

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def set_patience(self, seconds: float | None) -> None:
        self._socket.settimeout(seconds)

    def receive(self, limit: int) -> bytes:
        return self._socket.recv(limit)

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

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
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever waits for it, too
        except OSError:
            pass
        self.stdout.close()
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._complaints.close()


class SharedLink:
    def __init__(self, address: Address) -> None:
        self._address = address

    @property
    def is_open(self) -> bool:
        return _is_there(self._address)

    def run(self, command: str) -> SharedPipe:
        return SharedPipe([*openssh.client(self._address, *_OPTIONS), command])

    def close(self) -> None:
        pass  # it is the user's


def find(address: Address) -> SharedLink | None:
    """The connection to a node that is held open; None if there is none."""
    return SharedLink(address) if _is_there(address) else None


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
