"""An image from one engine to others without a registry: each is sent the layers that it has not got."""

from __future__ import annotations

import json
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import IO, Any

from mllaunch_containers.engine import Docker, Engine
from mllaunch_containers.spec import ImageError

__all__ = ["Shipment"]

_CHUNK_BYTES = 1 << 20
_BLOCK_BYTES = 512
_END = bytes(2 * _BLOCK_BYTES)


class Shipment:
    """An image on its way; a context manager. It is taken out of its engine once, when somebody first needs of it.

    docker: gives the same engine as source. name: what the image is to be called where it comes to, as NAME:TAG, so
    that it is not taken for a forgotten one.
    """

    def __init__(
        self, source: Engine, docker: Callable[[], Docker], image: str, name: str | None = None
    ) -> None:
        found = source.image(image)
        if found is None:
            raise ImageError("no_such_image", f"the engine has no image {image}")
        self.id = str(found["Id"])
        self.layers: list[str] = list(found["RootFS"]["Layers"])
        self._docker = docker
        self._image = image
        self._name = name
        self._saved: IO[bytes] | None = None

    def __enter__(self) -> Shipment:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._saved is not None:
            self._saved.close()

    def send(
        self,
        target: Engine,
        known: int,
        progress: Callable[[int, int], None] = lambda sent, whole: None,
    ) -> int:
        """See to it that the target has the image; how many bytes were sent. ImageError; OSError is the target's.

        known: how many of the layers, from the lowest on, the target has. progress: told every now and then how many
        bytes have been sent, of how many.
        """
        if target.image(self.id) is not None:
            return 0
        parts, size_bytes = self._stream(known)
        target.load(_counted(parts, size_bytes, progress), size_bytes)
        if target.image(self.id) is None:
            raise ImageError(
                "transfer",
                f"the engine took {self._image}, and now does not know it",
                hint="engines whose image stores are of different kinds need an image.registry between them",
            )
        return size_bytes

    def _stream(self, known: int) -> tuple[Iterator[bytes], int]:
        """The image as a tar without its first ``known`` layers, and its size in bytes."""
        saved = self._taken_out()
        tar = tarfile.open(fileobj=saved)  # noqa: SIM115  the file is closed with the shipment
        manifest = _document(tar, "manifest.json")[0]
        names = [str(name) for name in manifest["Layers"]]
        if len(names) != len(self.layers):
            raise ImageError("transfer", f"the engine gave out {self._image} with other layers than it says")
        if self._name is not None:
            manifest["RepoTags"] = [self._name]
        small = {
            "manifest.json": json.dumps([manifest]).encode(),
            manifest["Config"]: _content(tar, manifest["Config"]),
        }
        # A layer that occurs twice, such as an empty one, is stored once.
        large = [_member(tar, name) for name in dict.fromkeys(names[known:])]
        size = sum(_padded(len(content)) + _BLOCK_BYTES for content in small.values())
        size += sum(_padded(member.size) + _BLOCK_BYTES for member in large) + len(_END)

        def parts() -> Iterator[bytes]:
            for name, content in small.items():
                yield _header(name, len(content)) + content + bytes(_padded(len(content)) - len(content))
            for member in large:
                yield _header(member.name, member.size)
                file = tar.extractfile(member)
                assert file is not None
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
                yield bytes(_padded(member.size) - member.size)
            yield _END

        return parts(), size

    def _taken_out(self) -> IO[bytes]:
        if self._saved is None:
            try:
                file = tempfile.TemporaryFile(prefix="mllaunch-")  # noqa: SIM115  closed with the shipment
                for part in self._docker().save(self._image):
                    file.write(part)
            except OSError as error:
                raise ImageError(
                    "transfer",
                    f"there is no room for the image on its way: {error.strerror} ({tempfile.gettempdir()})",
                    hint="TMPDIR names a folder that has room for it",
                ) from error
            self._saved = file
        self._saved.seek(0)
        return self._saved


def _counted(
    parts: Iterable[bytes], size_bytes: int, progress: Callable[[int, int], None]
) -> Iterator[bytes]:
    sent = 0
    for part in parts:
        yield part
        sent += len(part)
        progress(sent, size_bytes)


def _member(tar: tarfile.TarFile, name: str) -> tarfile.TarInfo:
    """The file of that name, also by way of a link: engines store equal layers once."""
    member = tar.getmember(name)
    while member.issym() or member.islnk():
        target = member.linkname
        if member.issym():
            import posixpath

            target = posixpath.normpath(posixpath.join(posixpath.dirname(member.name), target))
        member = tar.getmember(target)
    member.name = name
    return member


def _content(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    assert file is not None
    return file.read()


def _document(tar: tarfile.TarFile, name: str) -> Any:
    return json.loads(_content(tar, name))


def _header(name: str, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return info.tobuf(tarfile.GNU_FORMAT)


def _padded(size_bytes: int) -> int:
    return size_bytes + -size_bytes % _BLOCK_BYTES
