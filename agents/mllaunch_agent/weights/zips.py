"""What is a zip: torch, torchscript, keras and npz. It is unfolded as far as that is bounded."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Dict, List, Mapping, Optional

from mllaunch_agent.weights import keras, numpy_files
from mllaunch_agent.weights.model import BLOCK, Digest, Weights, size_of

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

_DIRECTORY_BYTES = 16 << 20  # of a zip: more than 100,000 members, and some 200 MB of memory at worst
_RATIO = 4  # a zip of weights hardly shrinks: beyond this and the allowance it is not decompressed
_ALLOWANCE = 64 << 20
_NOT_WEIGHTS = r"version|byteorder|\.data/serialization_id|\.format_version|\.storage_alignment|.*\.debug_pkl"


class _ZipBytes(io.FileIO):
    """A file that refuses to be read in one piece larger than a directory may be: zipfile reads that as a whole."""

    def __init__(self, file: io.FileIO) -> None:
        super().__init__(file.fileno(), closefd=False)

    def read(self, size: Optional[int] = -1, /) -> bytes:
        if size is None or size < 0:
            size = BLOCK  # enough: zipfile seeks the last 64 KiB, and wants to have the rest
        if size > _DIRECTORY_BYTES:
            raise ValueError
        return super().read(size)


def _zip(source: _ZipBytes) -> ZipFile:
    from zipfile import ZipFile

    return ZipFile(source)


def format_of(file: io.FileIO) -> Optional[str]:
    with _ZipBytes(file) as source, _zip(source) as archive:
        return _format(archive.namelist())


def _format(names: List[str]) -> Optional[str]:
    names = [name for name in names if not name.endswith("/")]
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if all(name in names for name in keras.MEMBERS):
        return "keras"
    prefix = names[0].partition("/")[0] + "/" if names else ""
    if prefix + "data.pkl" not in names or not all(name.startswith(prefix) for name in names):
        return None
    has_code = any(name.startswith((prefix + "code/", prefix + "constants.pkl")) for name in names)
    return "torchscript" if has_code else "torch"


def weights_of(file: io.FileIO, found: str) -> Weights:
    with _ZipBytes(file) as source, _zip(source) as archive:
        members = _members(archive)
        can_read = _can_read(members, size_of(file))
        if found == "npz":
            arrays = {name[: -len(".npy")]: info for name, info in members.items()}
            digest = numpy_files.npz_digest(archive, arrays) if can_read else None
            return Weights(
                found, digest, len(arrays), numpy_files.npz_step(archive, arrays) if can_read else None
            )
        if found == "keras":
            return keras.weights_in_zip(file, members)
        members = {name.partition("/")[2]: info for name, info in members.items()}
        digest = _members_digest(archive, members) if can_read else None
        return Weights(found, digest, None, None)


def _members(archive: ZipFile) -> Dict[str, ZipInfo]:
    """Without folders; raises ValueError when two have one name, of which readers would take the one or the other."""
    infos = [info for info in archive.infolist() if not info.filename.endswith("/")]
    members = {info.filename: info for info in infos}
    if len(members) != len(infos):
        raise ValueError
    return members


def _can_read(members: Mapping[str, ZipInfo], size: int) -> bool:
    """Whether the members unfold to a bounded size; zipfile reads no more of one than it claims to have."""
    from zipfile import ZIP_DEFLATED, ZIP_STORED

    # From bzip2 and lzma, which no framework writes, zipfile unfolds a block at once, however large that becomes.
    if any(info.compress_type not in (ZIP_STORED, ZIP_DEFLATED) for info in members.values()):
        return False
    return sum(info.file_size for info in members.values()) <= _RATIO * size + _ALLOWANCE


def _members_digest(archive: ZipFile, members: Mapping[str, ZipInfo]) -> str:
    digest = Digest("members/1")
    for name in sorted(members):
        if re.fullmatch(_NOT_WEIGHTS, name, re.DOTALL):
            continue
        with archive.open(members[name]) as stream:
            digest.text(name)
            digest.content(stream, members[name].file_size)
    return digest.hex()
