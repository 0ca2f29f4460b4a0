"""How the death of a supervisor is noticed: it holds a FIFO open for writing, whose readers then see a hang-up."""

from __future__ import annotations

import os
from typing import Tuple


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
