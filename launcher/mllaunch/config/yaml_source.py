"""mllaunch.yaml into a tree of nodes, read as YAML 1.2 (core schema), with every fault's position."""

from __future__ import annotations

from typing import Any

from mllaunch.config.tree import Node, core_scalar
from mllaunch.config.units import shown

_DEPTH_LIMIT = 20  # the configuration itself nests three deep
_VALUE_LIMIT = 10_000  # with aliases expanded; an honest file has under a hundred
_CORE_TAG = "tag:yaml.org,2002:"


class _Stop(Exception):
    """The rest of the file cannot be read."""


def parse_yaml(text: str, name: str, faults: list[str]) -> Node | None:
    """The document's only value, or None if there is none. Faults read ``name:line:column: ...``."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    builder = _Builder(name, faults)
    try:
        # Events, not yaml.compose, which recurses in C: depth and the expansion of aliases are ours to bound.
        for event in yaml.parse(text, Loader=loader):
            builder.take(event)
    except _Stop:
        return None
    except yaml.reader.ReaderError as error:
        faults.append(f"{name}:{position(text, error.position)}: a character that YAML does not allow")
        return None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{mark.line + 1}:{mark.column + 1}" if mark else "1:1"
        said = ", ".join(part for part in (error.context, error.problem) if part)
        faults.append(f"{name}:{place}: not valid YAML: {said}")
        return None
    return builder.root


def position(text: str, index: int) -> str:
    """``line:column``, both from 1, of a character of the text."""
    before = text[:index]
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


class _Open:
    """A collection whose end has not come yet."""

    def __init__(self, node: Node, anchor: str | None) -> None:
        self.node = node
        self.anchor = anchor
        self.key: Node | None = None
        self.size = 1


class _Builder:
    """Turns parser events into nodes."""

    def __init__(self, name: str, faults: list[str]) -> None:
        self.root: Node | None = None
        self._name = name
        self._faults = faults
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._unfinished: set[str] = set()
        self._documents = 0
        self._values = 0

    def take(self, event: Any) -> None:
        handler = getattr(self, "_" + type(event).__name__, None)
        if handler is not None:
            handler(event)

    def _DocumentStartEvent(self, event: Any) -> None:
        self._documents += 1
        if self._documents > 1:
            self._stop(event, "a second document; one file holds one configuration")

    def _ScalarEvent(self, event: Any) -> None:
        self._count(event, 1)
        self._add(Node(self._scalar(event), self._place(event)), event.anchor, 1)

    def _SequenceStartEvent(self, event: Any) -> None:
        self._start(event, [], "seq")

    def _MappingStartEvent(self, event: Any) -> None:
        self._start(event, {}, "map")

    def _SequenceEndEvent(self, _event: Any) -> None:
        done = self._open.pop()
        if done.anchor:
            self._unfinished.discard(done.anchor)
        self._add(done.node, done.anchor, done.size)

    _MappingEndEvent = _SequenceEndEvent

    def _AliasEvent(self, event: Any) -> None:
        if event.anchor in self._unfinished:
            self._stop(event, f"the alias *{event.anchor} refers to a value that contains it")
        if event.anchor not in self._anchors:
            self._stop(event, f"the alias *{event.anchor} refers to nothing")
        node, size = self._anchors[event.anchor]
        self._count(event, size)
        self._add(node, None, size)

    def _start(self, event: Any, value: object, kind: str) -> None:
        if event.tag not in (None, "!", _CORE_TAG + kind):
            self._refuse_tag(event)
        self._count(event, 1)
        if len(self._open) >= _DEPTH_LIMIT:
            self._stop(event, f"nested more than {_DEPTH_LIMIT} deep")
        if event.anchor:
            self._unfinished.add(event.anchor)
        self._open.append(_Open(Node(value, self._place(event)), event.anchor))

    def _count(self, event: Any, size: int) -> None:
        self._values += size
        if self._values > _VALUE_LIMIT:
            self._stop(event, f"more than {_VALUE_LIMIT} values, with aliases expanded")

    def _add(self, node: Node, anchor: str | None, size: int) -> None:
        if anchor:
            self._anchors[anchor] = (node, size)
        if not self._open:
            self.root = node
            return
        parent = self._open[-1]
        parent.size += size
        content = parent.node.value
        if isinstance(content, list):
            content.append(node)
        elif parent.key is None:
            parent.key = node
        else:
            self._put(content, parent.key, node)
            parent.key = None

    def _put(self, mapping: Any, key: Node, node: Node) -> None:
        if not isinstance(key.value, str):
            self._faults.append(f"{key.where}: a key must be a text, not {shown(key.value)}")
        elif key.value in mapping:
            first = mapping[key.value].key_where
            self._faults.append(f"{key.where}: the key {shown(key.value)} is there already, at {first}")
        else:
            mapping[key.value] = node._replace(key_where=key.where)

    def _scalar(self, event: Any) -> object:
        text = event.value
        if event.tag in ("!", _CORE_TAG + "str") or (event.tag is None and not event.implicit[0]):
            return text
        try:
            value = core_scalar(text)
        except ValueError as error:
            self._faults.append(f"{self._place(event)}: {error}")
            return None
        if event.tag is None:
            return value
        types = {"null": type(None), "bool": bool, "int": int, "float": float}
        wanted = types.get(event.tag[len(_CORE_TAG) :]) if event.tag.startswith(_CORE_TAG) else None
        if wanted is None:
            self._refuse_tag(event)
            return None
        if wanted is float and type(value) is int:
            return float(value)
        if type(value) is not wanted:
            self._faults.append(f"{self._place(event)}: {shown(text)} does not fit its tag")
        return value

    def _refuse_tag(self, event: Any) -> None:
        tag = event.tag.replace(_CORE_TAG, "!!", 1)
        self._faults.append(
            f"{self._place(event)}: the tag {shown(tag)[1:-1]} is refused; a configuration holds plain values"
        )

    def _stop(self, event: Any, message: str) -> None:
        self._faults.append(f"{self._place(event)}: {message}")
        raise _Stop

    def _place(self, event: Any) -> str:
        mark = event.start_mark
        return f"{self._name}:{mark.line + 1}:{mark.column + 1}"
