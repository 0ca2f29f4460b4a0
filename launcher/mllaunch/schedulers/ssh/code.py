"""Brings a run's code to a node: what the node has already is not sent again."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from mllaunch.errors import NotFound
from mllaunch_agent import codewatch
from mllaunch_agent.codekeeping import key_of

if TYPE_CHECKING:
    from mllaunch.schedulers.ssh.calls import Calls

__all__ = ["bring", "listing"]

_TRIES = 3
_BATCH_BYTES = 4 << 20

Listed = dict[str, codewatch.Listed]


def listing(tree: str, cache: str) -> Listed:
    """The files of a kept tree. cache: a folder where it is kept for the next time."""
    return codewatch.listing(tree, os.path.join(cache, "listing-" + os.path.basename(tree)))


def bring(calls: Calls, tree: str, listed: Listed) -> str:
    """The folder on the node that holds the same files as ``tree``. MllaunchError, OSError."""
    text = codewatch.format_tree(listed)
    key = key_of(text)
    there = calls.call_patiently("tree", key=key)
    if not there["is_there"]:
        _make(calls, key, text, tree, listed)
    return str(there["path"])


def _make(calls: Calls, key: str, text: bytes, tree: str, listed: Listed) -> None:
    for tries_left in range(_TRIES, 0, -1):
        wanted = set(calls.call_patiently("lacking", text))
        places = {
            entry.blob: os.path.join(tree, path) for path, entry in listed.items() if entry.blob in wanted
        }
        _send(calls, places)
        try:
            calls.call_patiently("make", text, key=key)
        except NotFound:  # what was not lacking has gone meanwhile: somebody tidies up
            if tries_left == 1:
                raise
        else:
            return


def _send(calls: Calls, places: dict[str, str]) -> None:
    batch: list[tuple[str, bytes]] = []
    size = 0
    for blob, place in places.items():
        if not os.path.islink(place) and os.path.getsize(place) > _BATCH_BYTES:
            _send_large(calls, blob, place)
            continue
        batch.append((blob, _content(place)))
        size += len(batch[-1][1])
        if size > _BATCH_BYTES:
            _send_batch(calls, batch)
            batch, size = [], 0
    if batch:
        _send_batch(calls, batch)


def _send_batch(calls: Calls, batch: list[tuple[str, bytes]]) -> None:
    sizes = [(blob, len(content)) for blob, content in batch]
    calls.call("keep", b"".join(content for _, content in batch), sizes=sizes)


def _send_large(calls: Calls, blob: str, place: str) -> None:
    with open(place, "rb") as file:
        offset = 0
        while content := file.read(_BATCH_BYTES):
            calls.call("keep_part", content, blob=blob, offset=offset)
            offset += len(content)
    calls.call("keep_whole", blob=blob)


def _content(place: str) -> bytes:
    if os.path.islink(place):
        return os.fsencode(os.readlink(place))
    with open(place, "rb") as file:
        return file.read()
