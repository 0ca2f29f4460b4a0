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
below), time by a multiple of the file's size, and what is damaged is no weights at all.

Sources: torch/csrc/jit/serialization and caffe2/serialize/inline_container.cc of PyTorch 2.13; the README of
safetensors 0.8; numpy/lib/_format_impl.py of numpy 2.4; keras/src/saving/saving_lib.py of Keras 3.15.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import stat
import struct
from typing import (
    IO,
    TYPE_CHECKING,
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Set,
    Tuple,
    TypeVar,
    Union,
)

from mllaunch_agent import hdf5
from mllaunch_agent.hdf5 import Array

if TYPE_CHECKING:
    from zipfile import ZipFile, ZipInfo

__all__ = [
    "Weights",
    "folder_digest",
    "folder_format",
    "format_of",
    "looks_like",
    "read",
    "step_in_name",
]

_BLOCK = 1 << 20
_HEADER_BYTES = 100 * 1000 * 1000  # of a safetensors file; its own library refuses more
_JSON_VALUES = 4 * 1000 * 1000  # values in such a header: some hundred bytes of memory each, ten to a tensor
_DIRECTORY_BYTES = 16 << 20  # of a zip: more than 100,000 members, and some 200 MB of memory at worst
_NPY_HEADER_BYTES = 1 << 16  # a plain array has 118
_RATIO = 4  # a zip of weights hardly shrinks: beyond this and the allowance it is not decompressed
_ALLOWANCE = 64 << 20
_DIMENSIONS = 64  # numpy's own limit
_DIGITS = 18  # of a step: fits a signed 64-bit integer

_SUFFIXES = (
    r"\.(pt|pt2|pth|pth\.tar|ckpt|safetensors|h5|hdf5|keras|npz|msgpack|gguf|onnx|pdparams|pdopt|pkl|pickle|joblib"
    r"|distcp|tflite|weights|index|data-[0-9]+-of-[0-9]+)$"
)
# Anything may be called .bin.
_BIN_PREFIXES = ("pytorch_model", "adapter_model", "model", "diffusion_pytorch_model", "optimizer")

_NPY = b"\x93NUMPY"
_MAGIC = (
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "torch-legacy"),  # 0x1950a86a20f9469cfc6c, pickled
    (b"\x89HDF\r\n\x1a\n", "hdf5"),
    (_NPY, "npy"),
    (b"GGUF", "gguf"),
)
_KERAS_WEIGHTS = "model.weights.h5"
_KERAS = ("config.json", "metadata.json", _KERAS_WEIGHTS)
_KERAS_STEP = "optimizer/vars/0"  # the optimizer's iterations, which it makes first
_NOT_WEIGHTS = r"version|byteorder|\.data/serialization_id|\.format_version|\.storage_alignment|.*\.debug_pkl"
_STEPS = ("step", "global_step", "iteration", "epoch")  # the first that a file has counts

