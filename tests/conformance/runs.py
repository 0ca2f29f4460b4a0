"""Runs to store, for tests and measurements of every run log."""

from __future__ import annotations

from mllaunch.domain.job import JobSpec, Resources
from mllaunch.domain.run import Run, RunStatus
from mllaunch.domain.snapshot import Snapshot
from mllaunch.domain.state import State

QUEUED = RunStatus(State.QUEUED)
RUNNING = RunStatus(State.RUNNING, started_at="2026-11-21T09:00:01.000Z")
SUCCEEDED = RunStatus(
    State.SUCCEEDED, exit_code=0, ended_at="2026-11-21T09:10:00.000Z", seal="sealed-complete"
)

SPEC = JobSpec(
    argv=("python", "train.py", "--lr", "0.1"),
    script="train.py",
    args=("--lr", "0.1"),
    workdir="",
    resources=Resources(cpus=2),
    project="digits",
)
SNAPSHOT = Snapshot(
    commit="a" * 40,
    tree="b" * 40,
    base_commit="a" * 40,
    dirty=False,
    uncommitted=(),
    branch="main",
    repository="/home/me/digits",
    git_dir="/home/me/digits/.git",
    remote=None,
    ref="refs/mllaunch/one",
)


def make_run(
    number: int, *, spec: JobSpec = SPEC, params: tuple[tuple[str, str], ...] = (), **fields: str
) -> Run:
    """The run number ``number``: later numbers were submitted later."""
    milliseconds = number % 1000
    seconds = number // 1000
    day, hour, minute = 21 + seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    at = f"2026-11-{day:02d}T{hour:02d}:{minute:02d}:{seconds % 60:02d}"
    return Run(
        id=fields.get("id", f"0192d3c0-{number >> 16:04x}-7{number & 0xFFF:03x}-8000-{number:012x}"),
        name=fields.get("name", f"brave-otter-{number}"),
        spec=spec,
        snapshot=SNAPSHOT,
        params=params,
        submitted_at=fields.get("submitted_at", f"{at}.{milliseconds:03d}Z"),
        submitted_by_user="me",
        submitted_by_host="laptop",
    )
