"""The stream of what changed code held: JSON lines {"blob", "size_bytes", "data"}, data being the content in base64."""

from __future__ import annotations

import json
import os
import threading
from typing import Any, Dict, Iterator, List, Optional, Set

from mllaunch_agent import protocol
from mllaunch_agent.streams import Stream

__all__ = ["BlobLog", "past_lines"]

_MAX_BYTES = 4 << 20  # what is larger was not written by a person


class BlobLog:
    """Keeps each content once. May be used by several threads, and goes on where a supervisor before left off."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._known: Optional[Set[str]] = None
        self._stream: Optional[Stream] = None

    def keep_file(self, blob: str, path: str) -> None:
        """Keep the content of a file, if it is (still) what git would call ``blob``."""
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                if os.fstat(file.fileno()).st_size <= _MAX_BYTES:
                    self.keep(blob, file.read(_MAX_BYTES + 1))
        except OSError:
            pass  # it has gone: that its content is not kept shows where it is asked for

    def keep(self, blob: str, content: bytes) -> None:
        import base64  # not for the supervisor, whose start a task waits for

        from mllaunch_agent import codewatch

        if len(content) > _MAX_BYTES or codewatch.blob_id_of(content) != blob:
            return
        with self._lock:
            if self._known is None:
                self._known = {str(line.get("blob")) for line in past_lines(self._folder, protocol.BLOBS)}
            if blob in self._known:
                return
            if self._stream is None:
                self._stream = Stream(self._folder, protocol.BLOBS)
            data = base64.b64encode(content).decode("ascii")
            line = {"blob": blob, "size_bytes": len(content), "data": data}
            if self._stream.write(json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"):
                self._known.add(blob)

    def close(self) -> None:
        with self._lock:
            if self._stream is not None:
                self._stream.close()
                self._stream = None


def past_lines(folder: str, name: str) -> Iterator[Dict[str, Any]]:
    """The lines of a stream that a supervisor before this one wrote; a line torn by its death is cut off."""
    try:
        with open(os.path.join(folder, "streams", name), "rb+") as file:
            sound = 0
            for line in file:
                if line.endswith(b"\n"):
                    sound += len(line)
                    yield from _parsed(line)
            file.truncate(sound)
    except FileNotFoundError:
        pass


def _parsed(line: bytes) -> List[Dict[str, Any]]:
    try:
        found = json.loads(line.decode("ascii"))
    except (ValueError, RecursionError):
        return []  # damaged
    return [found] if isinstance(found, dict) else []
