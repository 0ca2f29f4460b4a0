"""The keys by which machines are known: files as sshd(8) tells of them under SSH_KNOWN_HOSTS FILE FORMAT.

paramiko reads such files too, but knows neither patterns nor markers, and takes nothing from a file in which it cannot
read one line.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from paramiko import PKey

__all__ = ["Known", "known", "listed"]

_REVOKED = "@revoked"
_KRL = b"SSHKRL"  # PROTOCOL.krl of OpenSSH


class Known(NamedTuple):
    """What is known of one machine. keys: with the file that has each, the first file's first. revoked: keys not to be
    trusted any more.
    """

    keys: tuple[tuple[PKey, str], ...]
    revoked: tuple[PKey, ...]


def known(files: Iterable[str], name: str) -> Known:
    """The keys of the machine of this name. A file that cannot be read has none, a line that cannot is none."""
    keys: list[tuple[PKey, str]] = []
    revoked: list[PKey] = []
    for file in files:
        for marker, key in _entries(file, name):
            if marker == _REVOKED:
                revoked.append(key)
            elif not marker:  # of certificates paramiko knows nothing
                keys.append((key, file))
    return Known(tuple((key, file) for key, file in keys if key not in revoked), tuple(revoked))


def listed(file: str) -> tuple[PKey, ...]:
    """The keys of a file as RevokedHostKeys names it, one on each line. OSError or ValueError if it cannot be read:
    then none may be trusted.
    """
    with open(file, "rb") as lines:
        content = lines.read()
    if content.startswith(_KRL):
        raise ValueError("it is a key revocation list, which only OpenSSH reads")
    fields = (line.split() for line in content.decode(errors="replace").splitlines())
    found = [_key(*words[:2]) for words in fields if len(words) >= 2 and not words[0].startswith("#")]
    return tuple(key for key in found if key is not None)


def _entries(file: str, name: str) -> Iterator[tuple[str, PKey]]:
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields = line.split()
                marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
                if len(fields) >= 3 and not fields[0].startswith("#") and _means(fields[0], name):
                    key = _key(fields[1], fields[2])
                    if key is not None:
                        yield marker, key
    except OSError:
        return


def _key(kind: str, text: str) -> PKey | None:
    import paramiko

    try:
        made: PKey = paramiko.PKey.from_type_string(kind, base64.b64decode(text))
    except Exception:  # noqa: BLE001  paramiko raises whatever it comes upon in a key that is damaged
        return None
    return made


def _means(patterns: str, name: str) -> bool:
    """Whether a line's first field, patterns or a hashed name, means a machine."""
    if patterns.startswith("|1|"):
        try:
            salt, digest = (base64.b64decode(part) for part in patterns[3:].split("|"))
        except ValueError:
            return False
        return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)
    found = False
    for pattern in patterns.lower().split(","):
        plain = pattern.removeprefix("!")
        # Of what fnmatch knows, brackets are no pattern here: they stand around a host that has a port.
        if fnmatchcase(name.lower(), plain.replace("[", "[[]")):
            if pattern != plain:
                return False
            found = True
    return found
