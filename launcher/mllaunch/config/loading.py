"""The effective configuration.

flag > MLLAUNCH_* > mllaunch.yaml > [tool.mllaunch] in pyproject.toml > the user's file > default
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from mllaunch.config.folders import user_file
from mllaunch.config.schema import BY_KEY, SECTIONS, SETTINGS, Setting
from mllaunch.config.tree import Node, core_scalar
from mllaunch.config.units import shown
from mllaunch.config.values import Config, Image, Ray, Ssh
from mllaunch.domain.job import Container, Resources
from mllaunch.errors import ConfigError

FILE_NAME = "mllaunch.yaml"
_SIZE_LIMIT = 1024 * 1024
_Found = dict[str, Node]


def load(root: str | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Config:
    """The configuration in effect for the repository at root (None: there is none).

    flags: by key (``resources.gpus``), a text or a value; None and () are "not given". Raises one ConfigError
    that names every fault.
    """
    faults: list[str] = []
    sources = [_from_flags(flags, faults), _from_variables(environ, faults)]
    if root is not None:
        sources.append(_from_yaml(os.path.join(root, FILE_NAME), FILE_NAME, faults))
        sources.append(_from_pyproject(os.path.join(root, "pyproject.toml"), faults))
    path = user_file(environ)
    sources.append(_from_yaml(path, path, faults))

    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for setting in SETTINGS:
        values[setting.key], where = _effective(setting, sources, faults)
        origins.update(where)
    if faults:
        faults = list(dict.fromkeys(faults))  # an alias repeats what is wrong with its anchor
        many = f"{len(faults)} faults" if len(faults) > 1 else "a fault"
        raise ConfigError(
            "config-invalid",
            f"the configuration has {many}",
            evidence=tuple(faults),
            hint="correct what is named, then: mllaunch config --show-origin",
        )
    if values["project"] is None and root is not None:
        # A folder's name may be any bytes; a project's name is text.
        values["project"] = os.path.basename(os.path.abspath(root)).encode("utf-8", "replace").decode()
        origins["project"] = "the repository's folder name"
    return _config(values, origins)


def _effective(setting: Setting, sources: list[_Found], faults: list[str]) -> tuple[Any, dict[str, str]]:
    """The value of the first source that has the key. All are checked: a hidden fault is a fault too."""
    given: list[tuple[Any, Node]] = []
    for source in sources:
        node = source.get(setting.key)
        if node is None or (node.value is None and setting.kind.many):
            continue  # a list whose entries are all commented out is not there
        if node.value is None and setting.default is None:
            given.append((None, node))
        else:
            given.append((setting.kind.read(node, faults), node))
    if setting.key == "env" and not faults:
        return _variables(given)
    for value, node in given:
        return value, {setting.key: node.where}
    return setting.default, {setting.key: "default"}


def _variables(given: list[tuple[Any, Node]]) -> tuple[Any, dict[str, str]]:
    """Entries of all sources, by name; the first source that has a name decides."""
    values: dict[str, str | None] = {}
    origins: dict[str, str] = {}
    for entries, node in given:
        for (name, value), child in zip(entries, node.value, strict=True):  # type: ignore[call-overload]
            if name not in values:
                values[name] = value
                origins[f"env.{name}"] = child.where
    return tuple(values.items()), origins or {"env": "default"}


def _from_flags(flags: Mapping[str, object], faults: list[str]) -> _Found:
    found = {}
    for key, value in flags.items():
        if value is None or value == ():
            continue
        where = BY_KEY[key].flag or key
        if isinstance(value, str):
            found[key] = _interpreted(BY_KEY[key], value, where, faults)
        elif isinstance(value, (list, tuple)):
            found[key] = Node([Node(item, where) for item in value], where)
        else:
            found[key] = Node(value, where)
    return found


def _from_variables(environ: Mapping[str, str], faults: list[str]) -> _Found:
    """An empty variable counts as not set, as shells and CI systems leave them."""
    return {
        setting.key: _interpreted(setting, environ[setting.variable], setting.variable, faults)
        for setting in SETTINGS
        if environ.get(setting.variable)
    }


def _interpreted(setting: Setting, text: str, where: str, faults: list[str]) -> Node:
    """A text as the value that it would be in the file; a list may also be its only entry, bare."""
    if setting.kind.many:
        if not text.lstrip().startswith("["):
            return Node([Node(text, where)], where)
        from mllaunch.config.yaml_source import parse_yaml

        return parse_yaml(text, where, faults) or Node([], where)
    if setting.kind.literal:
        return Node(text, where)
    try:
        return Node(core_scalar(text.strip()), where)
    except ValueError:
        return Node(text, where)  # the kind will refuse it


def _from_yaml(path: str, name: str, faults: list[str]) -> _Found:
    data = _read(path, name, faults)
    text = None if data is None else _decoded(data, name, faults)
    if not text or text.isspace():
        return {}
    from mllaunch.config.yaml_source import parse_yaml

    return dict(_flattened(parse_yaml(text, name, faults), name, faults))


def _from_pyproject(path: str, faults: list[str]) -> _Found:
    if not os.path.isfile(path):
        return {}  # whatever it is, it is not ours to complain about
    name = "pyproject.toml"
    data = _read(path, name, faults, only_with=b"[tool.mllaunch")
    text = None if data is None else _decoded(data, name, faults)
    if not text:
        return {}
    from mllaunch.config.toml_source import parse_toml

    return dict(_flattened(parse_toml(text, name, faults), name, faults))


def _flattened(root: Node | None, name: str, faults: list[str]) -> Iterator[tuple[str, Node]]:
    """Every known key with its node; unknown keys become faults."""
    if root is None or root.value is None:
        return
    if not isinstance(root.value, dict):
        faults.append(f"{root.where}: expected settings such as `backend: local`, not {shown(root.value)}")
        return
    for key, node in root.value.items():
        if key in BY_KEY:
            yield key, node
        elif key not in SECTIONS:
            faults.append(_unknown(key, "", node))
        elif isinstance(node.value, dict):
            for inner, child in node.value.items():
                if f"{key}.{inner}" in BY_KEY:
                    yield f"{key}.{inner}", child
                else:
                    faults.append(_unknown(inner, f"{key}.", child))
        elif node.value is not None:
            faults.append(f"{node.where}: expected a mapping under {key}, not {shown(node.value)}")


def _unknown(key: str, prefix: str, node: Node) -> str:
    """The nearest key of the same section is suggested, or one of that very name elsewhere."""
    import difflib

    siblings = {known[len(prefix) :].partition(".")[0] for known in BY_KEY if known.startswith(prefix)}
    elsewhere = {known.rpartition(".")[2]: known for known in BY_KEY}
    near = difflib.get_close_matches(key[:100], sorted(siblings), 1)
    meant = prefix + near[0] if near else elsewhere.get(key)
    return f"{node.key_where}: unknown key {shown(key)}" + (f"; did you mean {meant}?" if meant else "")


def _read(path: str, name: str, faults: list[str], only_with: bytes = b"") -> bytes | None:
    """The file's bytes; None if there is no such file, it lacks only_with, or it became a fault."""
    try:
        data = _regular_file(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        faults.append(f"{name}:1:1: cannot be read: {getattr(error, 'strerror', None) or error}")
        return None
    if only_with not in data:
        return None
    if len(data) > _SIZE_LIMIT:
        faults.append(f"{name}:1:1: larger than 1 MiB; this is no configuration")
        return None
    return data


def _regular_file(path: str) -> bytes:
    """At most one byte more than the limit. Never waits, as opening a FIFO would."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise ValueError("expected a file, not a folder or a device")
        chunks = []
        left = _SIZE_LIMIT + 1
        while left and (chunk := os.read(descriptor, left)):
            chunks.append(chunk)
            left -= len(chunk)
        return b"".join(chunks)
    finally:
        os.close(descriptor)


def _decoded(data: bytes, name: str, faults: list[str]) -> str | None:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        faults.append(f"{name}:1:1: is UTF-16; save it as UTF-8")
        return None
    try:
        text = data.decode("utf-8")
        bad, what = text.find("\0"), "a NUL byte; is this UTF-16 or a binary file?"
    except UnicodeDecodeError as error:
        text = data[: error.start].decode("utf-8")
        bad, what = len(text), "not UTF-8"
    if bad >= 0:
        line_start = text.rfind("\n", 0, bad) + 1
        faults.append(f"{name}:{text.count(chr(10), 0, bad) + 1}:{bad - line_start + 1}: {what}")
        return None
    return text.removeprefix("\ufeff")


def _config(values: dict[str, Any], origins: dict[str, str]) -> Config:
    return Config(
        project=values["project"] or "default",
        backend=values["backend"],
        runtime=values["runtime"],
        dirty=values["dirty"],
        resources=Resources(
            gpus=values["resources.gpus"],
            cpus=values["resources.cpus"],
            memory_bytes=values["resources.memory"],
            nodes=values["resources.nodes"],
            procs_per_node=values["resources.procs_per_node"],
        ),
        image=Image(
            base=values["image.base"],
            system=values["image.system"],
            reference=values["image.reference"],
            dockerfile=values["image.dockerfile"],
            dependencies=values["image.dependencies"],
            registry=values["image.registry"],
        ),
        container=Container(
            network=values["container.network"],
            mounts=values["container.mounts"],
            shm_size_bytes=values["container.shm_size"],
        ),
        python=values["python"],
        env=values["env"],
        data=values["data"],
        output=values["output"],
        resume_args=values["resume_args"],
        weights_args=values["weights_args"],
        c_layer=values["c_layer"],
        nodes=values["nodes"],
        ssh=Ssh(values["ssh.known_hosts"], values["ssh.config"], values["ssh.lease"]),
        keep_s=values["keep"],
        server=values["server"],
        ray=Ray(values["ray.address"]),
        origins=MappingProxyType(origins),
    )
