from __future__ import annotations

import io
import socket

import pytest

from mllaunch.schedulers.ssh import transport


def test_no_message_of_ours_waits_for_the_acknowledgement_of_the_one_before() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        assert transport._transport(sock).sock is sock
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000


def test_what_is_no_socket_of_ours_is_taken_as_it_is() -> None:
    class Channel:
        """To another machine, through a gateway."""

        def settimeout(self, seconds: float) -> None: ...

    channel = Channel()
    assert transport._transport(channel).sock is channel


def test_an_option_that_this_system_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        transport._transport(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


class Ended:
    """The channel of a command that has ended. is_connected: whether the connection is still there."""

    closed = True
    eof_received = True

    def __init__(self, is_connected: bool) -> None:
        self._is_connected = is_connected

    def settimeout(self, seconds: float) -> None: ...

    def makefile(self, mode: str, size: int) -> io.BytesIO:
        return io.BytesIO()

    def sendall(self, data: bytes) -> None:
        raise OSError("Socket is closed")

    def get_transport(self) -> Ended:
        return self

    def is_active(self) -> bool:
        return self._is_connected


def test_what_a_command_is_given_after_its_end_goes_nowhere_unless_the_connection_has_gone() -> None:
    assert transport.FabricPipe(Ended(is_connected=True)).stdin.write(b"program") == 7
    with pytest.raises(OSError, match="closed"):
        transport.FabricPipe(Ended(is_connected=False)).stdin.write(b"program")
