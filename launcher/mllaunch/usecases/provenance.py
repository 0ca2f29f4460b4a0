"""How a run, or a file, came to be: gathers what the run log knows and has it put together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mllaunch.ports import BlobStore, StreamRef

_READ_BYTES = 1 << 20


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
    offset = 0
    rest = b""
    while data := blobs.read(ref, offset, _READ_BYTES):
        offset += len(data)
        *whole, rest = (rest + data).split(b"\n")
        yield from whole
