"""What goes wrong with the place where a store lives, said so that a person can act on it."""

from __future__ import annotations

import errno
import sqlite3

from mllaunch.errors import InternalError, MllaunchError, NotPermitted


class NewerSchema(InternalError):
    """The run log was written by a newer mllaunch. Nothing was changed in it."""

    def __init__(self, path: str, theirs: int, ours: int) -> None:
        super().__init__(
            "newer_schema",
            f"the run log has schema {theirs}, and this mllaunch knows schemas up to {ours}",
            evidence=(path,),
            hint="upgrade mllaunch (pip install --upgrade mllaunch), or set MLLAUNCH_HOME to another folder",
        )


def os_fault(error: OSError, path: str) -> MllaunchError:
    """The error for a failed system call on ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return disk_full(path, str(error))
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return not_writable(path, str(error))
    return InternalError(
        "store_unusable", "the run log's folder cannot be used", evidence=(path, str(error)), hint=_DOCTOR
    )


def disk_full(path: str, cause: str) -> MllaunchError:
    return InternalError(
        "disk_full",
        "no space is left for the run log; what was stored before is unharmed",
        evidence=(path, cause),
        hint="free some space (mllaunch prune), or set MLLAUNCH_HOME to another disk",
    )


def not_writable(path: str, cause: str) -> MllaunchError:
    return NotPermitted(
        "home_not_writable",
        "the run log cannot be opened or written",
        evidence=(path, cause),
        hint="make the folder writable, or set MLLAUNCH_HOME to another",
    )


def database_fault(error: sqlite3.Error, path: str) -> MllaunchError:
    """The error for what SQLite reports. By its text: Python 3.10 gives no codes."""
    text = str(error)
    if "full" in text:
        return disk_full(path, text)
    if "readonly" in text or "unable to open" in text:
        return not_writable(path, text)
    if "not a database" in text or "malformed" in text:
        return InternalError(
            "damaged_run_log",
            "the run log is damaged; nothing was written to it",
            evidence=(path, text),
            hint=f"keep a copy of it, then try: sqlite3 {path} .recover",
        )
    if "locked" in text:
        return busy(path, text)
    return InternalError("store_unusable", "the run log cannot be used", evidence=(path, text), hint=_DOCTOR)


def busy(path: str, cause: str) -> MllaunchError:
    return InternalError(
        "run_log_busy",
        "another process has held the run log for too long",
        evidence=(path, cause),
        hint="lslocks shows which one holds it",
    )


_DOCTOR = "mllaunch doctor checks the run log"
