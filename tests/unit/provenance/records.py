"""Records of runs as the run log holds them, made of the events that agents write."""

from __future__ import annotations

import json
from typing import Any

from mllaunch.domain import view as views
from mllaunch.domain.artifact import Artifact
from mllaunch.domain.job import JobSpec, Resources
from mllaunch.domain.lineage import Ties
from mllaunch.domain.provenance import Recorded
from mllaunch.domain.run import Run, RunStatus
from mllaunch.domain.snapshot import Snapshot
from mllaunch.domain.status import run_status

SPEC = JobSpec(
    argv=("/usr/bin/python3", "train.py", "--lr", "3e-4"),
    script="train.py",
    args=("--lr", "3e-4"),
    workdir="",
    resources=Resources(gpus=1, procs_per_node=2),
    project="digits",
    data=("data/train",),
    max_retries=1,
)
SNAPSHOT = Snapshot(
    commit="c" * 40,
    tree="7" * 40,
    base_commit="b" * 40,
    dirty=True,
    uncommitted=("train.py",),
    branch="main",
    repository="/home/me/digits",
    git_dir="/home/me/digits/.git",
    remote="https://***@example.org/digits.git",
    ref="refs/mllaunch/" + "c" * 40,
)
RUN = Run(
    id="0192d3c0-0000-7000-8000-000000000001",
    name="brave-otter-17",
    spec=SPEC,
    snapshot=SNAPSHOT,
    params=(("lr", "3e-4"),),
    submitted_at="2026-11-21T09:00:00.000Z",
    submitted_by_user="me",
    submitted_by_host="laptop",
)
HOST = {
    "hostname": "gpu01",
    "addresses": ["10.0.0.1"],
    "os": "Debian GNU/Linux 12 (bookworm)",
    "kernel": "6.1.0",
    "arch": "x86_64",
    "cpu": {"model": "EPYC", "cores": 64, "threads": 128, "flags": ["avx2"]},
    "memory_bytes": 512 << 30,
    "memory_limit_bytes": None,
    "cpu_limit": 8.0,
    "boot_id": "boot",
    "disks": [],
    "virtualization": {"kind": "kvm"},
    "user": "me",
    "python_version": "3.11.2",
    "gpus": [
        {"index": 0, "uuid": "GPU-a", "name": "A100", "memory_bytes": 80 << 30},
        {"index": 1, "uuid": "GPU-b", "name": "A100", "memory_bytes": 80 << 30},
    ],
    "driver": "550.1",
    "cuda": "12.4",
}
PYTHON = {
    "version": "3.11.2",
    "implementation": "cpython",
    "executable": "/usr/bin/python3",
    "prefix": "/usr",
    "packages": [{"name": "torch", "version": "2.9.0"}],
}
NAMES = {"count": 0, "first": []}
DATA = {
    "path": "data/train",
    "form": "folder",
    "digest": "d" * 64,
    "verified": "content",
    "size_bytes": 1000,
    "files": 3,
    "links": 0,
    "skipped": NAMES,
    "unreadable": NAMES,
    "torn": NAMES,
    "outside": NAMES,
    "manifest": "manifest.0",
}
USAGE = {
    "wall_s": 60.5,
    "cpu_s": 100.25,
    "max_rss_bytes": 3 << 30,
    "read_bytes": 1 << 20,
    "written_bytes": 2 << 20,
    "gpu": {"mean_utilisation": 0.75, "max_memory_bytes": 40 << 30, "energy_j": 3600.5},
}
FILE = {
    "path": "outputs/model.pt",
    "kind": "file",
    "size_bytes": 700,
    "mtime": "2026-11-21T09:01:30.000000Z",
    "sha256": "f" * 64,
}


USER = {"rank": 1, "pid": 11}
TRACED: tuple[dict[str, Any], ...] = (
    {
        "record": "process",
        "at": "2026-11-21T09:05:01Z",
        **USER,
        "parent": 1,
        "executable": "python",
        "argv": [],
    },
    {
        "record": "code",
        "at": "2026-11-21T09:05:06.5Z",
        "path": "lib.py",
        "blob": "2" * 40,
        "how": "source",
        "committed": "1" * 40,
        **USER,
    },
    {
        "record": "code",
        "at": "2026-11-21T09:05:06.5Z",
        "path": "/opt/own/tool.py",
        "blob": "3" * 40,
        "how": "source",
        "committed": None,
        **USER,
    },
    {
        "record": "read",
        "path": "data/train",
        "at": "2026-11-21T09:05:02Z",
        "by": [USER],
        "read": {"count": 2, "exact": True},
    },
    {
        "record": "input",
        "at": "2026-11-21T09:05:02Z",
        "path": "/shared/start.pt",
        "kind": "checkpoint",
        "sha256": "a" * 64,
        "weights": "b" * 64,
        "format": "torch",
        "size_bytes": 700,
        "by": [USER],
        "loaded_by": "torch.load",
        "problem": None,
    },
    {
        "record": "checkpoint",
        "at": "2026-11-21T09:05:08Z",
        "path": "outputs/model.pt",
        "sha256": "f" * 64,
        "weights": "c" * 64,
        "format": "torch",
        "size_bytes": 700,
        "step": 5,
        "step_from": "call",
        **USER,
        "by": "torch.save",
        "problem": None,
    },
)
MADE = {
    "run": "parent",
    "name": "old-elk-1",
    "attempt": 1,
    "step": 9,
    "path": "outputs/last.pt",
    "evidence": "content",
}


