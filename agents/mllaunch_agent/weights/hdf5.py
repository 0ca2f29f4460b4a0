"""The arrays of an HDF5 file, found without the HDF5 library: what h5py writes unless asked for more, as Keras has it.

That is the oldest form of the format: superblock 0, groups as symbol tables, object headers 1, arrays in one piece.
Source: the HDF5 File Format Specification, version 3.0, sections II.A, III.A to III.D and IV.A.
"""

import math
import struct
from typing import BinaryIO, Dict, Iterator, List, NamedTuple, Tuple

from mllaunch_agent.weights.model import Array

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_METADATA_BYTES = 16 << 20  # read of one file beside its arrays; 20,000 arrays have as much
_READ_BYTES = 64  # what a read counts at least, as it takes time
_PATH_CHARACTERS = 1000
_NOWHERE = (1 << 64) - 1
_DATASPACE, _DATATYPE, _EXTERNAL, _LAYOUT, _CONTINUATION, _SYMBOLS = 1, 3, 7, 8, 16, 17
_FLOATS = {
    (2, 5, 10): "f2",
    (4, 8, 23): "f4",
    (8, 11, 52): "f8",
}  # bytes, bits of the exponent and the mantissa


def arrays(file: BinaryIO, begin: int, size: int) -> Dict[str, Array]:
    """The arrays, by path (``layers/dense/vars/0``), of the HDF5 file whose ``size`` bytes begin at ``begin``.

    Attributes are left out. Raises ValueError, EOFError or struct.error when the file is damaged, or has what is not
    read here: links, strings, records, compression, chunks, a newer form. The arrays together are no larger than the
    file, so hostile files can't make them take long.
    """
    source = _Source(file, begin, size)
    found: Dict[str, Array] = {}
    seen = set()
    left = [("", _root(source))]
    while left:
        path, address = left.pop()
        _require(address not in seen and len(path) <= _PATH_CHARACTERS)  # no circle, no array of many names
        seen.add(address)
        messages = _messages(source, address)
        if _SYMBOLS in messages:
            left += [
                (f"{path}/{name}", child) for name, child in _children(source, messages[_SYMBOLS].content)
            ]
        else:
            _require(path[1:] not in found)
            found[path[1:]] = _array(source, messages)
    _require(sum(array.size for array in found.values()) <= size)
    return found


class _Message(NamedTuple):
    address: int
    content: bytes


class _Source:
    """Reads by address, and so much in all."""

    def __init__(self, file: BinaryIO, begin: int, size: int) -> None:
        self.begin, self.size = begin, size
        self._file, self._left = file, _METADATA_BYTES

    def read(self, address: int, size: int) -> bytes:
        self._left -= max(size, _READ_BYTES)
        _require(self._left >= 0)
        self._file.seek(self.place(address, size))
        return self._file.read(size)

    def place(self, address: int, size: int) -> int:
        """Where in the file the address is, if as many bytes are there."""
        if address + size > self.size:
            raise EOFError
        return self.begin + address


def _require(is_so: bool) -> None:
    if not is_so:
        raise ValueError


def _root(source: _Source) -> int:
    """The address of the root group's object header."""
    signature, version, offset_bytes, length_bytes, base, end, root = struct.unpack(
        "<8sB4xBB9xQ8xQ16xQ", source.read(0, 72)
    )
    _require(signature == _SIGNATURE and (version, offset_bytes, length_bytes, base) == (0, 8, 8, 0))
    _require(end <= source.size)
    return int(root)


