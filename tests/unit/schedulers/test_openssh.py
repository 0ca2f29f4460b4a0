"""The command line of OpenSSH that leads to a node."""

from __future__ import annotations

from mllaunch.schedulers.ssh.openssh import client, command
from mllaunch.schedulers.ssh.transport import Address


def test_what_the_configuration_does_not_say_is_left_to_the_users_ssh_configuration() -> None:
    made = command(Address("gpu01"), ["ls"], terminal=False)
    assert made == ["ssh", "-T", "-o", "StrictHostKeyChecking=yes", "--", "gpu01", "ls"]


def test_what_the_configuration_says_is_what_ssh_is_told() -> None:
    address = Address("gpu01", "10.0.0.1", "me", 2222, known_hosts="/keys of ours", config="/etc/lab_ssh")
    assert command(address, ["ls"], terminal=True) == [
        *("ssh", "-t", "-o", "StrictHostKeyChecking=yes", "-F", "/etc/lab_ssh"),
        *("-o", 'UserKnownHostsFile="/keys of ours"', "-o", "GlobalKnownHostsFile=/dev/null"),
        *("-l", "me", "-p", "2222", "--", "10.0.0.1", "ls"),
    ]


def test_words_arrive_as_they_were_typed_and_no_host_name_is_an_option() -> None:
    made = command(Address("x", "-oProxyCommand=sh"), ["echo", "a  b", "$HOME", "it's"], terminal=False)
    assert made[-3:] == ["--", "-oProxyCommand=sh", """echo 'a  b' '$HOME' 'it'"'"'s'"""]


def test_what_is_told_to_a_master_is_told_for_the_same_user_and_port() -> None:
    address = Address("gpu01", None, "me", 2222)
    assert client(address, "-O", "check") == [
        *("ssh", "-O", "check", "-o", "StrictHostKeyChecking=yes", "-l", "me", "-p", "2222", "--", "gpu01"),
    ]