def view(node: str, *events: tuple[str, dict[str, Any]], minute: int = 0) -> dict[str, Any]:
    """The view that a node's events lead to."""
    found = views.empty()
    for seq, (kind, fields) in enumerate(events, 1):
        at = f"2026-11-21T09:{minute:02d}:{seq:02d}.000Z"
        event = {"seq": seq, "at": at, "boot_s": float(seq), "kind": kind, **fields}
        found = views.fold(found, json.loads(json.dumps(event)))
    return found


def begun(node: str = "gpu01") -> list[tuple[str, dict[str, Any]]]:
    started = {"node": node, "hostname": node, "boot_id": "boot", "pid": 1, "protocol": 1, "version": "0"}
    return [
        ("attempt_started", started),
        ("gpus_leased", {"gpus": ["GPU-a"], "indices": [0]}),
        ("workdir_ready", {"path": "/runs/1/work", "method": "overlay"}),
        ("task_started", {"rank": 0, "pid": 10}),
        ("host", {"facts": HOST, "variables": {"OMP_NUM_THREADS": "4"}, "redacted": ["HF_TOKEN"]}),
        ("python", {"facts": PYTHON}),
        ("data", DATA),
    ]


def ended(state: str = "succeeded", code: int = 0) -> list[tuple[str, dict[str, Any]]]:
    exited = {"rank": 0, "exit_code": code, "signal": None, "error": None, "observed_by": "shim"}
    reason = {"code": "exit", "message": f"exited with {code}", "origin": "user", "node": "gpu01", "rank": 0}
    why = {**reason, "retryable": True} if state == "failed" else None
    return [
        ("task_exited", {**exited, "cpu_s": 90.0, "max_rss_bytes": 1 << 30, "out_of_memory": False}),
        ("attempt_ended", {"state": state, "exit_code": code, "reason": why}),
        ("usage", USAGE),
    ]


def sealed(view: dict[str, Any], gaps: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The view once the collector has verified the seal; gaps: of stdout.0."""
    stream = {"size_bytes": 42, "sha256": "1" * 64, "masked": 0, "gaps": [], "verified": True}
    streams = dict.fromkeys(("events", "files", "stderr.0", "samples"), stream)
    streams["stdout.0"] = {**stream, "gaps": gaps or [], "verified": not gaps}
    status = "sealed-with-gaps" if gaps else "sealed-complete"
    return {**view, "seal": {"status": status, "at": "2026-11-21T09:02:00.000Z", "streams": streams}}


def recorded(found: dict[tuple[int, str], dict[str, Any]], **fields: Any) -> Recorded:
    """A record of RUN with these views; what is not given follows from them."""
    run = fields.pop("run", RUN)
    status = run_status(run.spec.max_retries, found) if found else RunStatus(views.State.QUEUED)
    known: dict[str, Any] = {
        "run": run,
        "status": status,
        "note": "a note",
        "tags": ("first", "second"),
        "views": found,
        "files": (),
        "lengths": {},
        "events": 12,
        "events_sha256": "e" * 64,
    }
    return Recorded(**{**known, **fields})


def full() -> Recorded:
    """A run with two attempts, of which something is known under every key."""
    gap = {"offset": 0, "size_bytes": 4096, "reason": "the disk was full"}
    first = sealed(view("gpu01", *begun(), *ended("failed", 3)), [gap])
    changed = {"path": "data/train", "added": NAMES, "removed": NAMES}
    second = view(
        "gpu01",
        *begun(),
        ("not_captured", {"what": "energy", "why": "the driver does not say"}),
        ("restarted", {"last_seen_boot_s": 1.0, "cut_bytes": 0}),
        *ended(),
        ("data_changed", {**changed, "modified": {"count": 1, "first": ["a.csv"]}}),
        ("leftovers", {"processes": [{"pid": 77, "command": "tail -f log"}]}),
        minute=5,
    )
    second["code_verified"] = [
        {"rank": None, "matches": True, "files": 3, "differing": [], "at": "2026-11-21T09:05:05Z"}
    ]
    edited = {
        "rank": None,
        "path": "lib.py",
        "before": "1" * 40,
        "after": "2" * 40,
        "at": "2026-11-21T09:05:06Z",
    }
    second["code_changes"] = [edited]
    versions = [
        {"blob": "1" * 40, "by": [{"rank": 0, "pid": 10}], "processes": 1},
        {"blob": "2" * 40, "by": [{"rank": 1, "pid": 11}], "processes": 1},
    ]
    second["code_mixed"] = [{"path": "lib.py", "versions": versions, "at": "2026-11-21T09:05:07Z"}]
    torn = {**FILE, "path": "outputs/log", "sha256": None, "problem": "torn"}
    link = {**FILE, "path": "outputs/latest", "kind": "symlink", "sha256": None, "target": "model.pt"}
    return recorded(
        {(1, "gpu01"): first, (2, "gpu01"): sealed(second)},
        files=((2, "gpu01", FILE), (2, "gpu01", torn), (2, "gpu01", link)),
        traced=tuple((2, "gpu01", line) for line in TRACED),
        patches={("2026-11-21T09:05:06Z", "lib.py"): "diff --git a/lib.py b/lib.py\n"},
        trees={("2026-11-21T09:05:06Z", "lib.py"): "8" * 40},
        ties=Ties(
            {"sha256:" + "a" * 64: MADE},
            (Artifact("f" * 64, "child", 1, "gpu02", "start.pt", "input", 700),),
            (("child", "weights"),),
            {"child": "calm-fox-2"},
        ),
    )
