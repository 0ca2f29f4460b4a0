"""A checkpoint from one node to another: over stand-ins for the calls, with the node's own keeping at the other end."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, cast

import pytest

from mllaunch.errors import MllaunchError, Unreachable
from mllaunch.schedulers.ssh import checkpoints
from mllaunch.schedulers.ssh.calls import Calls
from mllaunch.schedulers.ssh.checkpoints import Original
from mllaunch_agent.calls import Calls as Served
from mllaunch_agent.calls import Data


class Node:
    """What would be asked of a node is asked of the code that answers there. fails_at: the call that finds no link,
    counted from 1."""

    def __init__(self, home: Path, fails_at: int | None = None) -> None:
        home.mkdir(exist_ok=True)
        self._served = Served(str(home))
        self._fails_at = fails_at
        self.asked: list[str] = []

    def call(self, name: str, content: bytes | None = None, /, **given: Any) -> Any:
        self.asked.append(name)
        if len(self.asked) == self._fails_at:
            raise Unreachable("unreachable", "b cannot be reached")
        if content is not None:
            given["content"] = content
        return getattr(self._served, "do_" + name)(**given)

    call_patiently = call

    def fetch(self, name: str, /, **given: Any) -> bytes:
        found: Data = self.call(name, **given)
        return found.content


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "_PART_BYTES", 4)


def original(tmp_path: Path, content: bytes) -> tuple[Original, str]:
    place = tmp_path / "source.pt"
    place.write_bytes(content)
    return Original(str(place), [[1]], [("", len(content))]), hashlib.sha256(content).hexdigest()


def bring(source: Node, found: Original, sha256: str, target: Node) -> tuple[Path, list[int]]:
    came: list[int] = []
    copy = checkpoints.bring(cast(Calls, source), found, sha256, "m.pt", cast(Calls, target), came.append)
    return Path(copy.place), came


@pytest.mark.parametrize("content", [b"", b"abc", b"abcd", b"0123456789"])
def test_it_comes_whole_and_only_once(tmp_path: Path, content: bytes) -> None:
    source, target = Node(tmp_path / "a"), Node(tmp_path / "b")
    found, sha256 = original(tmp_path, content)
    place, came = bring(source, found, sha256, target)
    assert place.read_bytes() == content and sum(came) == len(content)
    before = list(source.asked)
    assert bring(source, found, sha256, target) == (place, [])
    assert source.asked == before


def test_what_came_before_the_link_was_cut_is_not_sent_again(tmp_path: Path) -> None:
    found, sha256 = original(tmp_path, b"0123456789")
    with pytest.raises(Unreachable):
        bring(Node(tmp_path / "a"), found, sha256, Node(tmp_path / "b", fails_at=4))  # its second part
    source = Node(tmp_path / "a")
    place, came = bring(source, found, sha256, Node(tmp_path / "b"))
    assert place.read_bytes() == b"0123456789"
    assert came == [4, 4, 2] and source.asked == ["read_checkpoint"] * 2


def test_one_that_has_changed_meanwhile_is_not_kept(tmp_path: Path) -> None:
    found, sha256 = original(tmp_path, b"0123456789")
    Path(found.place).write_bytes(b"01234")
    with pytest.raises(Exception, match="damaged on its way"):
        bring(Node(tmp_path / "a"), found, sha256, Node(tmp_path / "b"))
    assert Node(tmp_path / "b").call("find_checkpoint", sha256=sha256, name="m.pt") is None


def test_what_is_wrong_with_it_is_said_in_words(tmp_path: Path) -> None:
    node = cast(Calls, Node(tmp_path / "a"))
    run = "01a1fda8-4fdf-7b40-87d1-8265aab3f1cc"
    said = checkpoints.examine(node, run, 1, "m.pt", "0" * 64, 10)
    assert said == "it is not there any more"
    assert not issubclass(type(said), MllaunchError)
