"""Which runs a run goes back to, and which go back to it; pure.

An edge is either declared (``mllaunch resume``) or found by content: a file that one run wrote and another opened, on
whatever host, under whatever name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mllaunch.domain.artifact import OPENED_WEIGHTS, Artifact, digest
from mllaunch.domain.run import Parent, Run

__all__ = ["Ties", "lineage", "producer"]

Document = dict[str, Any]

RESUME, WEIGHTS, DATA = "resume", "weights", "data"


class Ties(NamedTuple):
    """What the run log knows of other runs about one.

    producers: by digest (``sha256:...``) of an input or of the weights in it, who made it: {run, name, attempt, step,
    path, evidence}. readers: what others read of what this one made, each with the step at which this one made it.
    children: (id, kind), and with what each was started from, by its id, in declared. names: by run id.
    """

    producers: Mapping[str, Document] = {}
    readers: tuple[Artifact, ...] = ()
    children: tuple[tuple[str, str], ...] = ()
    names: Mapping[str, str] = {}
    declared: Mapping[str, Parent] = {}


def producer(run_id: str, made: Iterable[Artifact]) -> Artifact | None:
    """Of all that have made these bytes, the one that a run had them from: the first that did, itself last of all."""
    found = sorted(made, key=lambda artifact: (artifact.run_id == run_id, artifact.run_id, artifact.attempt))
    return found[0] if found else None


def lineage(run: Run, inputs: Iterable[Document], ties: Ties) -> Document:
    """{parents: [{run, name, kind, checkpoint, path, attempt, step, evidence}], children: [the same]}"""
    return {"parents": _parents(run, inputs), "children": _children(ties)}


def _parents(run: Run, inputs: Iterable[Document]) -> list[Document]:
    found: dict[tuple[str, str | None], Document] = {}
    if run.parent is not None:
        parent = run.parent
        found[parent.run_id, digest(parent.sha256)] = {
            "run": parent.run_id,
            "name": parent.run_name,
            "kind": parent.kind,
            "checkpoint": digest(parent.sha256),
            "path": parent.path,
            "attempt": parent.attempt,
            "step": parent.step,
            "evidence": "declared",
        }
    for entry in inputs:
        made = entry["produced_by"]
        if made is not None and made["run"] != run.id:
            edge = {name: made[name] for name in ("run", "name", "path", "attempt", "step")}
            kind = WEIGHTS if entry["kind"] == "checkpoint" else DATA
            found.setdefault(
                (made["run"], entry["digest"]),
                {**edge, "kind": kind, "checkpoint": entry["digest"], "evidence": made["evidence"]},
            )
    return list(found.values())


def _children(ties: Ties) -> list[Document]:
    found: dict[tuple[str, str | None], Document] = {}
    kinds = dict(ties.children)
    started = {run_id: parent for run_id, parent in ties.declared.items() if run_id in kinds}
    for run_id, parent in started.items():
        found[run_id, None] = {
            "run": run_id,
            "name": ties.names.get(run_id),
            "kind": kinds.pop(run_id),
            "checkpoint": digest(parent.sha256),
            "path": parent.path,
            "attempt": parent.attempt,
            "step": parent.step,
            "evidence": "declared",
        }
    # What a run was started from it also reads; that is the same edge, as is that of the weights in it.
    same = {
        (artifact.run_id, artifact.path)
        for artifact in ties.readers
        if artifact.run_id in started and artifact.sha256 == started[artifact.run_id].sha256
    }
    for artifact in ties.readers:
        is_weights = artifact.kind == OPENED_WEIGHTS
        key = (artifact.run_id, artifact.path)
        if key in same:
            continue
        edge = {
            "run": artifact.run_id,
            "name": ties.names.get(artifact.run_id),
            "kind": kinds.pop(artifact.run_id, None) or (WEIGHTS if is_weights else DATA),
            "checkpoint": digest(artifact.sha256),
            "path": artifact.path,
            "attempt": artifact.attempt,
            "step": artifact.step,
            "evidence": "weights" if is_weights else "content",
        }
        if key in found:
            # The file's own digest says more than that of the weights in it, which tells what kind of file it is.
            kind = max((edge["kind"], found[key]["kind"]), key=(DATA, WEIGHTS, RESUME).index)
            found[key] = {**(found[key] if is_weights else edge), "kind": kind}
        else:
            found[key] = edge
    blank = dict.fromkeys(("checkpoint", "path", "attempt", "step"))
    declared = [
        {"run": run_id, "name": ties.names.get(run_id), "kind": kind, **blank, "evidence": "declared"}
        for run_id, kind in kinds.items()
    ]
    return [*found.values(), *declared]
