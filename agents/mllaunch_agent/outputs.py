"""What the tasks wrote in their work folder: the lines of the ``files`` stream."""

from __future__ import annotations

import os
import stat
import time
from typing import Any, Dict, Iterator, Optional, Sequence

from mllaunch_agent import hashing

__all__ = ["glance", "scan"]

# Files carry the time of the last clock tick (10 ms at most), which may lie before a start that was read precisely.
_TICK_NS = 20 * 1000 * 1000


def scan(
    work: str,
    deleted: Sequence[str] = (),
    since_ns: Optional[int] = None,
    digests: Optional[hashing.Digests] = None,
) -> Iterator[Dict[str, Any]]:
    """One dict per file, symlink or special file in ``work`` and per deleted path, sorted by the bytes of the path.

    ``{"path", "kind": "file", "size_bytes", "mtime", "sha256"}``; a file that kept changing while it was read, or
    could not be read, has ``"sha256": None`` and ``"problem": "torn" | "unreadable"``.
    ``{"path", "kind": "symlink", "size_bytes", "mtime", "sha256": None, "target"}``,
    ``{"path", "kind": "special", ...}`` for pipes, sockets and devices, ``{"path", "kind": "deleted"}``, and
    ``{"path", "kind": "folder", "problem": "unreadable"}``. What vanishes meanwhile is left out.

    ``since_ns`` is for a run in place: then only what was written or changed since that time (nanoseconds since
    1970) is listed, and git's own folder is left out. ``digests``: of files that have been read already.
    Names that aren't UTF-8 hold lone surrogates (PEP 383): write the lines with json.dumps(line), which escapes
    them as ``\\udcXX``; reading them with json.loads and encoding with "surrogateescape" gives the bytes back.
    """
    root = os.fsencode(work)
    gone = sorted((os.fsencode(path) for path in deleted), reverse=True)
    for path, info in hashing.walk(root, skip=_is_git if since_ns is not None else _nothing):
        while gone and gone[-1] < path:
            yield _deleted(gone.pop())
        if info is None:
            yield {"path": hashing.text(path), "kind": "folder", "problem": hashing.UNREADABLE}
        elif since_ns is None or max(info.st_mtime_ns, info.st_ctime_ns) >= since_ns - _TICK_NS:
            line = _line(root, path, info, digests or hashing.Digests())
            if line is not None:
                yield line
    while gone:
        yield _deleted(gone.pop())


def glance(work: str, below: str) -> Iterator[Dict[str, Any]]:
    """What ``scan`` would list of the folder ``below`` in ``work`` at this moment, with no file read or hashed."""
    base = os.fsencode(os.path.normpath(below))
    root = os.path.join(os.fsencode(work), base)
    for path, info in hashing.walk(root):
        if info is None:
            continue
        line: Dict[str, Any] = {"path": hashing.text(os.path.normpath(os.path.join(base, path)))}
        line.update(size_bytes=info.st_size, mtime=rfc3339(info.st_mtime_ns), sha256=None)
        line["kind"] = _kind(info)
        if line["kind"] == "symlink":
            try:
                line["target"] = hashing.text(os.readlink(os.path.join(root, path)))
            except OSError:
                continue
        yield line


def _kind(info: os.stat_result) -> str:
    if stat.S_ISREG(info.st_mode):
        return "file"
    return "symlink" if stat.S_ISLNK(info.st_mode) else "special"


def _nothing(path: bytes) -> bool:
    return False


def _is_git(path: bytes) -> bool:
    return path.split(b"/")[0] == b".git"


def _deleted(path: bytes) -> Dict[str, Any]:
    return {"path": hashing.text(path), "kind": "deleted"}


def _line(
    root: bytes, path: bytes, info: os.stat_result, digests: hashing.Digests
) -> Optional[Dict[str, Any]]:
    line: Dict[str, Any] = {"path": hashing.text(path), "kind": "file"}
    if stat.S_ISREG(info.st_mode):
        hashed = digests.of(os.path.join(root, path))
        if hashed.problem == hashing.VANISHED:
            return None
        info = hashed.info or info
        line.update(size_bytes=info.st_size, mtime=rfc3339(info.st_mtime_ns), sha256=hashed.sha256)
        if hashed.problem:
            line["problem"] = hashed.problem
        return line
    line.update(size_bytes=info.st_size, mtime=rfc3339(info.st_mtime_ns), sha256=None)
    if stat.S_ISLNK(info.st_mode):
        try:
            line.update(kind="symlink", target=hashing.text(os.readlink(os.path.join(root, path))))
        except OSError:
            return None
        return line
    line["kind"] = "special"
    return line


def rfc3339(ns: int) -> Optional[str]:
    """UTC with microseconds; None for a time that RFC 3339 can't write (before the year 1 or after 9999)."""
    seconds, rest = divmod(ns, 1000000000)
    try:
        moment = time.gmtime(seconds)
    except (OverflowError, ValueError, OSError):
        return None
    if not 1 <= moment.tm_year <= 9999:
        return None
    return "%04d-%02d-%02dT%02d:%02d:%02d.%06dZ" % (*moment[:6], rest // 1000)