# How numpy writes the description of an array without fields: a literal, which needs no parser that could be abused.
_NPY_HEADER = (
    rb"\{'descr': '([<>|])([biufcSUmMV])([0-9]{1,9})(\[[0-9A-Za-z]+\])?', "
    rb"'fortran_order': (True|False), 'shape': \(([0-9, ]*)\),? *\}[ \n]*"
)
_SAFETENSORS = {  # the spelling in the digest, and bits per element
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

_NUMBER = r"[-_=.]?([0-9]{1,18})(?![0-9a-z]|\.[0-9])"
_STEP_NAMES = (
    r"(?<![a-z])(?:global[-_]?)?steps?" + _NUMBER,
    r"(?<![a-z])iter(?:ation)?s?" + _NUMBER,
    r"(?<![a-z])(?:checkpoint|ckpt)" + _NUMBER,
    r"(?<![a-z])epochs?" + _NUMBER,
)
_NO_STEP = r"[0-9]+-of-[0-9]+|[0-9]{4}-[0-9]{2}-[0-9]{2}"  # shards and dates
_STEP_COMPONENTS = 3  # iter_0000500/mp_rank_00/model.pt

_DEEPSPEED = r"(mp_rank_[0-9]+_model_states|zero_pp_rank_.+|.+_optim_states)\.pt"
_SHARD = r"-[0-9]+-of-[0-9]+(\.safetensors|\.bin)$"  # model-00001-of-00002.safetensors: model.safetensors.index.json
_TENSORFLOW_DATA = r"\.data-[0-9]+-of-[0-9]+$"
_ORBAX = frozenset(("_CHECKPOINT_METADATA", "orbax.checkpoint"))

Path = Union[str, bytes]
Found = TypeVar("Found")


class Weights(NamedTuple):
    """What a file of weights tells without being unpickled."""

    # "torch", "torch-legacy", "torchscript", "safetensors", "hdf5", "npz", "npy", "gguf", "keras", "onnx", "pickle"
    format: str
    digest: Optional[str]  # the logical digest; None where the format gives none, or at too great an expense
    tensors: Optional[int]  # how many arrays, where the file says so
    # From the metadata of safetensors, an array of that name in an npz, or the optimizer's iterations of Keras
    step: Optional[int]


# ---- files


def looks_like(name: str) -> bool:
    """Whether a file is called as weights are; an .npy is not, it is data."""
    name = os.path.basename(name).lower()
    if name.endswith(".bin"):
        return name.startswith(_BIN_PREFIXES)
    return name == "saved_model.pb" or re.search(_SUFFIXES, name) is not None


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


def _size(file: io.FileIO) -> int:
    return os.fstat(file.fileno()).st_size


def _format(file: io.FileIO) -> Optional[str]:
    head = os.pread(file.fileno(), 16, 0)
    if head.startswith(b"PK\x03\x04"):
        with _ZipBytes(file) as source, _zip(source) as archive:
            return _zip_format(archive.namelist())
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if _is_safetensors(head, _size(file)):
        return "safetensors"
    return "pickle" if _is_pickle(file, head) else None


def _is_safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    return head[8:9] == b"{" and length <= min(_HEADER_BYTES, size - 8)


def _is_pickle(file: io.FileIO, head: bytes) -> bool:
    """Protocols 2 to 5 begin with the opcode PROTO and their number, and end with STOP; 0 and 1 have no mark."""
    return head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5") and _last_byte(file) == b"."


def _last_byte(file: io.FileIO) -> bytes:
    return os.pread(file.fileno(), 1, _size(file) - 1)


def _weights(file: io.FileIO, name: str) -> Optional[Weights]:
    found = _format(file)
    if found in ("torch", "torchscript", "keras", "npz"):
        return _zipped(file, found)
    if found == "safetensors":
        return _safetensors(file)
    if found == "npy":
        return _npy(file)
    if found == "hdf5":
        return _hdf5(file, found, 0, _size(file))
    if found == "pickle" and not looks_like(name):
        return None
    if found is None and name.lower().endswith(".onnx") and os.pread(file.fileno(), 1, 0) == b"\x08":
        found = "onnx"  # a ModelProto begins with field 1, ir_version
    return Weights(found, None, None, None) if found else None


class _Digest:
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
            block = stream.read(min(size, _BLOCK))
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


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError
    return data


# ---- safetensors: length of the header (8 bytes), header (JSON), bytes of the arrays


def _safetensors(file: io.FileIO) -> Weights:
    begin = 8 + int.from_bytes(_exactly(file, 8), "little")
    header = _json(_exactly(file, begin - 8))
    metadata = header.pop("__metadata__", None)
    arrays = {name: _tensor(entry, begin) for name, entry in header.items()}
    _require_no_gaps(arrays.values(), begin, _size(file))
    digest = _Digest("tensors/1")
    for name in sorted(arrays):
        file.seek(arrays[name].begin)
        digest.array(name, arrays[name], file)
    return Weights("safetensors", digest.hex(), len(arrays), _metadata_step(metadata))


def _json(data: bytes) -> Any:
    """Parsed, unless the result could take more than some 600 MB of memory."""
    if sum(data.count(mark) for mark in (b"{", b"[", b",")) > _JSON_VALUES:
        raise ValueError
    return json.loads(data.decode("utf-8"), parse_int=_integer)


def _integer(digits: str) -> int:
    if len(digits) > 20:  # of 2**64; old Pythons take minutes for millions of digits
        raise ValueError
    return int(digits)


def _tensor(entry: Any, base: int) -> Array:
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if len(shape) > _DIMENSIONS or any(
        type(number) is not int or number < 0 for number in (begin, end, *shape)
    ):
        raise ValueError
    # A type from the future is only known by its name, and its size can't be checked.
    dtype, bits = _SAFETENSORS.get(entry["dtype"], ("safetensors " + entry["dtype"], None))
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
    for key in _STEPS:
        value = metadata.get(key)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,%d}" % _DIGITS, value):
            return int(value)
    return None


# ---- numpy


def _npy(file: io.FileIO) -> Weights:
    array = _npy_array(file, _size(file))
    if array is None:
        return Weights("npy", None, 1, None)
    digest = _Digest("tensors/1")
    digest.array("", array, file)
    return Weights("npy", digest.hex(), 1, None)


