"""Calls that might never return, with a limit on how long we wait for them."""

from __future__ import annotations

import threading
from queue import Empty, SimpleQueue
from typing import Any, Callable, Tuple, TypeVar

__all__ = ["Bounded", "Overdue"]

T = TypeVar("T")


class Overdue(Exception):
    """A call did not return in time; it goes on, in a thread that does not keep the process from ending."""


class Bounded:
    """Makes calls in a daemon thread of its own, one at a time, and waits at most ``timeout_s`` for each.

    A thread that hangs inside a driver cannot be stopped. So while a call is overdue, every further one is
    refused at once with Overdue instead of piling up behind it; when the driver answers after all, calls
    work again.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._work: SimpleQueue[Callable[[], Any]] = SimpleQueue()
        self._results: SimpleQueue[Tuple[Any, Any]] = SimpleQueue()
        self._overdue = False
        self._started = False

    def call(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises; Overdue if that takes too long or an earlier call still has not
        returned."""
        if not self._started:
            threading.Thread(target=self._serve, name="bounded", daemon=True).start()
            self._started = True
        if self._overdue and not self._late_answer_came():
            raise Overdue("an earlier call has not returned yet")
        self._work.put(work)
        try:
            result, error = self._results.get(timeout=self._timeout_s)
        except Empty:
            self._overdue = True
            raise Overdue("no answer within %g s" % self._timeout_s) from None
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """Let the thread end once it has nothing left to do."""
        if self._started:
            self._work.put(_end)

    def _late_answer_came(self) -> bool:
        try:
            self._results.get_nowait()
        except Empty:
            return False
        self._overdue = False
        return True

    def _serve(self) -> None:
        while True:
            work = self._work.get()
            if work is _end:
                return
            try:
                self._results.put((work(), None))
            except BaseException as error:  # noqa: BLE001  it is raised again where the call was made
                self._results.put((None, error))


def _end() -> None:
    """Never called: its place in the queue ends the thread."""
