"""The way to one node: opened once, shared by all; knocked at ever more seldom while nobody answers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mllaunch.errors import MllaunchError
from mllaunch.schedulers.ssh.calls import Calls

__all__ = ["Door"]

_AGAIN_S = 5.0
_AT_MOST_S = 60.0


def _beside(act: Callable[[], None]) -> None:
    threading.Thread(target=act, daemon=True).start()


class Door:
    """enter: connects, or raises MllaunchError; it may take its time. now_s: a clock that never goes back. beside: has
    something done while others go on.
    """

    def __init__(
        self,
        enter: Callable[[], Calls],
        now_s: Callable[[], float] = time.monotonic,
        beside: Callable[[Callable[[], None]], None] = _beside,
    ) -> None:
        self._enter = enter
        self._now_s = now_s
        self._beside = beside
        self._lock = threading.Lock()
        self._calls: Calls | None = None
        self._failed: MllaunchError | None = None
        self._pause_s = _AGAIN_S
        self._due_s = 0.0
        self._is_knocking = False

    def open(self) -> Calls:
        """Who comes first connects, and whoever comes meanwhile waits for that. MllaunchError if nobody answers; from
        then on nobody waits: the node is asked again beside, and until it answers this is what everybody is told.
        """
        with self._lock:
            if self._failed is None:
                if self._calls is None or self._calls.is_broken:
                    self._knock()
            elif not self._is_knocking and self._now_s() >= self._due_s:
                self._is_knocking = True
                self._beside(self._knock_again)
            if self._failed is not None:
                raise self._failed.again()
            assert self._calls is not None
            return self._calls

    def _knock_again(self) -> None:
        try:
            self._knock()
        finally:
            self._is_knocking = False

    def _knock(self) -> None:
        try:
            calls = self._enter()
        except MllaunchError as error:
            self._pause_s = _AGAIN_S if self._failed is None else min(2 * self._pause_s, _AT_MOST_S)
            self._due_s = self._now_s() + self._pause_s
            self._failed = error
        else:
            self._calls, self._failed = calls, None
