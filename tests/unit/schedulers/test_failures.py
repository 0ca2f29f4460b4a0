from __future__ import annotations

import pytest

from mllaunch.schedulers.ssh.failures import refused
from mllaunch.schedulers.ssh.transport import Address


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
    error = refused(Address("gpu01"), said)
    assert error.code == code
    assert "denied" in error.message or not any("denied" in line for line in said)
    asks_nothing = "does this work, and asks nothing? ssh -o BatchMode=yes gpu01 true"
    assert error.hint == (asks_nothing if code == "ssh_login" else "does this work? ssh gpu01 true")
