"""safetensors: length of the header (8 bytes), header (JSON), bytes of the arrays."""

from __future__ import annotations

import io
import json
import math
import re
from typing import Any, Iterable, Optional

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

_HEADER_BYTES = 100 * 1000 * 1000  # of a safetensors file; its own library refuses more
_JSON_VALUES = 4 * 1000 * 1000  # values in such a header: some hundred bytes of memory each, ten to a tensor
_DTYPES = {  # the spelling in the digest, and bits per element
    "BOOL": ("bool", 8),
    "U8": ("u1", 8),
    "U16": ("u2", 16),
    "U32": ("u4", 32),
    "U64": ("u8", 64),
    "I8": ("i1", 8),
    "I16": ("i2", 16),
    "I32": ("i4", 32),
    "I64": ("i8", 64),
    "F16": ("f2", 16),
    "F32": ("f4", 32),
    "F64": ("f8", 64),
    "C64": ("c8", 64),
    "BF16": ("bf16", 16),
    "F8_E4M3": ("f8_e4m3", 8),
    "F8_E5M2": ("f8_e5m2", 8),
    "F8_E8M0": ("f8_e8m0", 8),
    "F8_E4M3FNUZ": ("f8_e4m3fnuz", 8),
    "F8_E5M2FNUZ": ("f8_e5m2fnuz", 8),
    "F6_E2M3": ("f6_e2m3", 6),
    "F6_E3M2": ("f6_e3m2", 6),
    "F4": ("f4_e2m1", 4),
}


def is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and length <= min(_HEADER_BYTES, size - 8)


def weights_of(file: io.FileIO) -> Weights:
    begin = 8 + int.from_bytes(exactly(file, 8), "little")
    header = _json(exactly(file, begin - 8))
    metadata = header.pop("__metadata__", None)
    arrays = {name: _tensor(entry, begin) for name, entry in header.items()}
    _require_no_gaps(arrays.values(), begin, size_of(file))
    digest = Digest("tensors/1")
    for name in sorted(arrays):
        file.seek(arrays[name].begin)
        digest.array(name, arrays[name], file)
    return Weights("safetensors", digest.hex(), len(arrays), _metadata_step(metadata))


def _json(data: bytes) -> Any:
    """Parsed, unless the result could take more than some 600 MB of memory."""
    if sum(data.count(mark) for mark in (b"{", b"[", b",")) > _JSON_VALUES:
        raise ValueError
    return json.loads(data.decode("utf-8"), parse_int=integer)


def _tensor(entry: Any, base: int) -> Array:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if len(shape) > DIMENSIONS or any(
        type(number) is not int or number < 0 for number in (begin, end, *shape)
    ):
        raise ValueError
    # A type from the future is only known by its name, and its size can't be checked.
    dtype, bits = _DTYPES.get(entry["dtype"], ("safetensors " + entry["dtype"], None))
    if begin > end or (bits is not None and (end - begin) * 8 != math.prod(shape) * bits):
        raise ValueError
    return Array(dtype, shape, base + begin, end - begin)


def _require_no_gaps(arrays: Iterable[Array], begin: int, end: int) -> None:
    """As the format demands; so a small file can't name the same bytes a million times."""
    for array in sorted(arrays, key=lambda array: (array.begin, array.size)):
        if array.begin != begin:
            raise ValueError
        begin += array.size
    if begin != end:
        raise ValueError


def _metadata_step(metadata: Any) -> Optional[int]:
    if not isinstance(metadata, dict):
        return None
    for key in STEPS:
        value = metadata.get(key)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,%d}" % STEP_DIGITS, value):
            return int(value)
    return None
