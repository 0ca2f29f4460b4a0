"""How a run came to be, as one document; pure. Described in docs/provenance.md.

The document says everything that is known. What is not known is null or empty, and listed with its reason under
``not_captured``: "nothing was recorded" is never to be taken for "nothing happened".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mllaunch.domain import codeuse, filesused
from mllaunch.domain.lineage import Ties, lineage
from mllaunch.domain.omissions import not_captured
from mllaunch.domain.run import Run, RunStatus
from mllaunch.domain.state import State
from mllaunch.domain.status import run_status
from mllaunch.domain.usage import Views, usage

# Keys may be added under the same number. A renamed, removed or redefined one needs the next.
SCHEMA = "mllaunch.provenance/1"

Document = dict[str, Any]


class Recorded(NamedTuple):
    """All that the run log holds of a run.

    views: by (attempt, node), in order. files, traced: lines of the ``files`` and ``trace`` streams, each with its
    attempt and node. lengths: stored bytes by (attempt, node, stream). events, events_sha256: how many, and the
    digest of the ``events`` streams of all attempts and nodes one after the other. patches, trees: of changes to the
    code in mid-run, by (at, path), as far as their content was kept: the change as a patch, and the tree that one
    which was in use led to. ties: to other runs.
    """

    run: Run
    status: RunStatus
    note: str | None
    tags: tuple[str, ...]
    views: Views
    files: tuple[tuple[int, str, dict[str, Any]], ...]
    lengths: dict[tuple[int, str, str], int]
    events: int
    events_sha256: str
    traced: tuple[tuple[int, str, dict[str, Any]], ...] = ()
    patches: Mapping[tuple[str, str], str] = {}
    trees: Mapping[tuple[str, str], str] = {}
    ties: Ties = Ties()


def document(recorded: Recorded) -> Document:
    """The document of docs/provenance.md. Uses no clock: the same record always gives the same document."""
    run, status, views = recorded.run, recorded.status, recorded.views
    changes = codeuse.changes(views, recorded.traced)
    inputs = filesused.inputs(views, recorded.traced, recorded.ties.producers)
    return {
        "schema": SCHEMA,
        "run": run_part(recorded),
        "command": command_part(run),
        "code": code_part(recorded, changes),
        "environment": _environment(run, status.attempt, views),
        "hosts": [_host(run, number, node, view) for (number, node), view in views.items()],
        "inputs": inputs,
        "outputs": filesused.outputs(
            recorded.files, recorded.traced, run.snapshot.tree, changes, recorded.trees
        ),
        "lineage": lineage(run, inputs, recorded.ties),
        "usage": usage(views),
        "logs": _logs(views, recorded.lengths),
        "attempts": attempts_part(run, status, views),
        "not_captured": not_captured(run, status, views, recorded.files, recorded.traced),
        "seal": seal_part(recorded),
    }


def run_part(recorded: Recorded) -> Document:
    run, status = recorded.run, recorded.status
    return {
        "id": run.id,
        "name": run.name,
        "project": run.spec.project,
        "state": status.state.value,
        "reason": status.reason._asdict() if status.reason else None,
        "exit_code": status.exit_code,
        "tasks": run.spec.resources.world_size,
        "note": recorded.note,
        "tags": list(recorded.tags),
        "submitted_by": {"user": run.submitted_by_user, "host": run.submitted_by_host},
        "submitted_at": run.submitted_at,
        "started_at": status.started_at,
        "ended_at": status.ended_at,
    }


def command_part(run: Run) -> Document:
    spec = run.spec
    return {
        "argv": list(spec.argv),
        "script": spec.script,
        "args": list(spec.args),
        "params": dict(run.params),
        "workdir": spec.workdir,
    }


def code_part(recorded: Recorded, changes: Sequence[codeuse.Change]) -> Document:
    run, views, traced, patches = recorded.run, recorded.views, recorded.traced, recorded.patches
    snapshot = run.snapshot
    return {
        "commit": snapshot.commit,
        "base_commit": snapshot.base_commit,
        "dirty": snapshot.dirty,
        "uncommitted": list(snapshot.uncommitted),
        "branch": snapshot.branch,
        "repository": snapshot.repository,
        "remote": snapshot.remote,
        "tree": snapshot.tree,
        "ref": snapshot.ref,
        "in_place": run.spec.in_place,
        "nodes": codeuse.nodes(views),
        "changes": [
            {**change._asdict(), "diff": patches.get((change.at, change.path))} for change in changes
        ],
        "mixed": codeuse.mixed(views),
        "outside": codeuse.outside(traced),
    }


def _environment(run: Run, newest: int, views: Views) -> Document:
    """That of the newest attempt's first node that told of it."""
    nodes = [view for (number, _), view in views.items() if number == newest]
    told = next((view for view in nodes if view["host"]), None)
    python = next((view["python"] for view in nodes if view["python"]), None)
    lock = run.image.lock if run.image else run.lock
    engine = next((view["engine"] for view in nodes if view.get("engine")), None)
    return {
        "runtime": run.spec.runtime,
        "runtime_why": run.spec.runtime_why,
        "image": run.image
        and {
            "reference": run.image.reference,
            "digest": run.image.digest,
            "id": run.image.id,
            "environment": run.image.environment,
            "base": run.image.base,
            "size_bytes": run.image.size_bytes,
        },
        "engine": engine and {"name": engine["name"], "version": engine["version"]},
        "python": python
        and {
            "version": python.get("version"),
            "implementation": python.get("implementation"),
            "executable": python.get("executable"),
            "packages": python.get("packages"),
        },
        "lock": lock and lock._asdict(),
        "variables": told["variables"] if told else {},
        "redacted": told["redacted"] if told else [],
    }


