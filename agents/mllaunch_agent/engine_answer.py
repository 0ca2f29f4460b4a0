"""What comes back from the container engine: refusals, documents, streams, and a task's output in frames."""

from __future__ import annotations

import json
import socket
from typing import Any, Dict, Iterator, Optional, Tuple

__all__ = ["Answer", "Chunks", "EngineError", "EngineGone", "Frames"]

_BLOCK = 1 << 16
_MAX_HEAD_BYTES = 1 << 16
_BROKE = "the connection broke"


class EngineGone(OSError):
    """The engine does not answer (any more): not there, not permitted, restarting, or the connection broke."""


class EngineError(OSError):
    """The engine refused. status: HTTP's; message: the engine's own words, on one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Answer:
    """What comes back on one connection, read as it comes. A context manager that closes the connection."""

    def __init__(self, connection: socket.socket, path: str, has_body: bool, polled: bool) -> None:
        self._connection = connection
        self._path = path
        # A head that is read without looking ahead leaves the body to poll(2).
        self._file = connection.makefile("rb", buffering=0 if polled else _BLOCK)
        self._has_body = has_body
        self._checked = False
        self._left: Optional[int] = None  # bytes of the body still to come, where the head has said
        self._chunks: Optional[Chunks] = None
        self.status = 0
        self.headers: Dict[str, str] = {}  # by their names in small letters; there once check() has returned

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        return self._connection.fileno()

    def close(self) -> None:
        self._file.close()
        self._connection.close()

    def check(self) -> None:
        """Read the head; EngineError if it is a refusal, EngineGone if it never comes."""
        if self._checked:
            return
        self._checked = True
        try:
            self.status = self._read_head()
            if self._has_body and self.headers.get("content-length", "").isdigit():
                self._left = int(self.headers["content-length"])
            elif self.headers.get("transfer-encoding", "").lower() == "chunked":
                self._chunks = Chunks()
            if self.status < 400:
                return
            text = self._read_refusal() if self._has_body else b""
        except OSError as e:
            self.close()
            raise EngineGone("%s: %s" % (self._path, e.strerror or e)) from e
        self.close()
        raise EngineError(self.status, _message(text, self.status))

    def _read_refusal(self) -> bytes:
        text = b""
        while len(text) < _MAX_HEAD_BYTES:
            piece = self._file.read(_MAX_HEAD_BYTES)
            if not piece:
                break
            text += piece
        return self._chunks.feed(text) if self._chunks else text

    def _read_head(self) -> int:
        first = self._file.readline(_MAX_HEAD_BYTES).split(None, 2)
        if len(first) < 2 or not first[0].startswith(b"HTTP/") or not first[1].isdigit():
            raise OSError(_BROKE if not first else "not an answer of a container engine")
        total = 0
        while True:
            line = self._file.readline(_MAX_HEAD_BYTES)
            total += len(line)
            if line in (b"\r\n", b"\n"):
                return int(first[1])
            if not line or total > _MAX_HEAD_BYTES:
                raise OSError(_BROKE)
            key, _, value = line.decode("latin-1").partition(":")
            self.headers[key.strip().lower()] = value.strip()

    def drain(self) -> bytes:
        """What has come, at least a byte unless it is the end: b"". Only of what is polled."""
        while True:
            try:
                data = self._connection.recv(_BLOCK)
                piece = data if self._chunks is None else self._chunks.feed(data)
            except (OSError, ValueError):
                return b""  # the engine has gone: that is an end, too
            if self._left is not None:
                self._left -= len(data)
            if piece or not data or (self._chunks is not None and self._chunks.ended):
                return piece

    def is_whole(self) -> bool:
        """Once drain() has said that this is the end: whether it is that of the answer, or of the engine."""
        return self._chunks.ended if self._chunks is not None else not self._left

    def read(self, size: int = -1) -> bytes:
        """Up to ``size`` bytes, all of it by default; b"" at the end. EngineGone if it ends before it should."""
        self.check()
        try:
            data: bytes = self._file.read(size)
        except OSError as e:
            raise EngineGone("%s: %s" % (self._path, e.strerror or e)) from e
        if self._left is not None:
            self._left -= len(data)
            if self._left > 0 and (size < 0 or not data):
                raise EngineGone("%s: %s" % (self._path, _BROKE))
        return data

    def documents(self) -> Iterator[Any]:
        """JSON documents, one a line."""
        self.check()
        try:
            for line in self._file:
                if line.strip():
                    yield json.loads(line)
        except OSError as e:
            raise EngineGone("%s: %s" % (self._path, e.strerror or e)) from e
        except ValueError as e:
            raise EngineGone("%s: %s" % (self._path, _BROKE)) from e


class Chunks:
    """Takes a body of unknown length apart as it comes in, RFC 9112, 7.1. Pure.

    ended: whether the last chunk has come; a body without one was torn.
    """

    def __init__(self) -> None:
        self.ended = False
        self._data = b""
        self._left = 0  # of the chunk and the line's end after it

    def feed(self, data: bytes) -> bytes:
        """What these bytes hold, torn anywhere. ValueError if they are not chunks."""
        self._data += data
        pieces = []
        while self._data and not self.ended:
            if self._left:
                taken = self._data[: self._left]
                pieces.append(taken[: max(0, self._left - 2)])
                self._left -= len(taken)
                self._data = self._data[len(taken) :]
                continue
            line, end, rest = self._data.partition(b"\r\n")
            if not end:
                if len(line) > _MAX_HEAD_BYTES:
                    raise ValueError("not a chunk")
                break
            size = int(line.partition(b";")[0], 16)
            if size < 0:
                raise ValueError("not a chunk")
            self._data = rest
            self._left = size + 2 if size else 0
            self.ended = not size
        return b"".join(pieces)


class Frames:
    """Takes a container's output apart as it comes in. Pure.

    A frame: one byte that names the stream (1 is stdout, 2 is stderr), three zeros, the length in four bytes, the data.
    """

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    def feed(self, data: bytes) -> Iterator[Tuple[int, bytes]]:
        """(stream, bytes) of what these bytes hold; frames may be torn anywhere."""
        while data:
            if self._left:
                piece, data = data[: self._left], data[self._left :]
                self._left -= len(piece)
                yield self._head[0], piece
                if not self._left:
                    self._head = b""
                continue
            missing = 8 - len(self._head)
            self._head, data = self._head + data[:missing], data[missing:]
            if len(self._head) == 8:
                self._left = int.from_bytes(self._head[4:], "big")
                if not self._left:
                    self._head = b""


def _message(text: bytes, status: int) -> str:
    try:
        message = json.loads(text)["message"]
    except (ValueError, KeyError, TypeError):
        message = text.decode("utf-8", "replace")
    return " ".join(str(message).split()) or "HTTP status %d" % status
