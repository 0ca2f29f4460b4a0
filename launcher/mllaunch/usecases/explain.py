"""Why a run failed, where the usual reason can be told: a file that exists here but is not in the commit."""

from __future__ import annotations

import os.path
from collections.abc import Callable

from mllaunch.domain.missing import missing_file, missing_module
from mllaunch.domain.run import Run, RunStatus
from mllaunch.domain.state import State
from mllaunch.ports import AttemptRef, BlobStore, RunLog, StreamRef

_TAIL_BYTES = 16 << 10


def hints(
    blobs: BlobStore, log: RunLog, run: Run, status: RunStatus, exists: Callable[[str], bool] = os.path.exists
) -> list[str]:
    """What the user may do about a failed run; empty if nothing is known to help."""
    if status.is_lost and status.reason is not None:
        return [
            f"it goes on if {status.reason.node} does, and is known again once that answers: mllaunch show {run.name}"
        ]
    if status.state is not State.FAILED or status.reason is None or status.reason.rank is None:
        return []
    if status.reason.code != "exit" or status.reason.node is None:
        return []
    ref = StreamRef(run.id, status.attempt, status.reason.node, f"stderr.{status.reason.rank}")
    length = blobs.length(ref)
    tail = blobs.read(ref, max(0, length - _TAIL_BYTES), _TAIL_BYTES).decode("utf-8", "replace")
    view, _ = log.view(AttemptRef(run.id, status.attempt), status.reason.node)
    work = (view.get("workdir") or {}).get("path") or ""
    return list(uncommitted(tail, run, work, exists))


def uncommitted(tail: str, run: Run, work: str, exists: Callable[[str], bool]) -> list[str]:
    """Hints for what the tail of stderr says is missing and the user's working tree has.

    work: the folder that the task started in, to map absolute paths back.
    """
    here = os.path.join(run.snapshot.repository, run.spec.workdir)
    missing = missing_file(tail)
    if missing:
        relative = os.path.relpath(missing, work) if os.path.isabs(missing) and work else missing
        if not os.path.isabs(relative) and exists(os.path.join(here, relative)):
            data = _data_with(os.path.normpath(os.path.join(here, relative)), run)
            if data is not None:
                return [
                    f"{relative} is here, but was not where the run was: its data must lie there at {data}"
                ]
            top = _top(relative, here, exists)
            what = f"{relative} is in your working tree but not in the commit"
            return [f"{what}; commit it, or give it to the run with --data {top}"]
    for candidate in missing_module(tail) or ():
        if exists(os.path.join(here, candidate)):
            return [
                f"{candidate} is in your working tree but not in the commit: git add {candidate} && git commit"
            ]
    return []


def _data_with(path: str, run: Run) -> str | None:
    """Which data of the run a file belongs to, by their absolute path; None if to none."""
    places = [os.path.join(run.snapshot.repository, data) for data in run.spec.data]
    return next((place for place in places if path == place or path.startswith(place + os.sep)), None)


def _top(path: str, here: str, exists: Callable[[str], bool]) -> str:
    """The folder to name in --data: the file's own folder, or the file if it lies at the top."""
    folder = os.path.dirname(path)
    return folder if folder and not folder.startswith("..") and exists(os.path.join(here, folder)) else path
