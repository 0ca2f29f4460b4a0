"""Where bytes come from: the runs that made them, and what those runs were made from, back to the first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from mllaunch.domain.artifact import (
    CHECKPOINT,
    IMAGE,
    MADE,
    OPENED,
    OPENED_WEIGHTS,
    READ,
    USED,
    WEIGHTS,
    WRITTEN,
    Artifact,
    digest,
)
from mllaunch.domain.lineage import DATA, Ties, producer
from mllaunch.domain.lineage import WEIGHTS as FROM_WEIGHTS
from mllaunch.domain.usage import Views
from mllaunch.errors import NotFound

if TYPE_CHECKING:
    from mllaunch.domain.run import Run, RunStatus
    from mllaunch.ports import RunLog

FILE_SCHEMA = "mllaunch.file/1"

_GENERATIONS = 100

Document = dict[str, Any]
Line = tuple[int, str, dict[str, Any]]


class _Runs:
    """Runs by id, each read once. One that was forgotten is None."""

    def __init__(self, log: RunLog) -> None:
        self._log = log
        self._known: dict[str, tuple[Run, RunStatus] | None] = {}

    def get(self, run_id: str) -> tuple[Run, RunStatus] | None:
        if run_id not in self._known:
            try:
                self._known[run_id] = self._log.get(run_id)
            except NotFound:
                self._known[run_id] = None
        return self._known[run_id]

    def name(self, run_id: str) -> str | None:
        found = self.get(run_id)
        return found[0].name if found else None


def ties(log: RunLog, run: Run, views: Views, traced: Iterable[Line]) -> Ties:
    """What other runs have to do with one."""
    runs = _Runs(log)
    wanted: dict[str, str | None] = {data["digest"]: None for view in views.values() for data in view["data"]}
    for _, _, line in traced:
        if line.get("record") in ("input", "folder") and line.get("sha256") and line.get("size_bytes"):
            wanted[line["sha256"]] = line.get("weights")
    producers: dict[str, Document] = {}
    for sha256, weights in wanted.items():
        found = _producer(log, run.id, sha256, weights)
        if found is not None:
            made, evidence = found
            producers[digest(sha256) or ""] = _made(runs, made, evidence)
    readers = [
        *log.readers(run.id, MADE, (OPENED, READ)),
        *log.readers(run.id, (WEIGHTS,), (OPENED_WEIGHTS,)),
    ]
    if readers:  # which do not know at which step this run wrote it
        steps = {a.sha256: a.step for a in log.artifacts_of(run.id, (CHECKPOINT, WEIGHTS))}
        readers = [artifact._replace(step=steps.get(artifact.sha256)) for artifact in readers]
    children = tuple(log.children(run.id))
    ids = {artifact.run_id for artifact in readers} | {run_id for run_id, _ in children}
    names = {run_id: name for run_id in ids if (name := runs.name(run_id)) is not None}
    started = {run_id: known[0].parent for run_id, _ in children if (known := runs.get(run_id)) is not None}
    declared = {run_id: parent for run_id, parent in started.items() if parent is not None}
    return Ties(producers, tuple(readers), children, names, declared)


def _producer(log: RunLog, run_id: str, sha256: str, weights: str | None) -> tuple[Artifact, str] | None:
    """Who made these bytes, or else who made other bytes that hold the same weights; and which of the two it was."""
    made = producer(run_id, [a for a in log.artifacts(sha256) if a.kind in MADE])
    if made is not None:
        return made, "content"
    if weights is not None:
        made = producer(run_id, [a for a in log.artifacts(weights) if a.kind == WEIGHTS])
        if made is not None:
            return made, "weights"
    return None


def _made(runs: _Runs, made: Artifact, evidence: str) -> Document:
    return {
        "run": made.run_id,
        "name": runs.name(made.run_id),
        "attempt": made.attempt,
        "step": made.step,
        "path": made.path,
        "evidence": evidence,
    }


def origin(log: RunLog, sha256: str, size_bytes: int | None = None, weights: str | None = None) -> Document:
    """Which runs made these bytes, with which code, and what those go back to; and which runs read them.

    weights: the digest of the weights in the file: those of a file that was saved anew are recognised by it.
    NotFound if no run is known to have had anything to do with it.
    """
    found = log.artifacts(sha256)
    alike = [a for a in log.artifacts(weights) if a.kind in (WEIGHTS, OPENED_WEIGHTS)] if weights else []
    if not found and not alike:
        words = "" if size_bytes is None else f", {size_bytes} bytes"
        more = (f"looked for the weights in it, sha256:{weights}",) if weights else ()
        raise NotFound(
            "unknown_file",
            "no run is known to have written or read a file with these bytes, nor to have run in such an image",
            evidence=(f"looked for sha256:{sha256}{words}", *more),
            hint="files of a run are known once it has ended; mllaunch ps shows which still go on",
        )
    runs = _Runs(log)
    written = _distinct([a for a in found if a.kind in (*MADE, WEIGHTS)])
    similar = [] if written else _distinct([a for a in alike if a.kind == WEIGHTS])
    used = [a for a in [*found, *alike] if a.kind in (*USED, OPENED_WEIGHTS)]
    makers = written or similar
    size = found[0].size_bytes if found else size_bytes
    return {
        "schema": FILE_SCHEMA,
        "digest": digest(sha256),
        "size_bytes": size,
        "written_by": _places(runs, written),
        "same_weights": _places(runs, similar),
        "read_by": _places(runs, _distinct(used)),
        "image_of": _places(runs, [a for a in found if a.kind == IMAGE]),
        "ancestors": ancestors(log, makers[0].run_id) if makers else [],
        "not_captured": [],
    }


def _distinct(artifacts: Iterable[Artifact]) -> list[Artifact]:
    """One for each place: of what is known as a checkpoint and as a file, the one that tells the step."""
    found: dict[tuple[str, int, str, str], Artifact] = {}
    for artifact in sorted(artifacts, key=lambda a: (a.run_id, a.kind != CHECKPOINT)):
        found.setdefault((artifact.run_id, artifact.attempt, artifact.node, artifact.path), artifact)
    return list(found.values())


def ancestors(log: RunLog, run_id: str) -> list[Document]:
    """What a run was made from, and from what that was made, as a tree: [{run, kind, digest, path, produced_by, from}].

    A run that was met already is named again, without what it goes back to.
    """
    return _from(log, _Runs(log), run_id, {run_id}, _GENERATIONS)


def _from(log: RunLog, runs: _Runs, run_id: str, met: set[str], generations: int) -> list[Document]:
    found: dict[str, Document] = {}
    run = runs.get(run_id)
    parent = run[0].parent if run else None
    if parent is not None:
        entry: Document = {
            "path": parent.path,
            "digest": digest(parent.sha256),
            "size_bytes": None,
            "kind": parent.kind,
        }
        declared = Artifact(
            parent.sha256, parent.run_id, parent.attempt, "", parent.path, CHECKPOINT, 0, parent.step
        )
        found[parent.sha256] = _edge(log, runs, entry, (declared, "declared"), met, generations)
        found[parent.sha256]["produced_by"]["name"] = parent.run_name  # also when that was forgotten
    own = {a.sha256 for a in log.artifacts_of(run_id, (CHECKPOINT, WRITTEN))}
    weights = {a.path: a.sha256 for a in log.artifacts_of(run_id, (OPENED_WEIGHTS,))}
    for used in log.artifacts_of(run_id, (OPENED, READ)):
        if used.sha256 in found:
            if found[used.sha256]["size_bytes"] is None:
                found[used.sha256]["size_bytes"] = used.size_bytes
            continue
        if used.size_bytes == 0:
            continue
        made = _producer(log, run_id, used.sha256, weights.get(used.path))
        if used.sha256 in own and (made is None or made[0].run_id >= run_id):
            continue  # what it wrote itself, unless it is a copy of what an earlier run wrote
        is_checkpoint = used.path in weights or (made is not None and made[0].kind in (CHECKPOINT, WEIGHTS))
        entry = {
            "path": used.path,
            "digest": digest(used.sha256),
            "size_bytes": used.size_bytes,
            "kind": FROM_WEIGHTS if is_checkpoint else DATA,
        }
        found[used.sha256] = _edge(log, runs, entry, made, met, generations)
    return sorted(found.values(), key=lambda e: (e["kind"] == DATA, e["produced_by"] is None, e["path"]))


def _edge(
    log: RunLog,
    runs: _Runs,
    entry: Document,
    made: tuple[Artifact, str] | None,
    met: set[str],
    generations: int,
) -> Document:
    """An input with who produced it, and what that goes back to."""
    if made is None:
        return {**entry, "produced_by": None, "from": []}
    artifact, evidence = made
    place = {**_made(runs, artifact, evidence), "code": _code(runs, artifact.run_id)}
    known = artifact.run_id in met or generations == 0
    met.add(artifact.run_id)
    back = [] if known else _from(log, runs, artifact.run_id, met, generations - 1)
    return {**entry, "produced_by": place, "from": back}


def _places(runs: _Runs, artifacts: Iterable[Artifact]) -> list[Document]:
    return [place for artifact in artifacts if (place := _place(runs, artifact)) is not None]


def _place(runs: _Runs, artifact: Artifact) -> Document | None:
    found = runs.get(artifact.run_id)
    if found is None:
        return None
    run, status = found
    return {
        "run": {
            "id": run.id,
            "name": run.name,
            "state": status.state.value,
            "submitted_at": run.submitted_at,
            "mixed_code": status.mixed,
        },
        "attempt": artifact.attempt,
        "node": artifact.node,
        "path": artifact.path,
        "step": artifact.step,
        "code": _code(runs, artifact.run_id),
        "command": {"argv": list(run.spec.argv), "params": dict(run.params)},
    }


def _code(runs: _Runs, run_id: str) -> Mapping[str, Any] | None:
    found = runs.get(run_id)
    if found is None:
        return None
    snapshot = found[0].snapshot
    return {
        "commit": snapshot.commit,
        "base_commit": snapshot.base_commit,
        "dirty": snapshot.dirty,
        "branch": snapshot.branch,
        "tree": snapshot.tree,
    }
