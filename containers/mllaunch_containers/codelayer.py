"""The code of a run as one layer of an image: a tar that is the same, byte for byte, wherever it is made."""

from __future__ import annotations

import hashlib
import os
import stat
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from mllaunch_containers.spec import OURS, WORKSPACE, ImageError

__all__ = ["CodeLayer", "write"]

_CHUNK_BYTES = 1 << 20
_BLOCK_BYTES = 512
_WHITEOUT = b".wh."  # https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts
_FILE, _LINK, _FOLDER = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE


class CodeLayer(NamedTuple):
    """What was written. sha256: 64 hexadecimal digits, of all bytes. files: how many files and links are in it."""

    sha256: str
    size_bytes: int
    files: int


def write(tree: str, out: BinaryIO, mtime: int) -> CodeLayer:
    """Write the folder ``tree`` as a layer that puts it at /workspace.

    Law: equal names, contents, executable bits and mtime give equal bytes; order in the folder, owners, times and the
    other permission bits do not matter. Members are sorted by the bytes of their path. Everybody may write: a task
    runs as its submitter. Left out: ``.git``, folders named ``__pycache__``, and what is no file, link or folder.

    The last member, ``.mllaunch/tree``, says what belongs there: ``MODE SHA1 TAB PATH NUL`` of each file and link,
    as git names it, sorted by path. mtime: whole seconds since 1970, of every member. Memory does not depend on the
    sizes of files. Raises OSError also if a file changes its size meanwhile, and ImageError ``code_name`` for a name
    that a layer cannot hold.
    """
    sink = _Sink(out, mtime)
    root = os.fsencode(tree)
    listed: list[bytes] = []
    sink.member(WORKSPACE.encode()[1:], _FOLDER, 0o777)
    for path, kind in sorted(_walk(root)):
        name = WORKSPACE.encode()[1:] + b"/" + path
        place = root + b"/" + path
        if kind == _FOLDER:
            sink.member(name, _FOLDER, 0o777)
        elif kind == _LINK:
            target = os.readlink(place)
            sink.member(name, _LINK, 0o777, target=target)
            listed.append(b"120000 %s\t%s\0" % (_blob(target).hexdigest().encode(), path))
        else:
            listed.append(b"%s\t%s\0" % (_put_file(sink, name, place), path))
    # Folders have their own members: an engine makes those that are missing as it likes (dockerd: mode 0600).
    ours = OURS.encode()[1:]
    sink.member(ours, _FOLDER, 0o755)
    sink.member(ours + b"/tree", _FILE, 0o644, content=b"".join(listed))
    sink.put(bytes(2 * _BLOCK_BYTES))
    return CodeLayer(sink.digest.hexdigest(), sink.size_bytes, len(listed))


class _Sink:
    """Writes tar members, and knows digest and size of all that was written."""

    def __init__(self, out: BinaryIO, mtime: int) -> None:
        self._out = out
        self._mtime = mtime
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def put(self, data: bytes) -> None:
        self._out.write(data)
        self.digest.update(data)
        self.size_bytes += len(data)

    def header(self, name: bytes, kind: bytes, mode: int, *, size: int = 0, target: bytes = b"") -> bytes:
        info = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
        info.type, info.mode, info.size, info.mtime = kind, mode, size, self._mtime
        info.linkname = target.decode("utf-8", "surrogateescape")
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")

    def member(
        self, name: bytes, kind: bytes, mode: int, *, target: bytes = b"", content: bytes = b""
    ) -> None:
        header = self.header(name, kind, mode, size=len(content), target=target)
        self.put(header + content + _padding(len(content)))


def _walk(root: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(path below root, kind) of all that goes in, in no order."""
    folders = [b""]
    while folders:
        folder = folders.pop()
        with os.scandir(root + b"/" + folder) as entries:
            for entry in entries:
                path = folder + entry.name
                if entry.name == b".git":
                    continue
                if entry.name.startswith(_WHITEOUT):
                    raise ImageError(
                        "code_name",
                        f"an image layer cannot hold {os.fsdecode(path)!r}: names that begin with .wh. delete files",
                        hint="rename it",
                    )
                # The kinds come from the folder itself: no call per file.
                if entry.is_symlink():
                    yield path, _LINK
                elif entry.is_file(follow_symlinks=False):
                    yield path, _FILE
                elif entry.is_dir(follow_symlinks=False) and entry.name != b"__pycache__":
                    yield path, _FOLDER
                    folders.append(path + b"/")


def _put_file(sink: _Sink, name: bytes, place: bytes) -> bytes:
    """Write one file in one pass. Returns ``MODE SHA1`` as git has them."""
    handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"no longer a regular file: {os.fsdecode(place)!r}")
        size = found.st_size
        executable = found.st_mode & stat.S_IXUSR
        blob = _blob(b"", size)
        data = sink.header(name, _FILE, 0o777 if executable else 0o666, size=size)
        left = size
        while True:
            # One byte more than there should be: a file that grew must not pass for what it was.
            chunk = os.read(handle, min(left + 1, _CHUNK_BYTES))
            if len(chunk) > left or (not chunk and left):
                raise OSError(f"changed its size while it was read: {os.fsdecode(place)!r}")
            if not chunk:
                break
            left -= len(chunk)
            blob.update(chunk)
            sink.put(data + chunk)
            data = b""
        sink.put(data + _padding(size))
    finally:
        os.close(handle)
    return b"%s %s" % (b"100755" if executable else b"100644", blob.hexdigest().encode())


def _blob(content: bytes, size_bytes: int | None = None) -> hashlib._Hash:
    """The running id of a git blob, https://git-scm.com/book/en/v2/Git-Internals-Git-Objects."""
    size = len(content) if size_bytes is None else size_bytes
    return hashlib.sha1(b"blob %d\0%s" % (size, content), usedforsecurity=False)


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK_BYTES)
