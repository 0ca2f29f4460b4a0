"""Code is brought to a node, also while somebody tidies up there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mllaunch.errors import NotFound
from mllaunch.schedulers.ssh import code
from mllaunch_agent.codewatch import Listed, blob_id_of

CONTENT = {"a.py": b"a\n", "b.py": b"b\n"}


class Node:
    """One where contents vanish between the question what is lacking and the making of the tree."""

    def __init__(self, vanish: list[str]) -> None:
        self.has: set[str] = set()
        self.sent: list[str] = []
        self._vanish = vanish

    def call(self, name: str, content: bytes | None = None, **given: Any) -> Any:
        if name == "tree":
            return {"path": "/tree", "is_there": False}
        every = {blob_id_of(data) for data in CONTENT.values()}
        if name == "lacking":
            return sorted(every - self.has)
        if name == "keep":
            blobs = [blob for blob, _ in given["sizes"]]
            self.sent += blobs
            self.has.update(blobs)
        if name == "make":
            if self._vanish:
                self.has.discard(self._vanish.pop())
            if self.has != every:
                raise NotFound("not_found", "a content has gone")
        return None

    call_patiently = call


def bring(node: Node, folder: Path) -> str:
    for name, data in CONTENT.items():
        (folder / name).write_bytes(data)
    listed = {name: Listed("100644", blob_id_of(data)) for name, data in CONTENT.items()}
    calls: Any = node
    return code.bring(calls, str(folder), listed)


def test_a_content_that_vanishes_is_sent_again(tmp_path: Path) -> None:
    gone = blob_id_of(b"a\n")
    node = Node([gone])
    assert bring(node, tmp_path) == "/tree"
    assert sorted(node.sent) == sorted([gone, gone, blob_id_of(b"b\n")])


def test_a_node_that_never_has_what_was_sent_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        bring(Node([blob_id_of(b"a\n")] * 9), tmp_path)
