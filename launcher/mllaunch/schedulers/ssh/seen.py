"""When each node answered last, as far as this home knows: HOME/nodes/NAME holds the time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from mllaunch.ports import Clock
from mllaunch_agent import system

_EACH_S = 60.0  # a connection may live for days, and be asked many times a second


class Seen:
    """now_s: a clock that never goes back."""

    def __init__(self, home: str, clock: Clock, now_s: Callable[[], float] = time.monotonic) -> None:
        self._folder = os.path.join(home, "nodes")
        self._clock = clock
        self._now_s = now_s
        self._turn = threading.Lock()
        self._noted_s: dict[str, float] = {}

    def note(self, node: str) -> None:
        """A node has answered; at most once a minute of each is written down."""
        with self._turn:
            now_s = self._now_s()
            if now_s - self._noted_s.get(node, -_EACH_S) < _EACH_S:
                return
            self._noted_s[node] = now_s
            try:
                os.makedirs(self._folder, mode=0o700, exist_ok=True)
                system.write_atomic(os.path.join(self._folder, node), self._clock.now().encode())
            except OSError:
                pass  # the disk is full: no reason not to ask nodes

    def last(self, node: str) -> str | None:
        """RFC 3339, UTC; None: never."""
        data = system.read_file(os.path.join(self._folder, node))
        return None if data is None else data.decode("ascii", "replace")
