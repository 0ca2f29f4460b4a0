"""How a run came to be: gathers what the run log knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from mllaunch.ports import StreamRef
from mllaunch_agent import protocol

if TYPE_CHECKING:
    from mllaunch.domain.provenance import Recorded
    from mllaunch.domain.run import Run, RunStatus
    from mllaunch.ports import BlobStore, CodeStore, RunLog

_READ_BYTES = 1 << 20


def gather(
    log: RunLog,
    blobs: BlobStore,
    run: Run,
    status: RunStatus,
    code: CodeStore | None = None,
    mask: Callable[[bytes], bytes] = lambda patch: patch,
) -> Recorded:
    """All that the run log holds of a run. code: for what was changed in mid-run; mask: for patches that show it."""
    from hashlib import sha256

    from mllaunch.domain.provenance import Recorded
    from mllaunch.usecases.changes import Kept, keep
    from mllaunch.usecases.origin import ties

    views = log.views(run.id)
    note, tags = log.notes(run.id)
    refs = list(blobs.streams(run.id))
    count = 0
    digest = sha256()
    for number, node in views:
        for block in _blocks(blobs, StreamRef(run.id, number, node, protocol.EVENTS)):
            digest.update(block)
            count += block.count(b"\n")
    traced = tuple(traces(blobs, run.id, list(views)))
    kept = Kept() if code is None else keep(code, blobs, run, views, traced)
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
        traced=traced,
        patches={key: mask(patch).decode("utf-8", "backslashreplace") for key, patch in kept.patches.items()},
        trees=kept.trees,
        ties=ties(log, run, views, traced),
    )


def files(
    blobs: BlobStore, run_id: str, places: list[tuple[int, str]]
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """What was written at each (attempt, node): the lines of the ``files`` streams."""
    return _lines_of(blobs, run_id, places, protocol.FILES)


def traces(
    blobs: BlobStore, run_id: str, places: list[tuple[int, str]]
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """What the tasks' processes did: the lines of the ``trace`` streams."""
    for number, node, line in _lines_of(blobs, run_id, places, protocol.TRACE, needs=None):
        if line.get("record") == "process" or isinstance(line.get("path"), str):
            yield number, node, line


def _lines_of(
    blobs: BlobStore, run_id: str, places: list[tuple[int, str]], stream: str, needs: str | None = "path"
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    for number, node in places:
        for line in json_lines(blobs, StreamRef(run_id, number, node, stream)):
            if needs is None or isinstance(line.get(needs), str):
                yield number, node, line


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
