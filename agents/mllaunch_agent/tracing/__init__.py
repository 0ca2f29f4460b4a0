"""From what the tasks' own processes note down to what a run executed, read and wrote. See docs/trace.md."""

from __future__ import annotations

import os

__all__ = ["HOOK", "began_ns", "folder_of", "prepare"]

HOOK = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "hook")  # goes on PYTHONPATH


def folder_of(attempt: str) -> str:
    """Where the processes of an attempt leave their notes."""
    return os.path.join(attempt, "trace")


def prepare(attempt: str) -> None:
    """Make the place for the notes, before the tasks start."""
    folder = folder_of(attempt)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    began = os.path.join(folder, "began")  # what code has changed since is kept by the hook
    if not os.path.exists(began):
        os.close(os.open(began, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))


def began_ns(attempt: str) -> int:
    """Just before the tasks began, by the clock that file times are taken from; 0 if that is not known any more."""
    try:
        return os.stat(os.path.join(folder_of(attempt), "began")).st_mtime_ns
    except OSError:
        return 0
