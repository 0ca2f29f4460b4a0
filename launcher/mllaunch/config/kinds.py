"""What a configuration value may be: a kind turns a node into a checked value, or says what it expected."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from mllaunch.config.tree import Node
from mllaunch.config.units import (
    format_duration,
    format_memory,
    parse_count,
    parse_duration,
    parse_memory,
    shown,
)
from mllaunch.config.values import NodeAddress

Faults = list[str]


class Kind(NamedTuple):
    """One kind of value.

    expects: for people, in the documentation. read: the checked value; every fault goes to the list, and the
    result is then worthless. literal: a text given by a variable or a flag is the value itself and is not
    interpreted. many: a list. write: a checked value as plain data that read takes back. unit: ends the name
    of the field that holds the value.
    """

    expects: str
    read: Callable[[Node, Faults], Any]
    literal: bool = False
    many: bool = False
    write: Callable[[Any], Any] = lambda value: value
    unit: str = ""


def _scalar(expects: str, parse: Callable[[object], object], *, literal: bool = False) -> Kind:
    def read(node: Node, faults: Faults) -> object:
        try:
            return parse(node.value)
        except ValueError as error:
            faults.append(f"{node.where}: {error}")
            return None

    return Kind(expects, read, literal=literal)


def _list(item: Kind, unique: Callable[[Any], object] | None = None) -> Kind:
    expects = f"list of: {item.expects}"

    def read(node: Node, faults: Faults) -> tuple[Any, ...]:
        if not isinstance(node.value, list):
            faults.append(f"{node.where}: expected a {expects}, not {shown(node.value)}")
            return ()
        before = len(faults)
        items = tuple(item.read(child, faults) for child in node.value)
        if unique and len(faults) == before:
            seen = set()
            for child, value in zip(node.value, items, strict=True):
                if unique(value) in seen:
                    faults.append(f"{child.where}: {shown(unique(value))} is there twice")
                seen.add(unique(value))
        return items

    return Kind(expects, read, many=True)


def count(lowest: int, highest: int) -> Kind:
    expects = f"whole number from {lowest} to {highest}"

    def parse(value: object) -> int:
        if isinstance(value, str):  # a quoted number in a file is a text, and a text is not a number
            raise ValueError(f"expected a {expects}, not the text {shown(value)}")
        return parse_count(value, lowest, highest)

    return _scalar(expects, parse)


def choice(*words: str) -> Kind:
    expects = " | ".join(words)

    def parse(value: object) -> str:
        if isinstance(value, str) and value in words:
            return value
        raise ValueError(f"expected {expects}, not {shown(value)}{nearest(value, words)}")

    return _scalar(expects, parse, literal=True)


def nearest(value: object, words: tuple[str, ...]) -> str:
    """``; did you mean "..."?`` or nothing."""
    import difflib  # only an error pays for it

    found = difflib.get_close_matches(value, words, 1) if isinstance(value, str) and len(value) < 100 else []
    return f'; did you mean "{found[0]}"?' if found else ""


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        quote = "; put it in quotes" if isinstance(value, (bool, int, float)) else ""
        raise ValueError(f"expected a text, not {shown(value)}{quote}")
    if any(character < " " or character == "\x7f" for character in value):
        raise ValueError(f"expected a text without control characters, not {shown(value)}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(
            f"expected a text in UTF-8, not {shown(value)}"
        )  # bytes that a variable or a flag brought
    return value


def _argument(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        quote = "; put it in quotes" if isinstance(value, (bool, int, float)) else ""
        raise ValueError(f"expected a text, not {shown(value)}{quote}")
    return value


def _escapes(path: str) -> bool:
    """Whether a relative path leaves the folder that it is relative to, at any step."""
    depth = 0
    for part in path.split("/"):
        depth += -1 if part == ".." else 1 if part not in ("", ".") else 0
        if depth < 0:
            return True
    return False


def _output(value: object) -> str:
    path = _text(value)
    if path.startswith("/") or _escapes(path):
        raise ValueError(f"expected a folder inside the work folder, relative to it, not {shown(path)}")
    return path


def _variable(value: object) -> tuple[str, str | None]:
    if not isinstance(value, str) or "\0" in value:
        raise ValueError(f'expected NAME or "NAME=VALUE", not {shown(value)}')
    name, given, content = value.partition("=")
    if not (name.isascii() and name.isidentifier()):
        # The value may be a secret, so only the name is shown.
        raise ValueError(
            f'expected NAME or "NAME=VALUE", where a name has letters, digits and _, not {shown(name)}'
        )
    return name, content if given else None


def _mount(value: object) -> tuple[str, str, bool]:
    expects = "expected /PATH or /SOURCE:/TARGET, with :rw where it may be written to"
    text = _text(value)
    path, _, mode = text.rpartition(":")
    path, mode = (path, mode) if mode in ("rw", "ro") else (text, "ro")
    source, colon, target = path.partition(":")
    target = target if colon else source
    if not (source.startswith("/") and target.startswith("/")) or ":" in target:
        raise ValueError(f"{expects}, not {shown(text)}")
    return source, target, mode == "rw"


def _node_name(value: object) -> str:
    """It names folders and streams, and may be a host of the ssh configuration."""
    text = _text(value)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", text):
        raise ValueError(f"expected a name of letters, digits, '.', '_' and '-', not {shown(text)}")
    return text


def _url(value: object) -> str:
    text = _text(value)
    if not text.startswith(("http://", "https://")):
        raise ValueError("expected an address that starts with http:// or https://")
    return text


def _procs(value: object) -> int:
    if value == "auto":
        return 0  # as Resources says it
    if isinstance(value, str):
        raise ValueError(f'expected "auto" or a whole number from 1 to 1024, not {shown(value)}')
    try:
        return parse_count(value, 1, 1024)
    except ValueError as error:
        raise ValueError(str(error).replace("expected", 'expected "auto" or', 1)) from None


def _read_address(node: Node, faults: Faults) -> NodeAddress | None:
    fields = {
        "name": NODE_NAME,
        "host": TEXT,
        "user": TEXT,
        "port": PORT,
        "python": TEXT,
        "groups": NODE_NAMES,
        "labels": LABELS,
    }
    if not isinstance(node.value, dict):
        faults.append(f"{node.where}: expected a mapping with {', '.join(fields)}, not {shown(node.value)}")
        return None
    values = {}
    for key, child in node.value.items():
        if key not in fields:
            said = nearest(key, tuple(fields))
            faults.append(f"{child.key_where or child.where}: unknown key {shown(key)} of a node{said}")
        elif child.value is not None or key == "name":
            values[key] = fields[key].read(child, faults)
    if "name" not in values:
        faults.append(f"{node.where}: a node needs a name")
        return None
    return NodeAddress(**values)


def _read_addresses(node: Node, faults: Faults) -> tuple[NodeAddress, ...]:
    before = len(faults)
    addresses: tuple[NodeAddress, ...] = _ADDRESSES.read(node, faults)
    if len(faults) == before and isinstance(node.value, list):
        names = {address.name for address in addresses}
        written = [child.value["groups"] for child in node.value if "groups" in child.value]
        for group in (child for groups in written for child in groups.value or ()):
            if group.value in names:
                faults.append(
                    f"{group.where}: {shown(group.value)} is the name of a node, so no group can have it"
                )
    return addresses


def _write_address(address: NodeAddress) -> dict[str, Any]:
    fields = {**address._asdict(), "groups": list(address.groups), "labels": dict(address.labels)}
    return {key: value for key, value in fields.items() if value not in (None, [], {})}


def _read_labels(node: Node, faults: Faults) -> tuple[tuple[str, str], ...]:
    if not isinstance(node.value, dict):
        faults.append(f"{node.where}: expected a {LABELS.expects}, not {shown(node.value)}")
        return ()
    return tuple(
        (NODE_NAME.read(Node(name, child.key_where or child.where), faults), TEXT.read(child, faults))
        for name, child in node.value.items()
    )


def _read_checkpoint_args(node: Node, faults: Faults) -> tuple[str, ...]:
    arguments: tuple[str, ...] = ARGUMENTS.read(node, faults)
    if arguments and not any(part is None or "{checkpoint}" in part for part in arguments):
        faults.append(
            f"{node.where}: none of the arguments contains {{checkpoint}}, so the script could not find it"
        )
    return arguments


TEXT = _scalar("text", _text, literal=True)
NODE_NAME = _scalar("name of letters, digits, '.', '_' and '-'", _node_name, literal=True)
TEXTS = _list(TEXT)
URL = _scalar("http:// or https:// address", _url, literal=True)
MEMORY = _scalar('size such as "16GiB", or bytes', parse_memory)._replace(write=format_memory, unit="_bytes")
DURATION = _scalar('duration such as "4h"', parse_duration)._replace(write=format_duration, unit="_s")
OUTPUT = _scalar("folder inside the work folder", _output, literal=True)
DATA = _list(
    _scalar("path", _text)
)  # whether it lies in the repository depends on the work folder: submit knows
VARIABLE = _scalar("NAME or NAME=VALUE", _variable)
VARIABLES = _list(VARIABLE, unique=lambda variable: variable[0])._replace(
    write=lambda pairs: [name if value is None else f"{name}={value}" for name, value in pairs]
)
MOUNTS = _list(
    _scalar("/PATH or /SOURCE:/TARGET, with :rw", _mount, literal=True), unique=lambda mount: mount[1]
)._replace(
    write=lambda mounts: [f"{source}:{target}:{'rw' if rw else 'ro'}" for source, target, rw in mounts]
)
PROCS = _scalar('"auto" or whole number from 1 to 1024', _procs)._replace(
    write=lambda number: number or "auto"
)
PORT = count(1, 65535)
ARGUMENTS = _list(_scalar("text", _argument))
CHECKPOINT_ARGS = Kind("list of arguments, one with {checkpoint}", _read_checkpoint_args, many=True)
NODE_NAMES = _list(NODE_NAME, unique=lambda name: name)
LABELS = Kind("mapping of names to texts", _read_labels)
ADDRESS = Kind("mapping of name, host, user, port, python, groups, labels", _read_address)
_ADDRESSES = _list(ADDRESS, unique=lambda node: node.name)
ADDRESSES = _ADDRESSES._replace(
    read=_read_addresses, write=lambda nodes: [_write_address(node) for node in nodes]
)