def _messages(source: _Source, address: int) -> Dict[int, _Message]:
    """What an object's header says, by type. Of several of one type, the last."""
    version, count, size = struct.unpack("<BxH4xI4x", source.read(address, 16))
    _require(version == 1)
    found = {}
    blocks = [(address + 16, size)]
    while blocks:
        place, size = blocks.pop()
        block, at = source.read(place, size), 0
        while count and at + 8 <= size:
            kind, length, flags = struct.unpack_from("<HHB3x", block, at)
            at += 8
            count -= 1
            if kind == _CONTINUATION:
                blocks.append(struct.unpack_from("<QQ", block, at))
            _require(not (flags & 2 and kind in (_DATASPACE, _DATATYPE)))  # it is elsewhere, shared
            found[kind] = _Message(place + at, block[at : at + length])
            at += length
    return found


def _children(source: _Source, symbols: bytes) -> Iterator[Tuple[str, int]]:
    """What is in a group: names, and addresses of object headers."""
    tree, heap = struct.unpack_from("<QQ", symbols)
    magic, size, names_at = struct.unpack("<4s4xQ8xQ", source.read(heap, 32))
    _require(magic == b"HEAP")
    names = source.read(names_at, size)
    for leaf in _leaves(source, tree):
        magic, count = struct.unpack("<4s2xH", source.read(leaf, 8))
        _require(magic == b"SNOD")
        for offset, header, cache in struct.iter_unpack("<QQI20x", source.read(leaf + 8, 40 * count)):
            _require(cache != 2)  # a symbolic link
            yield (
                names[offset : names.index(b"\0", offset, offset + _PATH_CHARACTERS)].decode("utf-8"),
                header,
            )


def _leaves(source: _Source, tree: int) -> List[int]:
    """The addresses of the nodes with a group's entries."""
    found: List[int] = []
    left = [tree]
    while left:
        node = left.pop()
        magic, kind, level, count = struct.unpack("<4sBBH", source.read(node, 8))
        _require(magic == b"TREE" and kind == 0)
        pairs = struct.iter_unpack("<8xQ", source.read(node + 24, 16 * count))
        (left if level else found).extend(child for (child,) in pairs)
    return found


def _array(source: _Source, messages: Dict[int, _Message]) -> Array:
    _require({_DATASPACE, _DATATYPE, _LAYOUT} <= set(messages) and _EXTERNAL not in messages)
    shape = _shape(messages[_DATASPACE].content)
    dtype, item = _dtype(messages[_DATATYPE].content)
    layout = messages[_LAYOUT].content
    _require(layout[:1] in (b"\3", b"\4") and layout[1:2] in (b"\0", b"\1"))
    if layout[1] == 0:  # compact: the array is in the message
        address, size = messages[_LAYOUT].address + 4, int.from_bytes(layout[2:4], "little")
    else:
        address, size = struct.unpack_from("<QQ", layout, 2)
        if address == _NOWHERE and size == 0:
            address = 0
    _require(size == math.prod(shape) * item)
    return Array(dtype, shape, source.place(address, size), size)


def _shape(message: bytes) -> Tuple[int, ...]:
    version, rank, kind = struct.unpack_from("<BBxB", message)
    _require(
        rank <= 32 and (version == 1 or (version == 2 and kind in (0, 1)))
    )  # HDF5 has no more dimensions
    return struct.unpack_from(f"<{rank}Q", message, 8 if version == 1 else 4)


def _dtype(message: bytes) -> Tuple[str, int]:
    """How numpy spells a type, and its bytes. Bits that are no number's (bfloat16 of Keras) are ``V2``, as there."""
    kind, flags, size = struct.unpack_from("<BB2xI", message)
    kind &= 15  # beside the version
    if kind == 5:
        return f"V{size}", size
    offset, precision, exponent, mantissa = struct.unpack_from("<HHxBxB", message.ljust(16, b"\0"), 8)
    _require(kind in (0, 1) and offset == 0 and precision == 8 * size and size in (1, 2, 4, 8))
    order = " big-endian" if flags & 1 and size > 1 else ""
    if kind == 0:
        return ("i" if flags & 8 else "u") + str(size) + order, size
    _require(not flags & 64 and (size, exponent, mantissa) in _FLOATS)
    return _FLOATS[size, exponent, mantissa] + order, size
