"""What OpenSSH says of the way to a machine, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllaunch.schedulers.ssh.routes import Route, hop, parse, way

SAID = """\
host gpu01
user me
hostname 10.0.0.1
port 22
controlmaster false
identitiesonly no
identityfile {folder}/missing
identityfile {folder}/my key
globalknownhostsfile /none/a /none/b
userknownhostsfile {folder}/known of mine {folder}/known
"""


def test_what_it_says_is_the_route_but_for_files_that_are_not_there(tmp_path: Path) -> None:
    for name in ("my key", "known of mine", "known"):
        (tmp_path / name).touch()
    assert parse("gpu01", SAID.format(folder=tmp_path)) == Route(
        word="gpu01",
        host="10.0.0.1",
        user="me",
        port=22,
        keys=(f"{tmp_path}/my key",),
        agent=None,
        jumps=(),
        command=None,
        known_hosts=(f"{tmp_path}/known of mine", f"{tmp_path}/known"),
        known_as="10.0.0.1",
        revoked=None,
        shares=False,
    )


@pytest.mark.parametrize(
    ("more", "changes"),
    [
        ("proxyjump none", {}),
        ("sessiontype default\nstdinnull no\nforkafterauthentication no", {}),
        ("sessiontype none\nstdinnull yes", {"usual": ("sessiontype=default", "stdinnull=no")}),
        ("proxyjump a,me@b:2222", {"jumps": ("a", "me@b:2222")}),
        ("proxycommand none", {}),
        (
            "proxycommand relay --to %h:%p %n %r 100%% %x",
            {"command": "relay --to 10.0.0.1:22 gpu01 me 100% %x"},
        ),
        ("controlpath none", {}),
        ("controlpath /run/%C", {"shares": True}),
        ("identityagent SSH_AUTH_SOCK", {}),
        ("identityagent none", {"agent": "none"}),
        ("identityagent /run/agent", {"agent": "/run/agent"}),
        ("hostkeyalias lab", {"known_as": "lab"}),
        ("revokedhostkeys none", {}),
        ("revokedhostkeys /etc/revoked", {"revoked": "/etc/revoked"}),
    ],
)
def test_what_else_it_may_say(more: str, changes: dict[str, object]) -> None:
    plain = parse("gpu01", "user me\nhostname 10.0.0.1\nport 22\n")
    assert parse("gpu01", f"user me\nhostname 10.0.0.1\nport 22\n{more}\n") == plain._replace(**changes)  # type: ignore[arg-type]


def test_a_machine_is_known_with_its_port_if_that_is_another() -> None:
    assert parse("x", "user me\nhostname 10.0.0.1\nport 2222\n").known_as == "[10.0.0.1]:2222"


@pytest.mark.parametrize(
    ("jump", "parts"),
    [
        ("bastion", ("bastion", None, None)),
        ("me@bastion:22", ("bastion", "me", 22)),
        ("ssh://me@bastion:22", ("bastion", "me", 22)),
        ("a@lab@bastion", ("bastion", "a@lab", None)),
        ("[fe80::1]:22", ("fe80::1", None, 22)),
        ("fe80::1", ("fe80::1", None, None)),
    ],
)
def test_a_machine_on_the_way_is_written_as_for_ssh(
    jump: str, parts: tuple[str, str | None, int | None]
) -> None:
    assert hop(jump) == parts


def test_a_jump_that_is_meant_for_the_jump_itself_too_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {"bastion": "b", "gpu01": "g", "other": "o"}

    def look_up(word: str, user: str | None, port: int | None, config: str | None) -> Route:
        jump = {"gpu01": "bastion", "bastion": "bastion", "other": "gpu01"}[word]
        return parse(word, f"user me\nhostname {ways[word]}\nport 22\nproxyjump {jump}\n")

    monkeypatch.setattr("mllaunch.schedulers.ssh.routes.look_up", look_up)
    for word, hosts in (("gpu01", ["b", "g"]), ("bastion", ["b"]), ("other", ["b", "g", "o"])):
        assert [route.host for route in way(look_up(word, None, None, None), None)] == hosts


def test_names_of_files_may_have_tokens_and_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB", str(tmp_path))
    for name in ("gpu01-10.0.0.1-22-me", "100%"):
        (tmp_path / name).touch()
    said = "user me\nhostname 10.0.0.1\nport 22\n"
    said += "identityfile ${LAB}/%n-%h-%p-%r\nidentityfile $LAB/100%%\nidentityagent $LAB/agent\n"
    route = parse("gpu01", said)
    assert route.keys == (f"{tmp_path}/gpu01-10.0.0.1-22-me", f"{tmp_path}/100%")
    assert route.agent == f"{tmp_path}/agent"
