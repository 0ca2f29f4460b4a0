"""When each node answered last, as far as this home knows: HOME/nodes/NAME holds the time."""

from __future__ import annotations

import os

from mllaunch_agent import system


class Seen:
    def __init__(self, home: str) -> None:
        self._folder = os.path.join(home, "nodes")

    def note(self, node: str, at: str) -> None:
        """at: RFC 3339, UTC."""
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        system.write_atomic(os.path.join(self._folder, node), at.encode())

    def last(self, node: str) -> str | None:
        data = system.read_file(os.path.join(self._folder, node))
        return None if data is None else data.decode("ascii", "replace")
