"""The bytes of streams as plain files, ``<home>/blobs/<run>/<attempt>/<node>/<stream>``, for less and jq."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from mllaunch.errors import InternalError, UsageError
from mllaunch.ports import StreamRef
from mllaunch.runlog.faults import os_fault

_COMPARED_AT_ONCE = 1024 * 1024


class DifferentBytes(InternalError):
    """Other bytes are stored at the place where some were to be appended. Nothing was changed."""

    def __init__(self, ref: StreamRef, offset: int) -> None:
        super().__init__(
            "different_bytes",
            f"stream {ref.stream!r} already holds other bytes from offset {offset} on",
            evidence=(f"run {ref.run_id}, attempt {ref.attempt}, node {ref.node}",),
            hint="the stored bytes were kept; compare them with the node's own file",
        )


class MissingBytes(InternalError):
    """Bytes were to be appended beyond the end of what is stored. Nothing was changed."""

    def __init__(self, ref: StreamRef, length: int, offset: int) -> None:
        super().__init__(
            "missing_bytes",
            f"stream {ref.stream!r} holds {length} bytes, and more came for offset {offset}",
            evidence=(f"run {ref.run_id}, attempt {ref.attempt}, node {ref.node}",),
            hint=f"send the bytes from offset {length} on",
        )
        self.length = length


class FileBlobStore:
    """The BlobStore of ports.py in ``<home>/blobs``. Several processes may use one home at once.

    A process killed in mid-append leaves the first part of what it appended, never other bytes; so does a
    full disk (InternalError "disk_full"). Appending the same again completes it. Bytes are not synced to
    disk one append at a time: a power cut may take the newest, which the node still holds until the
    seal's digest was checked.
    """

    def __init__(self, home: str | os.PathLike[str]) -> None:
        self._folder = os.path.join(os.path.abspath(os.fspath(home)), "blobs")

    def length(self, ref: StreamRef) -> int:
        path = self._path(ref)
        try:
            return os.stat(path).st_size
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise os_fault(error, path) from error

    def append(self, ref: StreamRef, offset: int, data: bytes) -> int:
        path = self._path(ref)
        try:
            with _opened_for_append(path, create=offset == 0) as file:
                length = os.fstat(file).st_size
                if offset > length:
                    raise MissingBytes(ref, length, offset)
                known = min(length - offset, len(data))
                different = _first_difference(file, offset, memoryview(data)[:known])
                if different is not None:
                    raise DifferentBytes(ref, different)
                _write(file, memoryview(data)[known:])
                return length + len(data) - known
        except FileNotFoundError:
            raise MissingBytes(ref, 0, offset) from None
        except OSError as error:
            raise os_fault(error, path) from error

    def read(self, ref: StreamRef, offset: int, limit: int) -> bytes:
        path = self._path(ref)
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                return _pread(file, offset, limit)
            finally:
                os.close(file)
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise os_fault(error, path) from error

    def streams(self, run_id: str) -> Iterator[StreamRef]:
        run = os.path.join(self._folder, _component(run_id))
        for attempt in sorted((name for name in _names(run) if name.isdigit()), key=int):
            for node in _names(os.path.join(run, attempt)):
                for stream in _names(os.path.join(run, attempt, node)):
                    yield StreamRef(run_id, int(attempt), node, stream)

    def remove(self, run_id: str) -> None:
        import shutil

        path = os.path.join(self._folder, _component(run_id))
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            pass  # a run without output
        except OSError as error:
            raise os_fault(error, path) from error

    def _path(self, ref: StreamRef) -> str:
        parts = (ref.run_id, str(ref.attempt), ref.node, ref.stream)
        return os.path.join(self._folder, *map(_component, parts))


def _component(name: str) -> str:
    """The name as a part of a path. UsageError if it could lead anywhere else."""
    if name in ("", ".", "..") or "/" in name or "\0" in name or len(os.fsencode(name)) > 255:
        raise UsageError("bad_stream", f"{name[:60]!a} cannot be part of a stream's name")
    return name


@contextlib.contextmanager
def _opened_for_append(path: str, *, create: bool) -> Iterator[int]:
    """A descriptor of the file, which no other process appends to meanwhile.

    FileNotFoundError only without ``create``.
    """
    import fcntl

    flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT if create else 0)
    try:
        file = os.open(path, flags, 0o600)
    except FileNotFoundError:
        if not create:
            raise
        _make_folders(os.path.dirname(path))
        file = os.open(path, flags, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _make_folders(folder: str) -> None:
    if not os.path.isdir(folder):
        _make_folders(os.path.dirname(folder))
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            pass  # another process was quicker


def _first_difference(file: int, offset: int, data: memoryview) -> int | None:
    """The offset of the first byte that is stored otherwise, or None."""
    for start in range(0, len(data), _COMPARED_AT_ONCE):
        block = bytes(data[start : start + _COMPARED_AT_ONCE])
        stored = _pread(file, offset + start, len(block))
        if stored != block:
            same = next(
                (i for i, (a, b) in enumerate(zip(stored, block, strict=False)) if a != b), len(stored)
            )
            return offset + start + same
    return None


def _write(file: int, data: memoryview) -> None:
    while data:
        data = data[os.write(file, data) :]


def _pread(file: int, offset: int, limit: int) -> bytes:
    """Like os.pread, but short only at the end of the file."""
    first = os.pread(file, limit, offset)
    if len(first) == limit or not first:
        return first
    parts = [first]
    while parts[-1]:
        done = sum(map(len, parts))
        parts.append(os.pread(file, limit - done, offset + done))
    return b"".join(parts)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return []
