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

_AUTHORITY = "@cert-authority"
_REVOKED = "@revoked"
_KRL = b"SSHKRL"  # PROTOCOL.krl of OpenSSH


class Known(NamedTuple):
    """What is known of one machine. keys: with the file that has each, the first file's first. revoked: keys not to be
    trusted any more. has_authority: whether somebody may vouch for its key, of which paramiko knows nothing.
    """

    keys: tuple[tuple[PKey, str], ...]
    revoked: tuple[PKey, ...]
    has_authority: bool = False


def known(files: Iterable[str], name: str) -> Known:
    """The keys of the machine of this name. A file that cannot be read has none, a line that cannot is none."""
    keys: list[tuple[PKey, str]] = []
    revoked: list[PKey] = []
    has_authority = False
    for file in files:
        for marker, kind, text in _entries(file, name):
            has_authority = has_authority or marker == _AUTHORITY
            key = _key(kind, text)
            if key is not None and marker == _REVOKED:
                revoked.append(key)
            elif key is not None and not marker:
                keys.append((key, file))
    trusted = tuple((key, file) for key, file in keys if key not in revoked)
    return Known(trusted, tuple(revoked), has_authority)


def listed(file: str) -> tuple[PKey, ...]:
    """The keys of a file as RevokedHostKeys names it, one on each line. OSError if it cannot be read: then none may be
    trusted. ValueError of one that only OpenSSH reads, a key revocation list.
    """
    with open(file, "rb") as lines:
        content = lines.read()
    if content.startswith(_KRL):
        raise ValueError("it is a key revocation list")
    fields = (line.split() for line in content.decode(errors="replace").splitlines())
    found = [_key(*words[:2]) for words in fields if len(words) >= 2 and not words[0].startswith("#")]
    return tuple(key for key in found if key is not None)


def _entries(file: str, name: str) -> Iterator[tuple[str, str, str]]:
    """Marker, kind and text of each key that a file has for the machine of this name."""
    try:
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                fields = line.split()
                marker = fields.pop(0) if fields and fields[0].startswith("@") else ""
                if len(fields) >= 3 and not fields[0].startswith("#") and _means(fields[0], name):
                    yield marker, fields[1], fields[2]
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