def _npy_array(stream: IO[bytes], size: int) -> Optional[Array]:
    """Reads the header of an .npy of ``size`` bytes; None: it holds objects or records, or is not written by numpy.

    Raises ValueError or EOFError when it is no .npy, or its size belies its shape.
    """
    start = _exactly(stream, 8)  # the magic, and the version in two bytes
    if not start.startswith(_NPY):
        raise ValueError
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(_exactly(stream, width), "little")
    if length > _NPY_HEADER_BYTES:
        return None
    match = re.fullmatch(_NPY_HEADER, _exactly(stream, length))
    if match is None:
        return None
    order, kind, count, unit, fortran, dimensions = (group.decode("ascii") for group in match.groups(b""))
    shape = tuple(_integer(number) for number in dimensions.replace(",", " ").split())
    item = int(count) * (4 if kind == "U" else 1)
    array = Array(
        ("bool" if kind == "b" else kind + count + unit)
        + (" big-endian" if order == ">" else "")
        + (" fortran" if fortran == "True" and len(shape) > 1 else ""),
        shape,
        len(start) + width + length,
        math.prod(shape[: _DIMENSIONS + 1]) * item,
    )
    if len(shape) > _DIMENSIONS or array.begin + array.size != size:
        raise ValueError
    return array


def _npz_digest(archive: ZipFile, arrays: Mapping[str, ZipInfo]) -> Optional[str]:
    digest = _Digest("tensors/1")
    for name in sorted(arrays):
        with archive.open(arrays[name]) as stream:
            array = _npy_array(stream, arrays[name].file_size)
            if array is None:
                return None
            digest.array(name, array, stream)
    return digest.hex()


def _npz_step(archive: ZipFile, arrays: Mapping[str, ZipInfo]) -> Optional[int]:
    for name in _STEPS:
        if name in arrays:
            with archive.open(arrays[name]) as stream:
                step = _npy_step(stream, arrays[name].file_size)
            if step is not None:
                return step
    return None


def _npy_step(stream: IO[bytes], size: int) -> Optional[int]:
    array = _npy_array(stream, size)
    return None if array is None else _array_step(array, stream)


def _array_step(array: Array, stream: IO[bytes]) -> Optional[int]:
    """A whole number that is an array of its own, at which the stream stands."""
    if math.prod(array.shape) != 1 or not re.fullmatch("[iu][1-8]( big-endian)?", array.dtype):
        return None
    step = int.from_bytes(
        _exactly(stream, array.size),
        "big" if array.dtype.endswith("big-endian") else "little",
        signed=array.dtype.startswith("i"),
    )
    return step if 0 <= step < 10**_DIGITS else None


# ---- hdf5


def _hdf5(file: io.FileIO, found: str, begin: int, size: int) -> Weights:
    try:
        arrays = hdf5.arrays(file, begin, size)
    except (ValueError, EOFError, struct.error):  # not the plain form
        return Weights(found, None, None, None)
    digest = _Digest("tensors/1")
    for name in sorted(arrays):
        file.seek(arrays[name].begin)
        digest.array(name, arrays[name], file)
    return Weights(found, digest.hex(), len(arrays), _keras_step(file, arrays))


def _keras_step(file: io.FileIO, arrays: Mapping[str, Array]) -> Optional[int]:
    array = arrays.get(_KERAS_STEP)
    if array is None:
        return None
    file.seek(array.begin)
    return _array_step(array, file) or None  # 0: an optimizer that was not used, and does not know


def _keras(file: io.FileIO, members: Mapping[str, ZipInfo]) -> Weights:
    """Keras stores its HDF5 file uncompressed: it lies in the zip as it is."""
    info = members[_KERAS_WEIGHTS]
    if info.compress_type or info.flag_bits & 1:  # or it is encrypted
        return Weights("keras", None, None, None)
    file.seek(info.header_offset + 26)  # the lengths of name and extra field, which stand before the content
    lengths = struct.unpack("<HH", _exactly(file, 4))
    return _hdf5(file, "keras", info.header_offset + 30 + sum(lengths), info.file_size)


# ---- zip


class _ZipBytes(io.FileIO):
    """A file that refuses to be read in one piece larger than a directory may be: zipfile reads that as a whole."""

    def __init__(self, file: io.FileIO) -> None:
        super().__init__(file.fileno(), closefd=False)

    def read(self, size: Optional[int] = -1, /) -> bytes:
        if size is None or size < 0:
            size = _BLOCK  # enough: zipfile seeks the last 64 KiB, and wants to have the rest
        if size > _DIRECTORY_BYTES:
            raise ValueError
        return super().read(size)


