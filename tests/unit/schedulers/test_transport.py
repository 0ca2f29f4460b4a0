from __future__ import annotations

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
