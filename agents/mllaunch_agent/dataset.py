"""The run's data, fingerprinted while the tasks run and looked at again after they ended."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterator, Tuple

from mllaunch_agent import fingerprint, node, protocol, system

Events = Iterator[Tuple[str, Dict[str, Any]]]


def fingerprints(spec: protocol.TaskSpec) -> Events:
    """One DATA event per data path, and its manifest as a stream of its own.

    What a supervisor before this one has found is given again, so that no event is lost with it.
    """
    cache = fingerprint.Cache(os.path.join(spec["cache"], "fingerprints.sqlite3")) if spec["data"] else None
    for number, link in enumerate(spec["data"]):
        found = os.path.join(spec["folder"], "data.%d.json" % number)
        if not os.path.exists(_manifest(spec, number)):
            unfinished = os.path.join(spec["folder"], "manifest.%d.tmp" % number)
            if os.path.exists(unfinished):
                os.unlink(unfinished)
            made = fingerprint.fingerprint(link["source"], unfinished, cache)
            fields = {k: _plain(v) for k, v in made._asdict().items()}
            fields["form"] = fields.pop("kind")  # an event's own kind is what it is an event of
            fields.update(path=link["path"], manifest=protocol.manifest_stream(number))
            system.write_atomic(found, json.dumps(fields).encode("ascii"))
            # Only a finished manifest becomes a stream: what was shipped must not change.
            os.rename(unfinished, _manifest(spec, number))
        yield protocol.DATA, node.read_json(found) or {}
    if cache:
        cache.close()


def changes(spec: protocol.TaskSpec) -> Events:
    """One DATA_CHANGED event per data path that is not what it was at the start."""
    for number, link in enumerate(spec["data"]):
        if not os.path.exists(_manifest(spec, number)):
            continue  # that it could not be fingerprinted is on record
        found = fingerprint.compare(_manifest(spec, number), link["source"])
        if any(names[0] for names in found):
            yield (
                protocol.DATA_CHANGED,
                dict({k: _plain(v) for k, v in found._asdict().items()}, path=link["path"]),
            )


def _manifest(spec: protocol.TaskSpec, number: int) -> str:
    return os.path.join(spec["folder"], "streams", protocol.manifest_stream(number))


def _plain(value: Any) -> Any:
    return {"count": value[0], "first": list(value[1])} if isinstance(value, fingerprint.Names) else value
