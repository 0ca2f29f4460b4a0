"""What the names of files and folders tell of weights; and the digest of a folder."""

from __future__ import annotations

import hashlib
import os
import re
from typing import Iterable, Optional, Set, Tuple

_SUFFIXES = (
    r"\.(pt|pt2|pth|pth\.tar|ckpt|safetensors|h5|hdf5|keras|npz|msgpack|gguf|onnx|pdparams|pdopt|pkl|pickle|joblib"
    r"|distcp|tflite|weights|index|data-[0-9]+-of-[0-9]+)$"
)
# Anything may be called .bin.
_BIN_PREFIXES = ("pytorch_model", "adapter_model", "model", "diffusion_pytorch_model", "optimizer")

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


def looks_like(name: str) -> bool:
    """Whether a file is called as weights are; an .npy is not, it is data."""
    name = os.path.basename(name).lower()
    if name.endswith(".bin"):
        return name.startswith(_BIN_PREFIXES)
    return name == "saved_model.pb" or re.search(_SUFFIXES, name) is not None


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
