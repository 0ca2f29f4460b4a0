"""An image that is another one and a layer more."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from typing import Any

import pytest

from mllaunch_containers.layered import Layer, head, image, image_id, load_stream

BASE = "sha256:" + "b" * 64
# What dockerd 20.10 answers, shortened.
PARENT: dict[str, Any] = {
    "Id": "sha256:" + "a" * 64,
    "Created": "2026-01-01T00:00:00Z",
    "Architecture": "arm64",
    "Variant": "v8",
    "Os": "linux",
    "Config": {
        "Hostname": "b3c4",
        "Domainname": "",
        "User": "root",
        "AttachStdin": False,
        "Env": ["PATH=/usr/bin"],
        "Cmd": ["bash"],
        "Image": "sha256:" + "c" * 64,
        "Volumes": None,
        "WorkingDir": "/base",
        "Entrypoint": ["/entry"],
        "OnBuild": ["RUN false"],
        "Labels": {"base": "yes", "mllaunch.tree": "old"},
        "StopSignal": "SIGINT",
        "ExposedPorts": {"80/tcp": {}},
    },
    "RootFS": {"Type": "layers", "Layers": [BASE]},
}
CONTENT = b"the layer's bytes" * 100
LAYER = Layer(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
CREATED = "2026-02-03T04:05:06Z"


def configuration(parent: dict[str, Any] = PARENT) -> bytes:
    return image(parent, LAYER, CREATED, {"mllaunch.tree": "new"}, "/workspace")


def test_the_image_keeps_what_concerns_containers_and_forgets_how_its_parent_was_built() -> None:
    made = json.loads(configuration())
    assert made["config"] == {
        "Cmd": ["bash"],
        "Entrypoint": ["/entry"],
        "Env": ["PATH=/usr/bin"],
        "ExposedPorts": {"80/tcp": {}},
        "Labels": {"base": "yes", "mllaunch.tree": "new"},
        "StopSignal": "SIGINT",
        "User": "root",
        "WorkingDir": "/workspace",
    }
    assert (made["architecture"], made["variant"], made["os"]) == ("arm64", "v8", "linux")
    assert made["created"] == CREATED


def test_the_layer_comes_on_top_and_the_history_has_an_entry_for_each() -> None:
    made = json.loads(configuration())
    assert made["rootfs"] == {"type": "layers", "diff_ids": [BASE, "sha256:" + LAYER.sha256]}
    assert [entry["comment"] for entry in made["history"]] == ["mllaunch: environment", "mllaunch: code"]


def test_equal_images_are_equal_bytes_whatever_the_order_of_the_engines_answer() -> None:
    turned = {key: PARENT[key] for key in reversed(PARENT)}
    turned["Config"] = {key: PARENT["Config"][key] for key in reversed(PARENT["Config"])}
    assert configuration(turned) == configuration()
    assert configuration({**PARENT, "Id": "other", "Created": "later"}) == configuration()
    assert image_id(configuration()) == "sha256:" + hashlib.sha256(configuration()).hexdigest()


def test_a_parent_that_says_next_to_nothing_will_do() -> None:
    bare = {"Architecture": "amd64", "Variant": "", "Os": "linux", "Config": None, "RootFS": {"Layers": None}}
    made = json.loads(image(bare, LAYER, CREATED, {}, "/workspace"))
    assert made["config"] == {"Labels": {}, "WorkingDir": "/workspace"}
    assert made["rootfs"]["diff_ids"] == ["sha256:" + LAYER.sha256]
    assert "variant" not in made


def test_the_tar_holds_the_manifest_the_configuration_and_the_new_layer_alone() -> None:
    config = configuration()
    pieces, total = load_stream(config, LAYER, io.BytesIO(CONTENT), "demo:1")
    data = b"".join(pieces)
    assert len(data) == total
    assert data.startswith(head(config, LAYER, "demo:1"))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    name = image_id(config)[7:] + ".json"
    assert list(found) == ["manifest.json", name, LAYER.sha256]
    assert json.loads(found["manifest.json"]) == [
        {"Config": name, "Layers": ["b" * 64, LAYER.sha256], "RepoTags": ["demo:1"]}
    ]
    assert (found[name], found[LAYER.sha256]) == (config, CONTENT)


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", b""])
def test_a_layer_of_another_size_is_an_error(content: bytes) -> None:
    pieces, _ = load_stream(configuration(), LAYER, io.BytesIO(content), "demo:1")
    with pytest.raises(OSError, match="1700 bytes"):
        list(pieces)
