"""Git LFS without git-lfs: pointers are read and computed here, so that no filter program has to run.

Format: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md
"""

from __future__ import annotations

import os
from typing import NamedTuple

from mllaunch.capture.git import Git, batch

__all__ = ["MAX_POINTER_BYTES", "Pointer", "copy", "holds", "object_path", "parse", "pointers"]

MAX_POINTER_BYTES = 1024  # the specification: a pointer file is smaller than this
_FIRST_LINE = b"version https://git-lfs.github.com/spec/v1\n"


class Pointer(NamedTuple):
    """What stands in git for a file kept outside. oid: SHA-256 of its bytes, hexadecimal."""

    oid: str
    size_bytes: int


def parse(blob: bytes) -> Pointer | None:
    """The pointer that a blob is, or None if it is an ordinary file."""
    if len(blob) >= MAX_POINTER_BYTES or not blob.startswith(_FIRST_LINE):
        return None
    fields = dict(line.split(b" ", 1) for line in blob.splitlines() if b" " in line)
    method, _, oid = fields.get(b"oid", b"").partition(b":")
    size = fields.get(b"size", b"")
    if method != b"sha256" or len(oid) != 64 or oid.strip(b"0123456789abcdef") or not size.isdigit():
        return None
    return Pointer(oid.decode(), int(size))


def pointers(git: Git, blobs: set[str]) -> dict[str, Pointer]:
    """Those of the blobs that are pointers. Large ones are not read."""
    sizes = batch(git, sorted(blobs), size_only=True) if blobs else iter(())
    small = [name for name, kind, size, _ in sizes if kind == "blob" and size < MAX_POINTER_BYTES]
    contents = batch(git, small) if small else iter(())
    parsed = {name: parse(stream.read(size)) for name, _, size, stream in contents}
    return {name: pointer for name, pointer in parsed.items() if pointer is not None}


def object_path(git_dir: str, pointer: Pointer) -> str:
    """Where git-lfs keeps the file of a pointer. git_dir: the common git folder."""
    return f"{git_dir}/lfs/objects/{pointer.oid[:2]}/{pointer.oid[2:4]}/{pointer.oid}"


def holds(path: str, pointer: Pointer) -> bool:
    """Whether a regular file has exactly the bytes that the pointer stands for."""
    import hashlib

    try:
        # A FIFO of that name must not block us; a symlink is not the file.
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with os.fdopen(fd, "rb") as file:
        if os.fstat(file.fileno()).st_size != pointer.size_bytes:
            return False
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest() == pointer.oid


def copy(source: bytes, target: bytes, pointer: Pointer) -> bool:
    """Replace the content of ``target`` by that of ``source`` if it is what the pointer stands for.

    False, and a target of no defined content, if it is not.
    """
    import hashlib

    try:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    digest = hashlib.sha256()
    with os.fdopen(fd, "rb") as reading, open(target, "r+b") as writing:
        if os.fstat(reading.fileno()).st_size != pointer.size_bytes:
            return False
        writing.truncate(0)
        while chunk := reading.read(1 << 20):
            digest.update(chunk)
            writing.write(chunk)
    return digest.hexdigest() == pointer.oid
