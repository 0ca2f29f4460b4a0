"""HDF5, and Keras, which stores an HDF5 file in its zip."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Mapping, Optional

from mllaunch_agent.weights import hdf5
from mllaunch_agent.weights.model import Array, Digest, Weights, exactly
from mllaunch_agent.weights.numpy_files import array_step

if TYPE_CHECKING:
    from zipfile import ZipInfo

_WEIGHTS = "model.weights.h5"
MEMBERS = ("config.json", "metadata.json", _WEIGHTS)
_ITERATIONS = "optimizer/vars/0"  # of the optimizer, which makes them first


def weights_of(file: io.FileIO, found: str, begin: int, size: int) -> Weights:
    try:
        arrays = hdf5.arrays(file, begin, size)
    except (ValueError, EOFError, struct.error):  # not the plain form
        return Weights(found, None, None, None)
    digest = Digest("tensors/1")
    for name in sorted(arrays):
        file.seek(arrays[name].begin)
        digest.array(name, arrays[name], file)
    return Weights(found, digest.hex(), len(arrays), _step(file, arrays))


def _step(file: io.FileIO, arrays: Mapping[str, Array]) -> Optional[int]:
    array = arrays.get(_ITERATIONS)
    if array is None:
        return None
    file.seek(array.begin)
    return array_step(array, file) or None  # 0: an optimizer that was not used, and does not know


def weights_in_zip(file: io.FileIO, members: Mapping[str, ZipInfo]) -> Weights:
    """Keras stores its HDF5 file uncompressed: it lies in the zip as it is."""
    info = members[_WEIGHTS]
    if info.compress_type or info.flag_bits & 1:  # or it is encrypted
        return Weights("keras", None, None, None)
    file.seek(info.header_offset + 26)  # the lengths of name and extra field, which stand before the content
    lengths = struct.unpack("<HH", exactly(file, 4))
    return weights_of(file, "keras", info.header_offset + 30 + sum(lengths), info.file_size)
