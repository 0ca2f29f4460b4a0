"""What unpinned requirements were resolved to: ``locks/KEY.txt`` in the home, KEY names the environment.

Resolved once: whoever builds the same environment again installs from there, and a run's record has its digest.
"""

from __future__ import annotations

import os

from mllaunch_agent import system


class FileLocks:
    def __init__(self, home: str) -> None:
        self._folder = os.path.join(home, "locks")

    def path(self, key: str) -> str:
        return os.path.join(self._folder, f"{key}.txt")

    def get(self, key: str) -> bytes | None:
        return system.read_file(self.path(key))

    def put(self, key: str, content: bytes) -> None:
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        system.write_atomic(self.path(key), content, durable=True)
