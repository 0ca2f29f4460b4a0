"""Requests to an engine, and what is made of answers that are none."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mllaunch_agent.engine import Engine, EngineError, EngineGone, socket_path
from mllaunch_agent.engine_answer import Frames
from tests.fakes.engine import FakeEngine, answer, chunked, document, endless, frame, refusal

# --- where it listens


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"DOCKER_HOST": "unix:///run/my.sock"}, "/run/my.sock"),
        ({"DOCKER_HOST": "tcp://10.0.0.1:2375"}, None),
        ({"DOCKER_HOST": "ssh://somewhere"}, None),
    ],
)
def test_docker_host_names_the_engine(environ: dict[str, str], path: str | None) -> None:
    assert socket_path(environ) == path


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ([], "/var/run/docker.sock"),
        (["/run/podman/podman.sock"], "/run/podman/podman.sock"),
        (["{private}/podman/podman.sock", "/run/podman/podman.sock"], "{private}/podman/podman.sock"),
        (["{private}/docker.sock", "{private}/podman/podman.sock"], "{private}/docker.sock"),
        (["/var/run/docker.sock", "{private}/docker.sock"], "/var/run/docker.sock"),
    ],
)
@pytest.mark.parametrize("environ", [{}, {"XDG_RUNTIME_DIR": "/run/me"}, {"DOCKER_HOST": ""}])
def test_without_it_the_first_engine_that_is_there_is_taken(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], there: list[str], found: str
) -> None:
    private = environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}"
    places = [path.format(private=private) for path in there]
    monkeypatch.setattr(os.path, "exists", lambda path: path in places)
    assert socket_path(environ) == found.format(private=private)


# --- what is asked


def test_a_request_says_what_it_sends(fake: FakeEngine) -> None:
    fake.tell("POST", "/containers/create", document({"Id": "c1"}, 201))
    assert Engine(fake.path).create("a name/ü", {"Image": "x"}) == "c1"
    request = fake.requests[0]
    assert request.target == "/containers/create?name=a%20name/%C3%BC"
    assert json.loads(request.body) == {"Image": "x"}
    assert "Content-Type: application/json" in request.head


def test_containers_are_found_by_their_labels(fake: FakeEngine) -> None:
    fake.tell("GET", "/containers/json", document([{"Id": "c1"}]))
    assert Engine(fake.path).containers(["a", "b=c"]) == [{"Id": "c1"}]
    assert fake.requests[0].target == "/containers/json?all=1&filters=" + (
        "%7B%22label%22:%20%5B%22a%22%2C%20%22b%3Dc%22%5D%7D"
    )


def test_credentials_go_to_a_pull_and_its_progress_is_read_to_the_end(fake: FakeEngine) -> None:
    fake.tell("POST", "/images/create", endless(b'{"status":"Pulling"}\r\n{"status":"Done"}\r\n'))
    Engine(fake.path).pull("r.io:5000/a/b@sha256:12", "c2VjcmV0")
    assert fake.requests[0].target == "/images/create?fromImage=r.io:5000/a/b@sha256:12"
    assert "X-Registry-Auth: c2VjcmV0" in fake.requests[0].head


def test_an_error_after_the_promise_of_success_is_one(fake: FakeEngine) -> None:
    fake.tell("POST", "/images/create", endless(b'{"status":"Pulling"}\n{"error":"no\\nspace"}\n'))
    with pytest.raises(EngineError, match="no space"):
        Engine(fake.path).pull("a")


def test_an_image_is_loaded_in_parts(fake: FakeEngine) -> None:
    fake.tell("POST", "/images/load", endless(b'{"stream":"Loaded image: a\\n"}\n'))
    assert Engine(fake.path).load([b"ab", b"c"], 3) == "Loaded image: a"
    assert fake.requests[0].body == b"abc"
    assert "Content-Type: application/x-tar" in fake.requests[0].head


def test_what_is_not_there_is_none(fake: FakeEngine) -> None:
    engine = Engine(fake.path)
    assert engine.inspect("c") is engine.image("i") is engine.stat("c", "/bin/sh") is None


def test_a_file_of_a_container_is_described(fake: FakeEngine) -> None:
    info = {"name": "sh", "size": 4, "mode": 511, "linkTarget": "/bin/busybox"}
    header = base64.b64encode(json.dumps(info).encode()).decode()
    # To HEAD, a length without a body.
    fake.tell("HEAD", "/containers/c/archive", answer(X_Docker_Container_Path_Stat=header))
    assert Engine(fake.path).stat("c", "/bin/sh") == info


def test_no_changes_are_an_empty_list(fake: FakeEngine) -> None:
    fake.tell("GET", "/containers/c/changes", document(None))
    assert Engine(fake.path).changes("c") == []


@pytest.mark.parametrize("status", [404, 409])
def test_to_end_what_has_ended_is_harmless(fake: FakeEngine, status: int) -> None:
    fake.tell("POST", "/containers/c/kill", refusal(status, "is not running"))
    fake.tell("DELETE", "/containers/c", refusal(status, "removal is in progress"))
    Engine(fake.path).kill("c", "15")
    Engine(fake.path).remove("c")
    assert fake.asked("DELETE") == ["/containers/c?force=1&v=1"]


@pytest.mark.parametrize("status", [204, 304])
def test_a_start_is_answered_without_a_word(fake: FakeEngine, status: int) -> None:
    fake.tell("POST", "/containers/c/start", answer(status=status))
    Engine(fake.path).start("c")
    assert fake.asked("POST") == ["/containers/c/start"]


# --- refusals


@pytest.mark.parametrize(
    ("reply", "status", "message"),
    [
        (refusal(404, "No such\n image: a"), 404, "No such image: a"),
        (refusal(409, "name in use"), 409, "name in use"),
        (refusal(500, "cannot"), 500, "cannot"),
        (answer(b"<h1>Bad\nGateway</h1>", 502), 502, "<h1>Bad Gateway</h1>"),
        (document(["x"], 500), 500, '["x"]'),
        (document({"cause": "x"}, 500), 500, '{"cause": "x"}'),
        (answer(status=503), 503, "HTTP status 503"),
        (answer(b"\xff\xfe", 500), 500, "\N{REPLACEMENT CHARACTER}" * 2),
    ],
)
def test_a_refusal_is_told_in_the_engines_own_words(
    fake: FakeEngine, reply: bytes, status: int, message: str
) -> None:
    fake.tell("POST", "/containers/create", reply)
    with pytest.raises(EngineError) as caught:
        Engine(fake.path).create("a", {})
    assert (caught.value.status, caught.value.message) == (status, message)


def test_a_stream_may_be_refused_too(fake: FakeEngine) -> None:
    fake.tell("GET", "/containers/c/logs", refusal(500, "no such log driver"))
    with pytest.raises(EngineError, match="no such log driver"):
        Engine(fake.path).output("c")


# --- engines that go


def test_an_engine_that_is_not_there_has_gone(tmp_path: Path) -> None:
    with pytest.raises(EngineGone, match="No such file"):
        Engine(str(tmp_path / "no.sock")).version()


def test_an_engine_that_does_not_listen_has_gone() -> None:
    with FakeEngine() as closed:
        path = closed.path + "2"
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.bind(path)
            with pytest.raises(EngineGone, match="refused"):
                Engine(path).version()


INFO = document({"Version": "28.2.2", "Arch": "amd64"})
CALLS: list[tuple[str, str, Callable[[Engine], Any]]] = [
    ("GET", "/version", lambda engine: engine.version()),
    ("POST", "/containers/create", lambda engine: engine.create("a", {})),
    ("GET", "/containers/c/json", lambda engine: engine.inspect("c")),
    ("GET", "/containers/c/changes", lambda engine: engine.changes("c")),
    ("POST", "/containers/c/start", lambda engine: engine.start("c")),
]


@pytest.mark.parametrize("size", range(len(INFO)))
def test_an_answer_with_a_length_is_torn_wherever_it_ends_before(fake: FakeEngine, size: int) -> None:
    fake.tell("GET", "/version", INFO[:size])
    with pytest.raises(EngineGone):
        Engine(fake.path).version()


@pytest.mark.parametrize(("method", "path", "call"), CALLS, ids=[path for _, path, _ in CALLS])
@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 yes\r\n\r\n",
        endless(b""),  # torn where the body should begin, and no length that would tell
        endless(b'{"Id": '),
        endless(b"<html>"),
    ],
)
def test_what_is_no_answer_is_an_engine_that_has_gone(
    fake: FakeEngine, method: str, path: str, call: Callable[[Engine], Any], reply: bytes
) -> None:
    fake.tell(method, path, reply)
    with pytest.raises(EngineGone):
        call(Engine(fake.path))


def test_a_body_may_be_read_in_parts_and_is_still_missed_where_it_is_short(fake: FakeEngine) -> None:
    fake.tell("GET", "/containers/c/archive", answer(b"x" * 100)[:-1])
    with Engine(fake.path).archive("c", "/a") as found:
        assert [found.read(60), found.read(39)] == [b"x" * 60, b"x" * 39]
        with pytest.raises(EngineGone):
            found.read(1)


def test_a_head_without_an_end_is_none(fake: FakeEngine) -> None:
    fake.tell("GET", "/version", b"HTTP/1.1 200 OK\r\n" + b"X-A: %s\r\n" % (b"a" * 1000) * 100)
    with pytest.raises(EngineGone):
        Engine(fake.path).version()


def test_a_progress_that_is_torn_within_a_line_is_an_engine_that_has_gone(fake: FakeEngine) -> None:
    fake.tell("POST", "/images/create", endless(b'{"status":"Pulling"}\n{"sta'))
    with pytest.raises(EngineGone):
        Engine(fake.path).pull("a")


def test_a_file_that_is_not_described_is_no_answer(fake: FakeEngine) -> None:
    fake.tell("HEAD", "/containers/c/archive", answer())
    with pytest.raises(EngineGone):
        Engine(fake.path).stat("c", "/bin/sh")


# --- what is polled


def drained(engine: Engine) -> tuple[bytes, bool]:
    with engine.output("c") as found:
        data = b"".join(iter(found.drain, b""))
        return b"".join(piece for _, piece in Frames().feed(data)), found.is_whole()


def test_output_comes_in_chunks_of_which_the_last_one_tells_the_end(fake: FakeEngine) -> None:
    fake.tell("GET", "/containers/c/logs", chunked(frame(1, b"one\n"), frame(2, b"two\n")))
    assert drained(Engine(fake.path)) == (b"one\ntwo\n", True)
    assert fake.requests[0].target == "/containers/c/logs?follow=1&stdout=1&stderr=1"


@pytest.mark.parametrize(
    ("reply", "whole"),
    [
        (chunked(frame(1, b"one\n"), whole=False), False),
        (chunked(frame(1, b"one\n"))[:-1], True),  # all but the end of its own end
        (chunked(frame(1, b"one\n"))[:-5], False),
        (chunked(frame(1, b"one\n"))[:-6], False),
        (answer(frame(1, b"one\n")), True),
        (answer(frame(1, b"one\n") + b"more")[:-4], False),
    ],
)
def test_output_that_was_cut_short_is_not_whole(fake: FakeEngine, reply: bytes, whole: bool) -> None:
    fake.tell("GET", "/containers/c/logs", reply)
    assert drained(Engine(fake.path)) == (b"one\n", whole)


def test_output_that_makes_no_sense_is_not_whole(fake: FakeEngine) -> None:
    head = chunked(whole=False)
    fake.tell("GET", "/containers/c/logs", head + b"zz\r\n")
    assert drained(Engine(fake.path)) == (b"", False)


def test_whoever_waits_for_the_end_of_a_container_need_not_wait_for_the_answer(fake: FakeEngine) -> None:
    fake.tell("POST", "/containers/c/wait", chunked(b'{"StatusCode":3}'))
    with Engine(fake.path).waiting("c") as waiting:
        assert b"".join(iter(waiting.drain, b"")).endswith(b"0\r\n\r\n")


def test_an_exit_code_is_waited_for(fake: FakeEngine) -> None:
    fake.tell("POST", "/containers/c/wait", document({"StatusCode": 3}))
    assert Engine(fake.path).wait("c", 5.0) == 3


@pytest.mark.parametrize(
    ("events", "killed"),
    [
        (b"", False),
        (b'{"Action":"kill","Actor":{"Attributes":{"signal":"15"}}}\n', True),
        (b'{"Action":"kill","Actor":{"Attributes":{"signal":"SIGKILL"}}}\n', True),
        (b'{"Action":"kill","Actor":{"Attributes":{"signal":"10"}}}\n', False),
    ],
)
def test_the_engine_remembers_whether_it_killed(fake: FakeEngine, events: bytes, killed: bool) -> None:
    fake.tell("GET", "/events", endless(events))
    assert Engine(fake.path).was_killed("c") is killed
