from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mllaunch.cli.logview import LogView
from mllaunch.ports import StreamRef
from mllaunch.runlog.blobs import FileBlobStore
from tests.conformance.runs import make_run

RUN = make_run(1)
NOW = "2026-11-21T09:00:00.000Z"


class Clock:
    def now(self) -> str:
        return NOW


class App:
    """What the view asks of the application; the rank of each name in nodes is its place there."""

    def __init__(self, folder: Path, *nodes: str) -> None:
        self.blobs = FileBlobStore(str(folder))
        self.clock = Clock()
        self._nodes = nodes

    def node_of_rank(self, run: object, attempt: int, rank: int) -> str:
        return self._nodes[rank]

    def has_come(self, node: str, stream: str, data: bytes) -> None:
        ref = StreamRef(RUN.id, 1, node, stream)
        self.blobs.append(ref, self.blobs.length(ref), data)


def view_of(app: Any, *ranks: int, since_s: float | None = None, as_json: bool = False) -> LogView:
    return LogView(app, RUN, 1, list(ranks), ["stdout"], None, since_s, as_json=as_json)


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


def test_a_line_whose_time_is_not_known_yet_has_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = App(tmp_path, "node1")
    app.has_come("node1", "stdout.0", b"not placed\n")
    view_of(app, 0, as_json=True).show(last=False, silent=["node1"])
    [line] = capsys.readouterr().out.splitlines()
    assert json.loads(line) == {
        "at": None,
        "node": "node1",
        "rank": 0,
        "stream": "stdout",
        "text": "not placed",
    }


def test_what_is_asked_for_by_its_time_waits_for_that(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    app = App(tmp_path, "node1")
    view = view_of(app, 0, since_s=600)
    app.has_come("node1", "stdout.0", b"new\n")
    view.show(last=False, silent=["node1"])
    assert capsys.readouterr().out == ""
    app.has_come("node1", "events", b'{"seq":1,"at":"%s","boot_s":1.0,"kind":"k"}\n' % NOW.encode())
    app.has_come("node1", "marks", b"1000 stdout.0 4\n")
    view.show(last=False)
    assert capsys.readouterr().out == "new\n"
