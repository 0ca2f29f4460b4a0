"""The checkpoint that a run starts from: brought into the attempt's own folder, and verified by its digest there.

So the run that wrote it can be cleared away meanwhile, and what the task is given is what was asked for, or nothing.
"""

from __future__ import annotations

import os
import shutil
import stat
from typing import List, Optional, Tuple

from mllaunch_agent import hashing, treecopy, weights
from mllaunch_agent.protocol import Checkpoint

__all__ = ["CheckpointError", "bring", "digest_of", "examine", "place"]

# Above this size a hard link takes the place of a copy, where the file system allows it: a task that writes into the
# file it was given would then change its parent's, but copying tens of gigabytes holds up every start.
_COPIED_BYTES = 256 << 20


class CheckpointError(OSError):
    """It is not there, or not what was asked for."""


def place(folder: str, checkpoint: Checkpoint) -> str:
    """Where the checkpoint lies in an attempt's folder."""
    return os.path.join(folder, "checkpoint", checkpoint["name"])


def bring(folder: str, checkpoint: Checkpoint) -> str:
    """Bring it into the attempt's folder, verified; its path there. Safe to repeat. Raises OSError."""
    target = place(folder, checkpoint)
    if os.path.lexists(target):
        return target
    source = checkpoint["source"]
    if not os.path.exists(source):
        raise CheckpointError("the checkpoint %s is gone" % source)
    folder_of_it = os.path.dirname(target)
    shutil.rmtree(folder_of_it, ignore_errors=True)
    os.makedirs(folder_of_it, mode=0o700)
    try:
        _bring(source, target + ".tmp", checkpoint)
        os.rename(target + ".tmp", target)
    except BaseException:
        shutil.rmtree(folder_of_it, ignore_errors=True)
        raise
    return target


def _bring(source: str, target: str, checkpoint: Checkpoint) -> None:
    known = checkpoint["verified"]
    before = keys(source)
    if os.path.isdir(source):
        for path in files_in(source):
            os.makedirs(os.path.dirname(os.path.join(target, path)), exist_ok=True)
            _give(os.path.join(source, path), os.path.join(target, path))
    else:
        _give(source, target)
    if (known != before or _steady(keys(source)) != _steady(before)) and digest_of(target) != checkpoint[
        "sha256"
    ]:
        raise CheckpointError("the checkpoint %s is not what it was: its digest differs" % source)


def _steady(found: List[List[int]]) -> List[List[int]]:
    """Without the ctime of what may have been linked, because that changes it."""
    return [key if key[2] <= _COPIED_BYTES else key[:-1] for key in found]


def _give(source: str, target: str) -> None:
    info = os.stat(source)
    if not stat.S_ISREG(info.st_mode):  # nobody may be at the other end of a pipe
        raise CheckpointError("the checkpoint %s is no regular file" % source)
    if info.st_size > _COPIED_BYTES:
        try:
            os.link(os.path.realpath(source), target)
            return
        except OSError:
            pass  # on another file system
    treecopy.copy_one(os.path.realpath(source), target)


def files_in(folder: str) -> List[str]:
    """The regular files of a folder, relative to it."""
    found = []
    for entry in hashing.walk(os.fsencode(folder)):
        if entry.info is not None and stat.S_ISREG(entry.info.st_mode):
            found.append(os.fsdecode(entry.path))
    return found


def examine(path: str, sha256: str, size_bytes: Optional[int]) -> Tuple[Optional[str], List[List[int]]]:
    """What is wrong with a checkpoint, in words, or None; and its keys while all of it was read."""
    try:
        before = keys(path)
        info = os.stat(path)
        if not (stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode)):
            return "it is no regular file any more", []
        if stat.S_ISREG(info.st_mode) and info.st_size != size_bytes:
            return "%d bytes are there of %s" % (info.st_size, size_bytes), []
        if digest_of(path) != sha256:
            return "its bytes are not those that the run wrote", []
        return (None, before) if keys(path) == before else ("it is being changed", [])
    except FileNotFoundError:
        return "it is not there any more", []
    except OSError as error:
        return "it cannot be read: %s" % error.strerror, []


def digest_of(path: str) -> Optional[str]:
    """The digest of a file, or of a folder that is one checkpoint; None if a file of it cannot be read whole."""
    if not os.path.isdir(path):
        return hashing.sha256_of(os.fsencode(os.path.realpath(path))).sha256
    rows = []
    for name in files_in(path):
        hashed = hashing.sha256_of(os.fsencode(os.path.join(path, name)))
        if hashed.info is None or hashed.sha256 is None:
            return None
        rows.append((hashing.text(os.fsencode(name)), hashed.info.st_size, hashed.sha256))
    return weights.folder_digest(rows)


def keys(path: str) -> List[List[int]]:
    """What changes whenever the content does: of the file, or of each file in the folder."""
    if not os.path.isdir(path):
        return [list(hashing.key_of(os.stat(path)))]
    return [list(hashing.key_of(os.stat(os.path.join(path, name)))) for name in files_in(path)]