def _host(run: Run, number: int, node: str, view: dict[str, Any]) -> Document:
    facts = view["host"] or {}
    cpu = facts.get("cpu") or {}
    gpus = facts.get("gpus")
    return {
        "node": node,
        "attempt": number,
        "hostname": view["hostname"],
        "addresses": facts.get("addresses"),
        "os": facts.get("os"),
        "kernel": facts.get("kernel"),
        "arch": facts.get("arch"),
        "virtualization": (facts.get("virtualization") or {}).get("kind"),
        "cpu": {name: cpu.get(name) for name in ("model", "cores", "threads", "flags")},
        "memory_bytes": facts.get("memory_bytes"),
        "memory_limit_bytes": facts.get("memory_limit_bytes"),
        "cpu_limit": facts.get("cpu_limit"),
        "boot_id": view["boot_id"],
        "gpus": None if gpus is None else [_gpu(gpu, view["gpus"]) for gpu in gpus],
        "driver": facts.get("driver"),
        "cuda": facts.get("cuda"),
        "scheduler": {"backend": run.spec.backend, "job_id": None, "queue": None},
    }


def _gpu(gpu: dict[str, Any], leased: list[str]) -> Document:
    known = {name: gpu.get(name) for name in ("index", "uuid", "name", "memory_bytes")}
    return {**known, "leased": gpu.get("uuid") in leased}


def _logs(views: Views, lengths: dict[tuple[int, str, str], int]) -> list[Document]:
    logs = []
    for (number, node), view in views.items():
        sealed = (view["seal"] or {}).get("streams", {})
        stored = {name for attempt, where, name in lengths if (attempt, where) == (number, node)}
        for name in sorted({*sealed, *stored}, key=_by_rank):
            kind, _, rank = name.partition(".")
            if kind not in ("stdout", "stderr") or not rank.isdigit():
                continue
            gaps = [gap for gap in view["gaps"] if gap.get("stream") == name]
            logs.append(
                {
                    "node": node,
                    "rank": int(rank),
                    "attempt": number,
                    "stream": kind,
                    "through": view["tasks"].get(rank, {}).get("output") or "files",
                    "size_bytes": sealed[name]["size_bytes"]
                    if name in sealed
                    else lengths[number, node, name],
                    "sha256": sealed[name]["sha256"] if name in sealed else None,
                    "gaps": [_gap(gap) for gap in (sealed[name]["gaps"] if name in sealed else gaps)],
                }
            )
    return logs


def _by_rank(stream: str) -> tuple[int, str]:
    """stdout.0, stderr.0, stdout.1, ..."""
    kind, _, rank = stream.partition(".")
    return (int(rank) if rank.isdigit() else 0), {"stdout": "0", "stderr": "1"}.get(kind, stream)


def _gap(gap: dict[str, Any]) -> Document:
    return {name: gap[name] for name in ("offset", "size_bytes", "reason")}


def attempts_part(run: Run, status: RunStatus, views: Views) -> list[Document]:
    """Every attempt and how it ended; the newest one as the run's status has it if its nodes could not say."""
    attempts = []
    for number in range(1, status.attempt + 1):
        own = {key: view for key, view in views.items() if key[0] == number}
        ended = run_status(0, own) if own else None
        is_newest = number == status.attempt and status.state is not State.QUEUED
        known = status if ended is None or (is_newest and not ended.state.is_final) else ended
        attempts.append(
            {
                "number": number,
                "state": known.state.value,
                "reason": known.reason._asdict() if known.reason else None,
                "exit_code": known.exit_code,
                "started_at": min((v["started_at"] for v in own.values() if v["started_at"]), default=None),
                "ended_at": known.ended_at,
                "nodes": [node for _, node in own],
            }
        )
    return attempts


def seal_part(recorded: Recorded) -> Document:
    """The weakest of all nodes' and attempts' seals; status and sha256 are None while more may come."""
    status = recorded.status.shown_seal
    sealed = [view["seal"]["status"] if view["seal"] else "unsealed" for view in recorded.views.values()]
    if status == "sealed-complete":
        worst = [name for name in ("unsealed", "sealed-with-gaps") if name in sealed]
        status = worst[0] if worst else status
    return {
        "status": status,
        "events": recorded.events,
        "sha256": None if recorded.status.seal is None else recorded.events_sha256,
    }
