"""What proves that a message is the other agent's next one: docs/protocol.md, "Peers". Pure."""

from __future__ import annotations

import hashlib
import hmac
import json

__all__ = ["FIRST", "OTHER", "Direction", "session_key"]

FIRST = "first"  # what the agent of node rank 0 says
OTHER = "other"


def session_key(token: bytes, first_nonce: str, other_nonce: str, rank: int) -> bytes:
    """The key of one connection: who has not the token cannot know it, and no other connection has the same."""
    return _mac(token, json.dumps([first_nonce, other_nonce, rank]).encode("ascii"))


class Direction:
    """What one of the two says over a connection. No message has the same MAC elsewhere, or at another place."""

    def __init__(self, key: bytes, who: str) -> None:
        self._key = key
        self._who = who
        self._count = 0

    def sign(self, content: bytes) -> bytes:
        """The next message as a line, without its end."""
        self._count += 1
        text = b"%s %d %s" % (self._who.encode("ascii"), self._count, content)
        return _mac(self._key, text).hex().encode("ascii") + b" " + content

    def verify(self, line: bytes) -> bytes:
        """The next message's content. ValueError if the line is anything else."""
        content = line.partition(b" ")[2]
        if not hmac.compare_digest(line, self.sign(content)):
            raise ValueError("not the next message")
        return content


def _mac(key: bytes, text: bytes) -> bytes:
    return hmac.new(key, text, hashlib.sha256).digest()