def _zip(source: _ZipBytes) -> ZipFile:
    from zipfile import ZipFile

    return ZipFile(source)


def _zip_format(names: List[str]) -> Optional[str]:
    names = [name for name in names if not name.endswith("/")]
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if all(name in names for name in _KERAS):
        return "keras"
    prefix = names[0].partition("/")[0] + "/" if names else ""
    if prefix + "data.pkl" not in names or not all(name.startswith(prefix) for name in names):
        return None
    has_code = any(name.startswith((prefix + "code/", prefix + "constants.pkl")) for name in names)
    return "torchscript" if has_code else "torch"


def _zipped(file: io.FileIO, found: str) -> Weights:
    with _ZipBytes(file) as source, _zip(source) as archive:
        members = _members(archive)
        can_read = _can_read(members, _size(file))
        if found == "npz":
            arrays = {name[: -len(".npy")]: info for name, info in members.items()}
            digest = _npz_digest(archive, arrays) if can_read else None
            return Weights(found, digest, len(arrays), _npz_step(archive, arrays) if can_read else None)
        if found == "keras":
            return _keras(file, members)
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
    digest = _Digest("members/1")
    for name in sorted(members):
        if re.fullmatch(_NOT_WEIGHTS, name, re.DOTALL):
            continue
        with archive.open(members[name]) as stream:
            digest.text(name)
            digest.content(stream, members[name].file_size)
    return digest.hex()


# ---- names and folders


def step_in_name(path: str) -> Optional[int]:
    """The step that a path's last three components tell; the last of them that tells one counts.

    Within one, a step goes before an iteration, that before a checkpoint's number, and that before an epoch. A bare
    number (``500.pt``), a shard's (``-00001-of-00002``), a date and ``step_100k`` tell none.
    """
    for component in reversed(path.split("/")[-_STEP_COMPONENTS:]):
        name = re.sub(_NO_STEP, "", component.lower())
        for pattern in _STEP_NAMES:
            match = re.search(pattern, name)
            if match:
                return int(match.group(1))
    return None


def folder_format(names: Iterable[str]) -> Optional[str]:
    """What a folder is that as a whole is one checkpoint, by the names in it; None if it is no such folder.

    "distcp" (torch.distributed.checkpoint), "deepspeed", "sharded" (an index and its shards), "transformers",
    "tensorflow" (one checkpoint, or a SavedModel), "orbax". Names of subfolders may be among the names, also as the
    beginning of a path.
    """
    found = set(names)
    kinds = (
        ("distcp", ".metadata" in found and any(name.endswith(".distcp") for name in found)),
        ("deepspeed", any(re.fullmatch(_DEEPSPEED, name) for name in found)),
        ("sharded", bool(_indexes(found, _SHARD, r"\1.index.json") & found)),
        ("transformers", "config.json" in found and bool(found & {"model.safetensors", "pytorch_model.bin"})),
        ("tensorflow", _is_tensorflow(found)),
        ("orbax", bool(found & _ORBAX) or {"_METADATA", "manifest.ocdbt"} <= found),
    )
    return next((kind for kind, matches in kinds if matches), None)


def _indexes(names: Iterable[str], shard: str, index: str) -> Set[str]:
    """What the index of each shard among the names is called."""
    return {re.sub(shard, index, name) for name in names if re.search(shard, name)}


def _is_tensorflow(names: Set[str]) -> bool:
    """A training folder keeps several checkpoints side by side: then as a whole it is not one."""
    if "saved_model.pb" in names:
        return any(name == "variables" or name.startswith("variables/") for name in names)
    return "checkpoint" in names and len(_indexes(names, _TENSORFLOW_DATA, ".index") & names) == 1


def folder_digest(files: Iterable[Tuple[str, int, str]]) -> str:
    """One digest for a folder's files, given as (path in the folder, size in bytes, SHA-256 in hex), in any order.

    SHA-256 in hex over ``path\\0size\\0sha256\\n`` for each, sorted by the bytes of the path. It is the digest that
    docs/fingerprint.md gives to a folder of such files.
    """
    lines = sorted((os.fsencode(path), size, sha256) for path, size, sha256 in files)
    digest = hashlib.sha256()
    for path, size, sha256 in lines:
        digest.update(b"%s\0%d\0%s\n" % (path, size, sha256.encode("ascii")))
    return digest.hexdigest()
