"""An image that is an existing one and one layer more, as a tar for an engine's ``load`` that holds that layer alone.

The engine finds the other layers by their digests; if it has not got them, the load fails. Read by the classic image
store of dockerd 20.10 and later; format: https://github.com/moby/moby/blob/v20.10.24/image/spec/v1.2.md
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

__all__ = ["Layer", "head", "image", "image_id", "load_stream"]

# What of the parent's configuration concerns its containers. The rest tells how the parent itself was built.
_KEPT = (
    "Cmd",
    "Entrypoint",
    "Env",
    "ExposedPorts",
    "Healthcheck",
    "Shell",
    "StopSignal",
    "User",
    "Volumes",
)
_BLOCK_BYTES = 512
_CHUNK_BYTES = 1 << 20
_END = bytes(2 * _BLOCK_BYTES)


class Layer(NamedTuple):
    """An uncompressed layer. sha256: 64 hexadecimal digits, of all its bytes."""

    sha256: str
    size_bytes: int


def image(
    parent: Mapping[str, Any], layer: Layer, created: str, labels: Mapping[str, str], workdir: str
) -> bytes:
    """The configuration of the image, as JSON: equal arguments give equal bytes, and so the same image everywhere.

    parent: what the engine answers when asked to inspect it. created: RFC 3339. labels: added to the parent's, and
    stronger than those of the same name.
    """
    found = parent.get("Config") or {}
    below = parent["RootFS"].get("Layers") or []
    config = {key: found[key] for key in _KEPT if found.get(key) not in (None, "")}
    config["Labels"] = {**(found.get("Labels") or {}), **labels}
    config["WorkingDir"] = workdir
    # One entry per layer: `docker history` counts both off against each other, and what is missing at the front
    # would make our layer's entry be taken for the lowest layer's.
    history = [{"created": created, "comment": "mllaunch: environment"}] * len(below)
    history.append({"created": created, "comment": "mllaunch: code"})
    document = {
        "architecture": parent["Architecture"],
        "config": config,
        "created": created,
        "history": history,
        "os": parent["Os"],
        "rootfs": {"type": "layers", "diff_ids": [*below, "sha256:" + layer.sha256]},
    }
    if parent.get("Variant"):
        document["variant"] = parent["Variant"]
    return _json(document)


def image_id(config: bytes) -> str:
    """What a classic image store calls the image: ``sha256:`` and 64 hexadecimal digits."""
    return "sha256:" + hashlib.sha256(config).hexdigest()


def head(config: bytes, layer: Layer, name_and_tag: str) -> bytes:
    """The tar up to where the layer's bytes begin."""
    names = [digest.rpartition(":")[2] for digest in json.loads(config)["rootfs"]["diff_ids"]]
    config_name = image_id(config).rpartition(":")[2] + ".json"
    manifest = _json([{"Config": config_name, "Layers": names, "RepoTags": [name_and_tag]}])
    return (
        _member("manifest.json", len(manifest))
        + manifest
        + _padding(len(manifest))
        + _member(config_name, len(config))
        + config
        + _padding(len(config))
        + _member(layer.sha256, layer.size_bytes)
    )


def load_stream(
    config: bytes, layer: Layer, layer_file: BinaryIO, name_and_tag: str
) -> tuple[Iterator[bytes], int]:
    """The whole tar in pieces, and how many bytes it has.

    layer_file: read from where it stands. The iterator raises OSError if it does not hold just the layer's size.
    """
    begin = head(config, layer, name_and_tag)
    end = _padding(layer.size_bytes) + _END
    return _pieces(begin, layer, layer_file, end), len(begin) + layer.size_bytes + len(end)


def _pieces(begin: bytes, layer: Layer, layer_file: BinaryIO, end: bytes) -> Iterator[bytes]:
    yield begin
    left = layer.size_bytes
    while chunk := layer_file.read(min(left + 1, _CHUNK_BYTES)):
        left -= len(chunk)
        if left < 0:
            break
        yield chunk
    if left:
        raise OSError(f"the layer does not have the {layer.size_bytes} bytes that it should have")
    yield end


def _member(name: str, size_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size_bytes
    return info.tobuf(tarfile.GNU_FORMAT)


def _padding(size_bytes: int) -> bytes:
    return bytes(-size_bytes % _BLOCK_BYTES)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
