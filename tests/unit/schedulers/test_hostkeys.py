"""Files of known hosts, as OpenSSH reads them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from pathlib import Path

import pytest
from paramiko import Ed25519Key, PKey
from paramiko.message import Message

from mllaunch.schedulers.ssh.hostkeys import known, listed

# An exponent that is negative, on which paramiko raises OverflowError.
RSA = "ssh-rsa " + base64.b64encode(b"\0\0\0\7ssh-rsa\0\0\0\1\xff\0\0\0\1\xff").decode()


def key(number: int) -> str:
    """A key of that number, as a line has it."""
    message = Message()
    message.add_string("ssh-ed25519")
    message.add_string(hashlib.sha256(bytes([number])).digest())
    return "ssh-ed25519 " + base64.b64encode(message.asbytes()).decode()


def hashed(name: str) -> str:
    """ssh-keygen(1), -H."""
    salt = b"0123456789abcdefghij"
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    return "|1|" + "|".join(base64.b64encode(part).decode() for part in (salt, digest))


def shown(keys: tuple[PKey, ...]) -> list[str]:
    return [f"{one.get_name()} {one.get_base64()}" for one in keys]


@pytest.mark.parametrize(
    ("patterns", "name", "means"),
    [
        ("gpu01", "gpu01", True),
        ("gpu01", "gpu011", False),
        ("GPU01.lab", "gpu01.LAB", True),
        ("a,gpu01,b", "gpu01", True),
        ("gpu*,!gpu02", "gpu01", True),
        ("gpu*,!gpu02", "gpu02", False),
        ("!gpu02,gpu*", "gpu02", False),
        ("gpu0?", "gpu01", True),
        ("*", "anything", True),
        ("[10.0.0.1]:2222", "[10.0.0.1]:2222", True),
        ("10.0.0.1", "[10.0.0.1]:2222", False),
        ("[10.0.0.*]:2222", "[10.0.0.1]:2222", True),
        (hashed("gpu01"), "gpu01", True),
        (hashed("gpu01"), "gpu02", False),
        ("|1|damaged", "gpu01", False),
    ],
)
def test_a_line_is_of_the_machines_that_its_patterns_mean(
    tmp_path: Path, patterns: str, name: str, means: bool
) -> None:
    file = tmp_path / "known"
    file.write_text(f"{patterns} {key(1)} a comment\n")
    assert shown(tuple(k for k, _ in known([str(file)], name).keys)) == ([key(1)] if means else [])


def test_lines_that_cannot_be_read_and_files_that_are_not_there_take_nothing_from_the_others(
    tmp_path: Path,
) -> None:
    lines = [
        "",
        "#",
        "gpu01",
        "gpu01 ssh-ed25519",
        "gpu01 ssh-ed25519 AAAA",
        "gpu01 ssh-new AAAAB3Nz",
        "gpu01 x !",
    ]
    (tmp_path / "one").write_bytes("\n".join(lines).encode() + b"\n\xff\xfe\n")
    (tmp_path / "two").write_text(f"gpu01\t{key(2)}\n  gpu01 {key(3)}")
    files = [str(tmp_path / name) for name in ("none", "one", "two")]
    found = known(files, "gpu01")
    assert shown(tuple(k for k, _ in found.keys)) == [key(2), key(3)]
    assert {file for _, file in found.keys} == {files[2]}
    assert found.revoked == ()


def test_a_key_that_was_revoked_is_not_known_and_one_of_an_authority_is_none_of_a_machine(
    tmp_path: Path,
) -> None:
    file = tmp_path / "known"
    file.write_text(f"gpu01 {key(1)}\n@revoked * {key(1)}\n@cert-authority * {key(2)}\ngpu01 {key(3)}\n")
    found = known([str(file)], "gpu01")
    assert shown(tuple(k for k, _ in found.keys)) == [key(3)]
    assert shown(found.revoked) == [key(1)]
    assert isinstance(found.revoked[0], Ed25519Key)
    assert found.has_authority


def test_an_authority_counts_for_the_machines_that_it_is_named_for(tmp_path: Path) -> None:
    file = tmp_path / "known"
    file.write_text(f"@cert-authority *.example.org,!other.example.org sk-of-a-kind {'A' * 68}\n")
    assert known([str(file)], "gpu01.example.org").has_authority
    for name in ("gpu01", "other.example.org"):
        assert not known([str(file)], name).has_authority


def test_a_list_of_revoked_keys_is_read_and_one_that_only_openssh_reads_is_told_from_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "plain").write_text(f"# revoked\n{key(1)} of gpu01\n\ndamaged\n{key(2)}\n")
    assert shown(listed(str(tmp_path / "plain"))) == [key(1), key(2)]
    (tmp_path / "krl").write_bytes(b"SSHKRL\n\0\0\0\0\1")
    with pytest.raises(ValueError, match="key revocation list"):
        listed(str(tmp_path / "krl"))
    with pytest.raises(OSError):
        listed(str(tmp_path / "none"))
