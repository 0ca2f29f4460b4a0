"""What is found in a file of weights, and the parts that its formats have in common."""

from __future__ import annotations

import hashlib
import io
import os
from typing import IO, NamedTuple, Optional, Tuple

BLOCK = 1 << 20
DIMENSIONS = 64  # numpy's own limit
STEP_DIGITS = 18  # fits a signed 64-bit integer
STEPS = ("step", "global_step", "iteration", "epoch")  # the first that a file has counts


class Weights(NamedTuple):
    """What a file of weights tells without being unpickled."""

    # "torch", "torch-legacy", "torchscript", "safetensors", "hdf5", "npz", "npy", "gguf", "keras", "onnx", "pickle"
    format: str
    digest: Optional[str]  # the logical digest; None where the format gives none, or at too great an expense
    tensors: Optional[int]  # how many arrays, where the file says so
    # From the metadata of safetensors, an array of that name in an npz, or the optimizer's iterations of Keras
    step: Optional[int]


class Array(NamedTuple):
    """One array in a file."""

    dtype: str  # as numpy spells it, with " big-endian" behind it where the bytes lie so
    shape: Tuple[int, ...]
    begin: int  # where its bytes begin, counted from the start of the file
    size: int  # in bytes


class Digest:
    """SHA-256 over the scheme and over fields that can't be confused, because each comes after its length."""

    def __init__(self, scheme: str) -> None:
        self._sha256 = hashlib.sha256(scheme.encode("ascii") + b"\n")

    def text(self, text: str) -> None:
        data = text.encode("utf-8", "surrogatepass")
        self._length(len(data))
        self._sha256.update(data)

    def content(self, stream: IO[bytes], size: int) -> None:
        """Exactly ``size`` bytes from where the stream stands; raises EOFError when there are fewer."""
        self._length(size)
        while size > 0:
            block = stream.read(min(size, BLOCK))
            if not block:
                raise EOFError
            self._sha256.update(block)
            size -= len(block)

    def array(self, name: str, array: Array, stream: IO[bytes]) -> None:
        self.text(name)
        self.text(array.dtype)
        self.text(",".join(map(str, array.shape)))
        self.content(stream, array.size)

    def hex(self) -> str:
        return self._sha256.hexdigest()

    def _length(self, length: int) -> None:
        self._sha256.update(length.to_bytes(8, "little"))


def exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


def size_of(file: io.FileIO) -> int:
    return os.fstat(file.fileno()).st_size


def integer(digits: str) -> int:
    if len(digits) > 20:  # of 2**64; old Pythons take minutes for millions of digits
        raise ValueError
    return int(digits)
