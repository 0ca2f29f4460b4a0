"""What OpenSSH is told where it connects in our place."""

from __future__ import annotations

import shlex

from mllaunch.schedulers.ssh.client import command_line
from mllaunch.schedulers.ssh.routes import Route, parse
from mllaunch.schedulers.ssh.transport import Address

CONFIG = "/home/me/100% mine"
NODE = Address("gpu01", config=CONFIG)


def route(word: str, more: str = "") -> Route:
    return parse(word, f"user me\nhostname 10.0.0.{len(word)}\nport 22\n{more}")


def leads_on(argv: list[str]) -> list[str] | None:
    """The words of the command that an ssh is given as its way; None if it is given none."""
    for word in argv:
        if word.startswith("ProxyCommand="):
            # As ssh reads it, and then a shell.
            command = word.removeprefix("ProxyCommand=")
            return [part.replace("%%", "%") for part in shlex.split(command)]
    return None


def test_each_machine_on_the_way_is_reached_as_strictly_as_the_node() -> None:
    argv = command_line(NODE, [route("far"), route("bastion"), route("gpu01", "proxyjump far,bastion")])
    assert argv[-2:] == ["--", "gpu01"]
    second = leads_on(argv)
    assert second is not None and second[-4:] == ["-W", "[%h]:%p", "--", "bastion"]
    first = leads_on(second)
    assert first is not None and first[-4:] == ["-W", "[%h]:%p", "--", "far"]
    assert leads_on(first) is None
    for words in (argv, second, first):
        assert {"StrictHostKeyChecking=yes", "BatchMode=yes", "ClearAllForwardings=yes"} <= set(words)
        assert words[words.index("-F") + 1] == CONFIG
        assert "ProxyJump=none" not in words


def test_the_first_machine_is_not_reached_through_itself() -> None:
    argv = command_line(NODE, [route("bastion", "proxyjump bastion"), route("gpu01", "proxyjump bastion")])
    first = leads_on(argv)
    assert first is not None and "ProxyJump=none" in first


def test_commands_are_run_as_usual_whatever_the_user_has_made_usual() -> None:
    argv = command_line(NODE, [route("gpu01", "sessiontype none\nstdinnull yes\nproxycommand nc %h %p")])
    assert {"sessiontype=default", "stdinnull=no"} <= set(argv)
    assert leads_on(argv) is None  # that is the configuration's own
