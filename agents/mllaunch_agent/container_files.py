"""What a container wrote into its copy of the code, brought out before the container goes.

The output folder is the node's own and needs no bringing. Everything else that changed below the code's folder is
copied into the attempt's ``work``, where a process would have written it.
"""

from __future__ import annotations

import io
import os
import posixpath
import shutil
import tarfile
from contextlib import contextmanager
from typing import IO, Dict, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

from mllaunch_agent import hashing
from mllaunch_agent.engine import Engine, EngineError, EngineGone
from mllaunch_agent.engine_answer import Answer

__all__ = ["Plan", "archive", "bring_out", "files_below", "plan"]

CHANGED, ADDED, DELETED = 0, 1, 2  # as the engine numbers them
_GO_FOLDER = 1 << 31  # Go's os.ModeDir


class Plan(NamedTuple):
    """What to ask the engine for. Paths are relative to the code's folder.

    added: files, or whole folders. changed: files, or folders of which nothing but themselves has changed.
    deleted: files or whole folders of the code that are gone. missing: what the engine lists, and then does not give,
    such as a name that is no UTF-8.
    """

    added: List[str]
    changed: List[str]
    deleted: List[str]
    missing: Sequence[str] = ()


def plan(changes: Iterable[Tuple[str, int]], workspace: str, mounted: Sequence[str]) -> Plan:
    """What of the engine's list lies in the code's folder, and below nothing that is mounted there; pure.

    The list names every folder above a change, and every file in a new folder.
    """
    prefix = workspace.rstrip("/") + "/"
    mounted = [posixpath.normpath(mount) for mount in mounted]  # as the engine names them
    kinds: Dict[str, int] = {}
    for path, kind in changes:
        if path.startswith(prefix) and not _is_below(path, mounted):
            kinds[path[len(prefix) :]] = kind
    inside = [mount[len(prefix) :] for mount in mounted if mount.startswith(prefix)]
    holds_mounts = {above for mount in inside for above in _above(mount)}
    parents = {above for path in kinds for above in _above(path)}
    found = Plan([], [], [])
    for path in sorted(kinds):
        kind = kinds[path]
        if kind == DELETED:
            found.deleted.append(path)
        elif kind == CHANGED and path not in parents:
            found.changed.append(path)
        elif kind == ADDED and path not in holds_mounts and not _in_whole(path, kinds, holds_mounts):
            found.added.append(path)
    return found


def _in_whole(path: str, kinds: Dict[str, int], holds_mounts: Iterable[str]) -> bool:
    """Whether a folder above comes as a whole."""
    return any(kinds.get(above) == ADDED and above not in holds_mounts for above in _above(path))


def _above(path: str) -> List[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def bring_out(engine: Engine, container: str, workspace: str, mounted: Sequence[str], work: str) -> Plan:
    """Copy what changed into ``work``; safe to repeat. Returns what changed, with folders left out of ``changed``.

    Raises EngineGone, EngineError, OSError (disk full).
    """
    if os.path.islink(work) or os.path.isfile(work):  # another rank's, of this name
        os.unlink(work)
    wanted = plan(engine.changes(container), workspace, mounted)
    changed = []
    for path in wanted.changed:
        info = engine.stat(container, posixpath.join(workspace, path))
        if info is not None and not int(info["mode"]) & _GO_FOLDER:
            changed.append(path)
    missing = []
    for path in wanted.added + changed:
        try:
            # The tar's names start with the last part of the path that was asked for.
            with archive(engine, container, posixpath.join(workspace, path)) as tar:
                _extract(tar, os.path.join(work, posixpath.dirname(path)), work)
        except EngineError as e:
            if e.status != 404:
                raise
            missing.append(path)
    return wanted._replace(changed=changed, missing=missing)


@contextmanager
def archive(engine: Engine, container: str, path: str) -> Iterator[tarfile.TarFile]:
    """A file or folder of a container, running or not, as a tar to go through once. EngineError 404: not there.

    EngineGone if it ends before its end.
    """
    with engine.archive(container, path) as answer:
        try:
            with tarfile.open(fileobj=_Reader(answer), mode="r|") as tar:
                yield tar
        except tarfile.TarError as e:
            raise EngineGone("%s: no archive, or a part of one: %s" % (engine.path, e)) from e


class _Reader(io.RawIOBase):
    """An answer of the engine as a file to be read from, whose end nobody should come to: a tar says where it ends,
    and what is read of one that was torn between two files looks like a whole one."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def read(self, size: int = -1) -> bytes:
        data = self._answer.read(size)
        if not data:
            raise EngineGone("the archive ended early")
        return data


def files_below(work: str, paths: Iterable[str]) -> Iterator[str]:
    """The files among the paths and in the folders among them, relative to ``work``."""
    for path in paths:
        place = os.path.join(work, path)
        if os.path.isdir(place) and not os.path.islink(place):
            for entry in hashing.walk(os.fsencode(place)):
                yield os.path.join(path, os.fsdecode(entry.path))
        else:
            yield path


def _extract(tar: tarfile.TarFile, folder: str, work: str) -> None:
    """Files, folders and links, each made anew and never through a link."""
    _make_folders(folder, work)
    for member in tar:
        parts = _parts(member.name)
        if not parts or ".." in parts:
            continue
        path = os.path.join(folder, *parts)
        _make_folders(os.path.dirname(path), work)
        if member.isdir():
            _make_folders(path, work)
            continue
        if member.issym():
            _remove(path)
            os.symlink(member.linkname, path)
        elif member.islnk():
            source = os.path.join(folder, *_parts(member.linkname))
            if source != path and _is_file_of(source, folder):
                _remove(path)
                with open(source, "rb") as content:
                    _write(content, path, member)
        elif member.isfile():
            _remove(path)
            data = tar.extractfile(member)
            assert data is not None
            _write(data, path, member)


def _parts(name: str) -> List[str]:
    return [part for part in name.split("/") if part not in ("", ".")]


def _is_file_of(path: str, folder: str) -> bool:
    """Whether it is a file in the folder, with neither a link nor ``..`` on the way to it."""
    real = os.path.join(os.path.realpath(folder), os.path.relpath(path, folder))
    return ".." not in path.split(os.sep) and os.path.realpath(path) == real and os.path.isfile(path)


def _write(content: IO[bytes], path: str, member: tarfile.TarInfo) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, (member.mode & 0o777) | 0o600), "wb") as file:
        shutil.copyfileobj(content, file, 1 << 20)
    os.utime(path, (member.mtime, member.mtime))


def _make_folders(path: str, work: str) -> None:
    """Make ``work`` and the folders from there down to ``path``; whatever else is in the way goes."""
    os.makedirs(work, exist_ok=True)
    place = work
    for part in os.path.relpath(path, work).split(os.sep):
        if part == ".":
            continue
        place = os.path.join(place, part)
        if os.path.islink(place) or not os.path.isdir(place):
            _remove(place)
            os.mkdir(place)


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)
