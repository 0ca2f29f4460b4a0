"""What a folder's content can be recognised by."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from mllaunch.errors import UsageError

__all__ = ["digests"]


def digests(path: str) -> Iterator[tuple[str, int]]:
    """(digest, size) as a checkpoint of many files, then as a data folder.

    UsageError if one of its files cannot be read.
    """
    import tempfile

    from mllaunch_agent import fingerprint, hashing, weights

    root = os.fsencode(path)
    files = []
    for entry in hashing.walk(root):
        if entry.info is not None and not stat.S_ISREG(entry.info.st_mode):
            continue
        hashed = hashing.sha256_of(os.path.join(root, entry.path)) if entry.info is not None else None
        if hashed is None or hashed.info is None or hashed.sha256 is None:
            name = hashing.text(os.path.join(root, entry.path))
            raise UsageError(
                "unreadable", f"{name} cannot be read, or keeps changing", hint="name a file in it"
            )
        files.append((hashing.text(entry.path), hashed.info.st_size, hashed.sha256))
    size = sum(size for _, size, _ in files)
    yield weights.folder_digest(files), size
    with tempfile.TemporaryDirectory() as folder:
        yield fingerprint.fingerprint(path, os.path.join(folder, "manifest")).digest, size
