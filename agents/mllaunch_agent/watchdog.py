"""How the death of a supervisor is noticed, and mended: it holds a FIFO open for writing, whose readers then see a
hang-up, and fork another supervisor out of their own memory."""

from __future__ import annotations

import math
import os
import select
import signal
import time
from typing import Callable, Dict, Iterable, List, Optional, Set, Tuple

# Between attempts to replace a supervisor: at first short, so that it is back at once; then longer, so that one
# that cannot live (a full disk, a defect of ours) does not take the job's processor.
_PAUSES_S = (0.2, 0.5, 2.0, 10.0)


def open_alive(folder: str) -> Tuple[int, int]:
    """(reader, writer) of the supervisor's FIFO. The reader is handed to forks, the writer is this process's own.

    The reader must be opened before the writer: Linux reports a hang-up only to readers that had a writer before.
    """
    path = os.path.join(folder, "supervisor.alive")
    if not os.path.exists(path):
        os.mkfifo(path, 0o600)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return reader, hold_alive(folder)


def hold_alive(folder: str) -> int:
    """The writer alone, for a supervisor that takes over."""
    return os.open(os.path.join(folder, "supervisor.alive"), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)


class Watchdog:
    """Waits for whatever a shim waits for, and replaces a supervisor that died meanwhile.

    fifo: the reading end. revive: called in a fork of this process, which it makes the new supervisor. wakeup:
    becomes readable when a child ends.
    """

    def __init__(self, fifo: int, revive: Callable[[], None], wakeup: int) -> None:
        self.supervisors: List[int] = []  # pids, of those that this process has forked and not yet collected
        self._fifo = fifo
        self._revive = revive
        self._wakeup = wakeup
        self._revived = 0
        self._revived_s = 0.0
        self._again_s = 0.0

    def wait(self, files: Iterable[int] = (), timeout_s: Optional[float] = None) -> Set[int]:
        """Until a child ends, one of the files is readable, or the time is up; which files are readable."""
        files = set(files)
        poll = select.poll()
        for file in (self._wakeup, *files):
            poll.register(file, select.POLLIN)
        pause_s = self._again_s - time.monotonic()
        if pause_s <= 0:
            poll.register(self._fifo, 0)  # only the hang-up is of interest
        else:
            timeout_s = pause_s if timeout_s is None else min(pause_s, timeout_s)
        ready: Dict[int, int] = dict(poll.poll(None if timeout_s is None else math.ceil(timeout_s * 1000)))
        if self._wakeup in ready:
            os.read(self._wakeup, 4096)
        if self._fifo in ready:
            self._replace()
        return files.intersection(ready)

    def _replace(self) -> None:
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            try:
                self._revive()
            finally:
                os._exit(0)
        self.supervisors.append(pid)
        # The new supervisor opens the FIFO within milliseconds, which ends the hang-up.
        now_s = time.monotonic()
        if now_s - self._revived_s > _PAUSES_S[-1] * 6:
            self._revived = 0  # the one before lived for a while
        self._revived_s = now_s
        self._again_s = now_s + _PAUSES_S[min(self._revived, len(_PAUSES_S) - 1)]
        self._revived += 1
