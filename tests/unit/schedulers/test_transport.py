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


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (["ann@gpu01: Permission denied (publickey)."], "ssh_login"),
        (["No ED25519 host key is known for gpu01", "Host key verification failed."], "ssh_login"),
        (["Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures"], "ssh_login"),
        (
            ["ann@bastion: Permission denied (publickey).", "Connection closed by UNKNOWN port 65535"],
            "ssh_login",
        ),
        (["ssh: connect to host gpu01 port 22: Connection timed out"], "unreachable"),
        (["kex_exchange_identification: Connection closed by remote host"], "unreachable"),
    ],
)
def test_a_machine_that_refuses_is_told_from_one_that_ssh_does_not_reach(said: list[str], code: str) -> None:
    error = transport.refused(transport.Address("gpu01"), said)
    assert error.code == code
    assert "denied" in error.message or not any("denied" in line for line in said)
    asks_nothing = "does this work, and asks nothing? ssh -o BatchMode=yes gpu01 true"
    assert error.hint == (asks_nothing if code == "ssh_login" else "does this work? ssh gpu01 true")


def test_an_option_that_this_system_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "TCP_USER_TIMEOUT")
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        transport._transport(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
