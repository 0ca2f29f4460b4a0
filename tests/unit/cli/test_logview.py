from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mllaunch.cli.logview import LogView
from mllaunch.ports import StreamRef
from mllaunch.runlog.blobs import FileBlobStore
from tests.conformance.runs import make_run

RUN = make_run(1)


class App:
    """What the view asks of the application; the rank of each name in nodes is its place there."""

    def __init__(self, folder: Path, *nodes: str) -> None:
        self.blobs = FileBlobStore(str(folder))
        self._nodes = nodes

    def node_of_rank(self, run: object, attempt: int, rank: int) -> str:
        return self._nodes[rank]

    def has_come(self, node: str, stream: str, data: bytes) -> None:
        ref = StreamRef(RUN.id, 1, node, stream)
        self.blobs.append(ref, self.blobs.length(ref), data)


def view_of(app: Any, *ranks: int) -> LogView:
    return LogView(app, RUN, 1, list(ranks), ["stdout"], None, None)


def test_while_following_lines_wait_to_be_placed_among_the_others_unless_their_node_is_silent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = App(tmp_path, "node1", "node2")
    view = view_of(app, 0, 1)
    for node, stream in (("node1", "stdout.0"), ("node2", "stdout.1")):
        app.has_come(node, stream, b"placed\nnot placed\nunfini")
        app.has_come(node, "marks", b"10 %s 7\n" % stream.encode())
    view.show(last=False)
    assert capsys.readouterr().out == "[0] placed\n[1] placed\n"
    view.show(last=False, silent=["node2"])
    assert capsys.readouterr().out == "[1] not placed\n"
    app.has_come("node2", "stdout.1", b"shed\n")
    app.has_come("node2", "marks", b"20 stdout.1 18\n30 stdout.1 30\n")
    view.show(last=False)
    assert capsys.readouterr().out == "[1] unfinished\n"
    view.show(last=True)
    assert capsys.readouterr().out == "[0] not placed\n[0] unfini\n"
