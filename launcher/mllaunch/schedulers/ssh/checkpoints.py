"""Brings a checkpoint from the node that has it to the nodes of a run; through this machine, as nodes need no key of
each other's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from mllaunch.schedulers.ssh.calls import Calls

_PART_BYTES = 4 << 20


class Original(NamedTuple):
    """A checkpoint where it was written and has been verified. files: (name in its folder, size in bytes); one that is
    a file has the name "". keys: what changes whenever its content does."""

    place: str
    keys: list[list[int]]
    files: list[tuple[str, int]]


class Copy(NamedTuple):
    """Where a node has it, and its keys there."""

    place: str
    keys: list[list[int]]


def examine(
    calls: Calls, run_id: str, number: int, path: str, sha256: str, size_bytes: int | None
) -> Original | str:
    """Read all of it on the node that wrote it; what is wrong with it, in words, if anything is."""
    found = calls.call_patiently(
        "examine_checkpoint", run_id=run_id, number=number, path=path, sha256=sha256, size_bytes=size_bytes
    )
    if found["problem"] is not None:
        return str(found["problem"])
    return Original(found["place"], found["keys"], [(name, size) for name, size in found["files"]])


def bring(
    source: Calls,
    original: Original,
    sha256: str,
    name: str,
    target: Calls,
    progress: Callable[[int], None],
) -> Copy:
    """See to it that another node has it. progress: told the bytes of each part. What the node has already, also of a
    copy that broke off, is not sent again."""
    found: dict[str, Any] | None = target.call_patiently("find_checkpoint", sha256=sha256, name=name)
    if found is None:
        names = [inner for inner, _ in original.files]
        held = target.call("held_of_checkpoint", sha256=sha256, names=names)
        for (inner, size), begin in zip(original.files, held, strict=True):
            offset = min(begin, size)
            progress(offset)
            while offset < size or size == 0:
                content = source.fetch(
                    "read_checkpoint", place=original.place, name=inner, offset=offset, limit=_PART_BYTES
                )
                target.call("keep_checkpoint_part", content, sha256=sha256, name=inner, offset=offset)
                offset += len(content)
                progress(len(content))
                if not content:
                    break  # it has become shorter: its digest will tell
        found = target.call_patiently("keep_checkpoint", sha256=sha256, name=name)
    return Copy(found["place"], found["keys"])
