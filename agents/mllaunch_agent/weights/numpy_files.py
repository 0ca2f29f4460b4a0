"""numpy: one array in an .npy, several in the zip that is an .npz."""

from __future__ import annotations

import io
import math
import re
from typing import IO, TYPE_CHECKING, Mapping, Optional

from mllaunch_agent.weights.model import (
    DIMENSIONS,
    STEP_DIGITS,
    STEPS,
    Array,
    Digest,
    Weights,
    exactly,
    integer,
    size_of,
)

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

MAGIC = b"\x93NUMPY"
_NPY_HEADER_BYTES = 1 << 16  # a plain array has 118

# How numpy writes the description of an array without fields: a literal, which needs no parser that could be abused.
_NPY_HEADER = (
    rb"\{'descr': '([<>|])([biufcSUmMV])([0-9]{1,9})(\[[0-9A-Za-z]+\])?', "
    rb"'fortran_order': (True|False), 'shape': \(([0-9, ]*)\),? *\}[ \n]*"
)


def weights_of(file: io.FileIO) -> Weights:
    array = _npy_array(file, size_of(file))
    if array is None:
        return Weights("npy", None, 1, None)
    digest = Digest("tensors/1")
    digest.array("", array, file)
    return Weights("npy", digest.hex(), 1, None)


def _npy_array(stream: IO[bytes], size: int) -> Optional[Array]:
    """Reads the header of an .npy of ``size`` bytes; None: it holds objects or records, or is not written by numpy.

    Raises ValueError or EOFError when it is no .npy, or its size belies its shape.
    """
    start = exactly(stream, 8)  # the magic, and the version in two bytes
    if not start.startswith(MAGIC):
        raise ValueError
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(exactly(stream, width), "little")
    if length > _NPY_HEADER_BYTES:
        return None
    match = re.fullmatch(_NPY_HEADER, exactly(stream, length))
    if match is None:
        return None
    order, kind, count, unit, fortran, dimensions = (group.decode("ascii") for group in match.groups(b""))
    shape = tuple(integer(number) for number in dimensions.replace(",", " ").split())
    item = int(count) * (4 if kind == "U" else 1)
    array = Array(
        ("bool" if kind == "b" else kind + count + unit)
        + (" big-endian" if order == ">" else "")
        + (" fortran" if fortran == "True" and len(shape) > 1 else ""),
        shape,
        len(start) + width + length,
        math.prod(shape[: DIMENSIONS + 1]) * item,
    )
    if len(shape) > DIMENSIONS or array.begin + array.size != size:
        raise ValueError
    return array


def npz_digest(archive: ZipFile, arrays: Mapping[str, ZipInfo]) -> Optional[str]:
    digest = Digest("tensors/1")
    for name in sorted(arrays):
        with archive.open(arrays[name]) as stream:
            array = _npy_array(stream, arrays[name].file_size)
            if array is None:
                return None
            digest.array(name, array, stream)
    return digest.hex()


def npz_step(archive: ZipFile, arrays: Mapping[str, ZipInfo]) -> Optional[int]:
    for name in STEPS:
        if name in arrays:
            with archive.open(arrays[name]) as stream:
                step = _npy_step(stream, arrays[name].file_size)
            if step is not None:
                return step
    return None


def _npy_step(stream: IO[bytes], size: int) -> Optional[int]:
    array = _npy_array(stream, size)
    return None if array is None else array_step(array, stream)


def array_step(array: Array, stream: IO[bytes]) -> Optional[int]:
    """A whole number that is an array of its own, at which the stream stands."""
    if math.prod(array.shape) != 1 or not re.fullmatch("[iu][1-8]( big-endian)?", array.dtype):
        return None
    step = int.from_bytes(
        exactly(stream, array.size),
        "big" if array.dtype.endswith("big-endian") else "little",
        signed=array.dtype.startswith("i"),
    )
    return step if 0 <= step < 10**STEP_DIGITS else None
