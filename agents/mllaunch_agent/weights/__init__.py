"""Which files and folders hold model weights, told by their content; and a digest of the weights themselves.

Two files may hold the same weights although their bytes differ: ``torch.save`` names the folder inside its zip after
the file's stem, and Keras writes the time into its own. The *logical digest* leaves such things out. Equal digests
say that the weights are equal; unequal ones say nothing, because a pickle may spell one value in several ways. It is
a SHA-256, in hex, over a line that names the scheme and then fields, each of them after its length as eight bytes
(little-endian):

``tensors/1`` (safetensors, npz, npy, hdf5, keras): the line ``tensors/1\\n``; then, per array in the order of the
    names' UTF-8, the name, the dtype, the shape (decimal numbers with commas, nothing for a scalar) and the bytes in
    C order. The dtype is spelled as in numpy, without the byte order: ``f4``, ``i8``, ``u1``, ``c8``, ``bool``;
    beyond numpy it is safetensors' name in lower case: ``bf16``, ``f8_e4m3``, ``f4_e2m1``; and a type that is not
    known here is ``safetensors`` with a space and its name. Where the bytes lie otherwise, `` big-endian`` or
    `` fortran`` or both in this order stand behind it. The same arrays in a .safetensors and in an .npz have the same
    digest; safetensors' ``__metadata__`` doesn't count. An .npy holds one array whose name is empty. In HDF5 a name is
    the path (``layers/dense/vars/0``), and attributes don't count. Of a .keras file it is the digest of its
    ``model.weights.h5``: its ``config.json`` differs from one save of a model to the next.
``members/1`` (torch, torchscript): the line ``members/1\\n``; then, per zip member in the order of the names'
    UTF-8, the name and the bytes. In the names of torch the first component is left out. Left out are the members
    ``version``, ``byteorder``, ``.data/serialization_id``, ``.format_version``, ``.storage_alignment`` and
    ``*.debug_pkl`` (the paths of source files).

Nothing is ever unpickled. Files are hostile: memory is bounded by the largest header that is read (see the limits
beside each format), time by a multiple of the file's size, and what is damaged is no weights at all.

Sources: torch/csrc/jit/serialization and caffe2/serialize/inline_container.cc of PyTorch 2.13; the README of
safetensors 0.8; numpy/lib/_format_impl.py of numpy 2.4; keras/src/saving/saving_lib.py of Keras 3.15.
"""

from __future__ import annotations

import io
import os
import stat
from typing import Callable, Optional, TypeVar, Union

from mllaunch_agent.weights import keras, numpy_files, safetensors, zips
from mllaunch_agent.weights.model import Weights, size_of
from mllaunch_agent.weights.names import folder_digest, folder_format, looks_like, step_in_name

__all__ = [
    "Weights",
    "folder_digest",
    "folder_format",
    "format_of",
    "looks_like",
    "read",
    "step_in_name",
]

_MAGIC = (
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "torch-legacy"),  # 0x1950a86a20f9469cfc6c, pickled
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (numpy_files.MAGIC, "npy"),
    (b"GGUF", "gguf"),
)

Path = Union[str, bytes]
Found = TypeVar("Found")


def format_of(path: Path) -> Optional[str]:
    """The format of a file by its content, whatever its name; of a zip the directory is read, else some bytes.

    "pickle" says only that it is one: what it holds can't be told. Onnx has no magic and is never named. Raises
    OSError when the file can't be opened.
    """
    return _look(path, _format)


def read(path: Path) -> Optional[Weights]:
    """What a file holds, with its logical digest, for which the whole is read; None if it is no weights or damaged.

    A pickle counts only where its name looks like weights, an onnx model only by its name. A zip that would unfold
    to more than four times its size and 64 MiB is not unfolded, and has no digest. Raises OSError when the file
    can't be opened.
    """
    name = os.path.basename(os.fsdecode(path))
    return _look(path, lambda file: _weights(file, name))


def _look(path: Path, look: Callable[[io.FileIO], Optional[Found]]) -> Optional[Found]:
    """Without blocking: a pipe has no content to wait for."""
    with io.FileIO(path, opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return None
        try:
            return look(file)
        except Exception:  # noqa: BLE001 - zipfile, zlib and json raise a dozen kinds on damaged files
            return None


def _format(file: io.FileIO) -> Optional[str]:
    head = os.pread(file.fileno(), 16, 0)
    if head.startswith(b"PK\x03\x04"):
        return zips.format_of(file)
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if safetensors.is_safetensors(head, size_of(file)):
        return "safetensors"
    return "pickle" if _is_pickle(file, head) else None


def _is_pickle(file: io.FileIO, head: bytes) -> bool:
    """Protocols 2 to 5 begin with the opcode PROTO and their number, and end with STOP; 0 and 1 have no mark."""
    return head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5") and _last_byte(file) == b"."


def _last_byte(file: io.FileIO) -> bytes:
    return os.pread(file.fileno(), 1, size_of(file) - 1)


def _weights(file: io.FileIO, name: str) -> Optional[Weights]:
    found = _format(file)
    if found in ("torch", "torchscript", "keras", "npz"):
        return zips.weights_of(file, found)
    if found == "safetensors":
        return safetensors.weights_of(file)
    if found == "npy":
        return numpy_files.weights_of(file)
    if found == "hdf5":
        return keras.weights_of(file, found, 0, size_of(file))
    if found == "pickle" and not looks_like(name):
        return None
    if found is None and name.lower().endswith(".onnx") and os.pread(file.fileno(), 1, 0) == b"\x08":
        found = "onnx"  # a ModelProto begins with field 1, ir_version
    return Weights(found, None, None, None) if found else None
