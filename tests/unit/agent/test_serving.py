"""An agent that answers calls at the other end of a pipe."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mllaunch_agent import PROTOCOL_VERSION, calls, codekeeping, codewatch, engine, serving
from mllaunch_agent.codekeeping import key_of
from mllaunch_agent.codewatch import Listed, blob_id_of

RUN = "01a1fda8-4fdf-7b40-87d1-8265aab3f1cc"
HOSTILE = ["../../etc", "/etc", "..", ".", "", "a/b", "-x", "a\0b", "a\n", "x" * 65]


@pytest.fixture(autouse=True)
def _no_alarm() -> Iterator[None]:
    """The end of a served pipe is the end of its process, but not here."""
    yield
    signal.alarm(0)


class Node:
    def __init__(self, home: Path) -> None:
        self.home = home

    def serve(self, data: bytes) -> list[tuple[dict[str, Any], bytes]]:
        """The answers, each with its bytes, until the agent ends."""
        said = io.BytesIO()
        serving.serve(str(self.home), io.BytesIO(data), said)
        said.seek(0)
        answers = []
        while line := said.readline():
            answer = json.loads(line)
            answers.append((answer, said.read(answer.get("bytes", 0))))
        return answers

    def ask(self, name: str, content: bytes | None = None, **given: Any) -> Any:
        ((answer, _),) = self.serve(call(name, content, **given))
        return answer

    def attempt(self, **streams: bytes) -> Path:
        folder = self.home / "runs" / RUN / "1"
        (folder / "streams").mkdir(parents=True)
        for name, data in streams.items():
            (folder / "streams" / name).write_bytes(data)
        return folder


def call(name: str, content: bytes | None = None, /, **given: Any) -> bytes:
    asked: dict[str, Any] = {"call": name, "with": given}
    if content is not None:
        asked.update(bytes=len(content), takes_bytes=True)
    return json.dumps(asked).encode() + b"\n" + (content or b"")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "home")


def test_hello_says_who_answers(node: Node) -> None:
    hello = node.ask("hello")["value"]
    assert hello["protocol"] == PROTOCOL_VERSION
    assert hello["hostname"] == os.uname().nodename
    assert hello["home"] == str(node.home)
    assert node.home.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", ["nonsense", "", "_supervise", "__init__", 3, None])
def test_an_unknown_call_is_answered_and_does_not_end_it(node: Node, name: Any) -> None:
    (answer, _), (hello, _) = node.serve(call(name) + call("hello"))
    assert answer["error"] == "internal"
    assert "value" in hello


def test_bytes_go_both_ways(node: Node) -> None:
    text = codewatch.format_tree({"a": Listed("100644", blob_id_of(b"\n{}\0")), "b": Listed("100644", "00")})
    kept = call("keep", b"\n{}\0", sizes=[[blob_id_of(b"\n{}\0"), 4]])
    (none, _), (lacking, _) = node.serve(kept + call("lacking", text))
    assert none == {"value": None}
    assert lacking == {"value": ["00"]}
    node.attempt(events=b'{"seq": 1}\n{"torn')
    read = call("read", run_id=RUN, number=1, stream="events", offset=0, limit=100)
    (first, data), (again, rest) = node.serve(read + read.replace(b'"offset": 0', b'"offset": 3'))
    assert (first, data) == ({"value": None, "bytes": 11}, b'{"seq": 1}\n')
    assert (again["bytes"], rest) == (8, b'eq": 1}\n')


def test_no_bytes_are_bytes_too(node: Node) -> None:
    assert node.ask("lacking", b"") == {"value": []}
    assert node.ask("keep", b"", sizes=[[blob_id_of(b""), 0]]) == {"value": None}
    assert (node.home / "contents").exists()


def test_code_that_is_sent_is_there_afterwards(node: Node) -> None:
    text = codewatch.format_tree(
        {"a": Listed("100644", blob_id_of(b"one")), "b": Listed("100644", blob_id_of(b"two"))}
    )
    key = key_of(text)
    assert not node.ask("tree", key=key)["value"]["is_there"]
    node.ask("keep", b"one", sizes=[[blob_id_of(b"one"), 3]])
    node.ask("keep_part", b"tw", blob=blob_id_of(b"two"), offset=0)
    node.ask("keep_part", b"o", blob=blob_id_of(b"two"), offset=2)
    node.ask("keep_whole", blob=blob_id_of(b"two"))
    assert node.ask("make", text, key=key) == {"value": None}
    there = node.ask("tree", key=key)["value"]
    assert there["is_there"]
    assert (Path(there["path"]) / "b").read_bytes() == b"two"


def test_errors_become_answers(node: Node) -> None:
    assert node.ask("keep", b"x", sizes=[["00", 1]])["error"] == "damaged"
    gone = node.ask("read_output", run_id=RUN, number=1, path="x", offset=0, limit=1)
    assert gone == {"error": "not_found", "message": "nothing is left of attempt 1"}
    (node.home / "trees").write_bytes(b"")
    refused = node.ask("make", b"", key=key_of(b""))
    assert refused["error"] == "os"
    assert str(node.home / "trees") in refused["message"]
    wrong = node.ask("look", nonsense=1)
    assert wrong["error"] == "internal"
    assert wrong["message"].startswith("TypeError: ")


def test_a_full_disk_has_its_own_word(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(*_: Any) -> None:
        raise OSError(28, "No space left on device", "/somewhere")

    monkeypatch.setattr(codekeeping.CodeKeeping, "keep", keep)
    answer = node.ask("keep", b"x", sizes=[["00", 1]])
    assert answer == {"error": "disk_full", "message": "/somewhere: No space left on device"}


@pytest.mark.parametrize(
    "torn", [b"", b'{"call": "hel', call("hello")[:-1], call("lacking", b"whole")[:-1], b'{"bytes": -1}\n']
)
def test_a_torn_call_is_the_end(node: Node, torn: bytes) -> None:
    assert len(node.serve(call("hello") + torn)) == 1


def test_more_bytes_than_anybody_needs_are_not_read(node: Node) -> None:
    assert node.serve(b'{"call": "lacking", "bytes": 99999999999}\n' + b"x" * 100) == []


@pytest.mark.parametrize("run_id", HOSTILE)
@pytest.mark.parametrize("name", ["look", "discard", "release_streams", "abandon", "revive", "outputs"])
def test_a_run_id_that_leads_elsewhere_is_refused(node: Node, name: str, run_id: str) -> None:
    answer = node.ask(name, run_id=run_id, number=1)
    assert answer["error"] == "internal"
    assert "not a run" in answer["message"]
    assert list(node.home.rglob("*")) == []


def test_a_specification_whose_run_id_leads_elsewhere_is_refused(node: Node) -> None:
    spec = {"run_id": "../../x", "attempt": 1, "environment": {}}
    assert "not a run" in node.ask("start", spec=spec)["message"]


@pytest.mark.parametrize("stream", ["../spec.json", "/etc/passwd", ".", "a\0b"])
def test_a_stream_that_leads_elsewhere_is_refused(node: Node, stream: str) -> None:
    node.attempt(events=b"")
    answer = node.ask("read", run_id=RUN, number=1, stream=stream, offset=0, limit=10)
    assert "not a stream" in answer["message"]


@pytest.mark.parametrize("path", ["../spec.json", "/etc/passwd", "link", "link/passwd", "folder", ""])
def test_an_output_that_leads_elsewhere_is_refused(node: Node, path: str) -> None:
    work = node.attempt() / "work"
    (work / "folder").mkdir(parents=True)
    (work / "link").symlink_to("/etc")
    answer = node.ask("read_output", run_id=RUN, number=1, path=path, offset=0, limit=10)
    assert answer["error"] in ("os", "not_found")


def test_an_output_is_read_in_parts(node: Node) -> None:
    work = node.attempt() / "work"
    work.mkdir()
    (work / "model.bin").write_bytes(b"0123456789")
    where: dict[str, Any] = {"run_id": RUN, "number": 1, "path": "model.bin"}
    assert node.ask("stat_output", **where)["value"]["size_bytes"] == 10
    ((answer, data),) = node.serve(call("read_output", **where, offset=4, limit=3))
    assert (answer["bytes"], data) == (3, b"456")


def test_an_attempt_that_is_not_here_has_no_view_and_no_bytes(node: Node) -> None:
    assert node.ask("look", run_id=RUN, number=1) == {"value": None}
    assert node.ask("held", attempts=[[RUN, 1]]) == {"value": [None]}
    assert node.ask("kept") == {"value": []}
    read = node.ask("read", run_id=RUN, number=1, stream="events", offset=0, limit=10)
    assert read == {"value": None, "bytes": 0}


def test_a_stop_is_left_for_the_agent_of_the_attempt(node: Node) -> None:
    folder = node.attempt()
    request = {"by": "ann", "at": "2026-01-01T00:00:00.000Z", "now": False}
    assert node.ask("stop", run_id=RUN, number=1, request=request) == {"value": True}
    assert json.loads((folder / "stop.json").read_text()) == request


def test_an_attempt_that_was_abandoned_cannot_begin(node: Node) -> None:
    assert node.ask("abandon", run_id=RUN, number=1) == {"value": True}
    assert (node.home / "runs" / RUN / "1" / "fenced").exists()


def test_one_that_has_begun_cannot_be_abandoned(node: Node) -> None:
    (node.attempt() / "spec.json").write_text("{}")
    assert node.ask("abandon", run_id=RUN, number=1) == {"value": False}


def test_where_an_attempt_listens_is_told(node: Node) -> None:
    there = {"port": 4711, "addresses": ["10.0.0.1"]}
    folder = node.attempt()
    (folder / "meeting.json").write_text(json.dumps(there))
    (folder / "spec.json").write_text(json.dumps({"meeting": {"token": "5e"}}))
    assert node.ask("meeting", run_id=RUN, number=1) == {"value": {**there, "token": "5e"}}


def test_a_first_agent_that_does_not_listen_in_time_is_missed(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_MEETING_S", -1.0)
    assert node.ask("meeting", run_id=RUN, number=1)["error"] == "not_found"


def test_a_task_finds_the_environment_of_the_session_without_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.9 50000 10.0.0.1 22")
    monkeypatch.setenv("MLLAUNCH_AGENT", "1")
    monkeypatch.setenv("CUDA_HOME", "/opt/cuda")
    found = calls.environment()
    assert found["CUDA_HOME"] == "/opt/cuda"
    assert not {"SSH_CONNECTION", "MLLAUNCH_AGENT"} & set(found)
    assert calls._reached() == "10.0.0.1"


def test_a_checkpoint_is_read_whole_before_it_is_said_to_be_one(node: Node) -> None:
    work = node.attempt() / "work"
    work.mkdir()
    (work / "m.pt").write_bytes(b"0123456789")
    digest = hashlib.sha256(b"0123456789").hexdigest()
    given: dict[str, Any] = {"run_id": RUN, "number": 1, "path": "m.pt", "sha256": digest}
    found = node.ask("examine_checkpoint", **given, size_bytes=10)["value"]
    assert (found["problem"], found["place"], found["files"]) == (None, str(work / "m.pt"), [["", 10]])
    ((_, data),) = node.serve(call("read_checkpoint", place=found["place"], name="", offset=3, limit=4))
    assert data == b"3456"
    short = node.ask("examine_checkpoint", **given, size_bytes=11)["value"]
    assert short == {"problem": "10 bytes are there of 11"}
    other = node.ask("examine_checkpoint", **{**given, "sha256": "0" * 64}, size_bytes=10)["value"]
    assert other == {"problem": "its bytes are not those that the run wrote"}
    gone = node.ask("examine_checkpoint", **{**given, "path": "n.pt"}, size_bytes=10)["value"]
    assert gone == {"problem": "it is not there any more"}


def test_an_engine_that_may_not_be_used_is_told_apart_from_none(
    node: Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/engine.sock")
    none = node.ask("engine")["value"]
    assert none["problem"] == f"none answers at {tmp_path}/engine.sock"
    assert (none["version"], none["is_denied"]) == (None, False)

    def denied(self: engine.Engine) -> Any:
        raise engine.EngineGone("permission denied") from PermissionError(13, "permission denied")

    (tmp_path / "engine.sock").touch()
    monkeypatch.setattr(engine.Engine, "version", denied)
    found = node.ask("engine")["value"]
    assert (found["problem"], found["is_denied"]) == (f"you may not use it ({tmp_path}/engine.sock)", True)


def test_time_that_a_call_takes_is_not_time_without_one(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    left = []
    monkeypatch.setattr(calls.Calls, "do_kept", lambda self: left.append(signal.alarm(0)))
    node.ask("kept")
    assert left == [0]  # no alarm was set meanwhile


def test_code_stays_from_the_look_for_a_tree_until_an_attempt_has_it(node: Node) -> None:
    key = "0" * 64
    served = calls.Calls(str(node.home))
    node.home.mkdir()
    served.do_tree(key)
    assert calls.Calls(str(node.home)).do_sweep(0, False) is None
    assert node.ask("unused", for_s=0)["value"]["size_bytes"] == 0
    served._code.let_go()  # as the start of an attempt does
    assert node.ask("sweep", for_s=0, seldom=False)["value"]["trees"] == 0


def test_what_was_written_can_be_had_when_the_streams_have_been_freed(node: Node) -> None:
    folder = node.attempt(events=b"")
    (folder / "work").mkdir()
    (folder / "work/a.pt").write_bytes(b"weights")
    (folder / "spec.json").write_text("{}")
    (folder / "seal.json").write_text("{}")
    (folder / "streams/events").unlink()
    (folder / "streams").rmdir()
    (folder / "spec.json").write_text(json.dumps({"in_place": None}))
    assert node.ask("stat_output", run_id=RUN, number=1, path="a.pt")["value"]["size_bytes"] == 7
    assert node.ask("held", attempts=[[RUN, 1], [RUN, 2]])["value"][1] is None


def test_what_is_missing_of_data_is_told_and_a_link_that_leads_nowhere_is_missing(
    node: Node, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    (tmp_path / "dangling").symlink_to("gone")
    paths = [str(tmp_path / name) for name in ("data", "dangling", "link", "gone")]
    assert node.ask("missing", paths=paths)["value"] == [paths[1], paths[3]]
