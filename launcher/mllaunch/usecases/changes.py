"""What was changed in a run's code while it ran: put into the run log's own repository, and read back as patches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from mllaunch.domain.codeuse import YES, Change, Edit, changes
from mllaunch.domain.run import Run
from mllaunch.domain.usage import Views
from mllaunch.ports import BlobStore, CodeStore, StreamRef
from mllaunch.usecases.outputs import is_plain
from mllaunch_agent import protocol

__all__ = ["Kept", "keep"]

Line = tuple[int, str, dict[str, Any]]


class Kept(NamedTuple):
    """By (at, path) of a change: the change as a patch; the tree that was executed from then on, if it was in use."""

    patches: Mapping[tuple[str, str], bytes] = {}
    trees: Mapping[tuple[str, str], str] = {}


def keep(code: CodeStore, blobs: BlobStore, run: Run, views: Views, traced: Iterable[Line]) -> Kept:
    """Keep the changes whose content is known. Can be repeated; a later call knows more."""
    found = [change for change in changes(views, traced) if is_plain(change.path)]
    if not found:
        return Kept()
    contents = _contents(blobs, run.id, {change.after for change in found}, list(views))
    edits: list[tuple[Change, Edit]] = []
    alike: dict[tuple[str, str], tuple[str, str]] = {}  # a change on several nodes or ranks -> its first
    last: dict[str, tuple[str | None, tuple[str, str]]] = {}
    for change in found:
        key = (change.at, change.path)
        if change.after is not None and change.after not in contents:
            continue
        if change.path in last and last[change.path][0] == change.after:
            alike[key] = last[change.path][1]
            continue
        content = contents[change.after] if change.after is not None else None
        edits.append((change, Edit(change.path, content, change.in_use == YES, _message(change))))
        last[change.path] = (change.after, key)
    if not edits:
        return Kept()
    made = code.record_changes(run.snapshot, run.id, [edit for _, edit in edits])
    patches = {(change.at, change.path): patch for (change, _), (patch, _) in zip(edits, made, strict=True)}
    trees = {
        (change.at, change.path): tree for (change, _), (_, tree) in zip(edits, made, strict=True) if tree
    }
    for key, first in alike.items():
        patches[key] = patches[first]
        if first in trees:
            trees[key] = trees[first]
    return Kept(patches, trees)


def _message(change: Change) -> str:
    return f"{change.at} on {change.node}, attempt {change.attempt}: {change.path}, in use: {change.in_use}\n"


def _contents(
    blobs: BlobStore, run_id: str, wanted: set[str | None], places: list[tuple[int, str]]
) -> dict[str, bytes]:
    """By git's id, what the ``blobs`` streams hold of what is wanted."""
    from base64 import b64decode

    from mllaunch.usecases.provenance import json_lines

    found = {}
    for number, node in places:
        for line in json_lines(blobs, StreamRef(run_id, number, node, protocol.BLOBS)):
            if line.get("blob") in wanted and isinstance(line.get("data"), str):
                found[line["blob"]] = b64decode(line["data"])
    return found
