"""How a run, or a file, came to be: gathers what the run log knows and has it put together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mllaunch.ports import StreamRef
from mllaunch_agent import protocol

if TYPE_CHECKING:
    from mllaunch.domain.artifact import Artifact
    from mllaunch.domain.provenance import Recorded
    from mllaunch.domain.run import Run, RunStatus
    from mllaunch.ports import BlobStore, RunLog

FILE_SCHEMA = "mllaunch.file/1"

_READ_BYTES = 1 << 20


def gather(log: RunLog, blobs: BlobStore, run: Run, status: RunStatus) -> Recorded:
    """All that the run log holds of a run."""
    from hashlib import sha256

    from mllaunch.domain.provenance import Recorded

    views = log.views(run.id)
    note, tags = log.notes(run.id)
    refs = list(blobs.streams(run.id))
    count = 0
    digest = sha256()
    for number, node in views:
        for block in _blocks(blobs, StreamRef(run.id, number, node, protocol.EVENTS)):
            digest.update(block)
            count += block.count(b"\n")
    return Recorded(
        run=run,
        status=status,
        note=note,
        tags=tags,
        views=views,
        files=tuple(files(blobs, run.id, list(views))),
        lengths={(ref.attempt, ref.node, ref.stream): blobs.length(ref) for ref in refs},
        events=count,
        events_sha256=digest.hexdigest(),
    )


def files(
    blobs: BlobStore, run_id: str, places: list[tuple[int, str]]
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """What was written at each (attempt, node): the lines of the ``files`` streams."""
    for number, node in places:
        for line in json_lines(blobs, StreamRef(run_id, number, node, protocol.FILES)):
            if isinstance(line.get("path"), str):
                yield number, node, line


def origin(log: RunLog, sha256: str, size_bytes: int | None) -> dict[str, Any]:
    """Which runs wrote the file with this content, with which code, and which were given it as data.

    NotFound if no run is known to have done either.
    """
    from mllaunch.domain.artifact import IMAGE, READ, WRITTEN, digest
    from mllaunch.errors import NotFound

    found = log.artifacts(sha256)
    if not found:
        size = "" if size_bytes is None else f", {size_bytes} bytes"
        raise NotFound(
            "unknown_file",
            "no run is known to have written or read a file with these bytes, nor to have run in such an image",
            evidence=(f"looked for sha256:{sha256}{size}",),
            hint="files of a run are known once it has ended; mllaunch ps shows which still go on",
        )

    def places(kind: str) -> list[dict[str, Any]]:
        return [_place(log, artifact) for artifact in found if artifact.kind == kind]

    return {
        "schema": FILE_SCHEMA,
        "digest": digest(sha256),
        "size_bytes": found[0].size_bytes,
        "written_by": places(WRITTEN),
        "read_by": places(READ),
        "image_of": places(IMAGE),
        "ancestors": [],
        "not_captured": [
            {"what": what, "why": "not recorded by this version"}
            for what in (
                "written_by.step: at which step the file was written",
                "ancestors: the runs and files that it goes back to",
            )
        ],
    }


def _place(log: RunLog, artifact: Artifact) -> dict[str, Any]:
    run, status = log.get(artifact.run_id)
    snapshot = run.snapshot
    return {
        "run": {
            "id": run.id,
            "name": run.name,
            "state": status.state.value,
            "submitted_at": run.submitted_at,
        },
        "attempt": artifact.attempt,
        "node": artifact.node,
        "path": artifact.path,
        "step": None,
        "code": {
            "commit": snapshot.commit,
            "base_commit": snapshot.base_commit,
            "dirty": snapshot.dirty,
            "branch": snapshot.branch,
            "tree": snapshot.tree,
        },
        "command": {"argv": list(run.spec.argv), "params": dict(run.params)},
    }


def json_lines(blobs: BlobStore, ref: StreamRef) -> Iterator[dict[str, Any]]:
    """The records of a stream of JSON lines. What is no JSON object (a damaged line) is left out."""
    import json

    for line in _lines(blobs, ref):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield record


def _lines(blobs: BlobStore, ref: StreamRef) -> Iterator[bytes]:
    """Whole lines of a stream, with bounded memory."""
    rest = b""
    for block in _blocks(blobs, ref):
        *whole, rest = (rest + block).split(b"\n")
        yield from whole


def _blocks(blobs: BlobStore, ref: StreamRef) -> Iterator[bytes]:
    offset = 0
    while data := blobs.read(ref, offset, _READ_BYTES):
        offset += len(data)
        yield data
