"""Append-only byte streams on the node, and the event log that is one of them."""

from __future__ import annotations

import json
import os
from typing import Any, List

from mllaunch_agent import protocol, system


class Stream:
    """A file that only grows. A record that could not be written (disk full) is dropped whole and counted."""

    def __init__(self, folder: str, name: str) -> None:
        self.path = os.path.join(folder, "streams", name)
        self.name = name
        self.dropped = 0
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, record: bytes) -> bool:
        """Append one record; False if the disk had no room for all of it."""
        end = os.fstat(self._fd).st_size
        try:
            system.write_all(self._fd, record)
        except OSError:
            self.dropped += 1
            # A torn record in the middle would spoil what follows; only this process appends to this stream.
            os.ftruncate(self._fd, end)
            return False
        return True

    def sync(self) -> None:
        os.fsync(self._fd)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


class EventLog:
    """The ``events`` stream: numbered, timed, in order. Opening it after a crash cuts a damaged tail."""

    def __init__(self, folder: str) -> None:
        path = os.path.join(folder, "streams", protocol.EVENTS)
        data = system.read_file(path) or b""
        self.past, sound = protocol.parse_events(data)
        self.cut_bytes = len(data) - sound
        if self.cut_bytes:
            os.truncate(path, sound)
        self._seq = self.past[-1]["seq"] if self.past else 0
        self._unwritten: List[protocol.Event] = []
        self.stream = Stream(folder, protocol.EVENTS)

    def write(self, kind: str, **fields: Any) -> bool:
        """Append one event; False if the disk had no room, and it waits for the next call of write or flush."""
        event = {"seq": self._seq + 1, "at": system.now(), "boot_s": round(system.boot_s(), 3), "kind": kind}
        event.update(fields)
        self._seq += 1
        self._unwritten.append(event)
        return self.flush()

    def flush(self) -> bool:
        """Append what a full disk has kept back; whether all of it is stored now."""
        while self._unwritten:
            # ensure_ascii keeps surrogates of undecodable file names, and every control character, as \u escapes.
            line = json.dumps(self._unwritten[0], separators=(",", ":")).encode("ascii") + b"\n"
            if not self.stream.write(line):
                return False
            del self._unwritten[0]
        return True

    def has(self, kind: str) -> bool:
        """Whether an event of this kind was on record when the log was opened."""
        return any(event["kind"] == kind for event in self.past)
