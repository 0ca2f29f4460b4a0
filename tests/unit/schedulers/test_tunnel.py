"""A socket on a node that is one here, too: over a stand-in for SSH that runs commands on this machine."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from mllaunch.schedulers.ssh.links import Link
from mllaunch.schedulers.ssh.tunnel import tunnel


class Command:
    """A command of this machine, in the place of one that runs on a node."""

    def __init__(self, command: str) -> None:
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self.stdin = self._process.stdin
        self._stdout = self._process.stdout

    def set_patience(self, seconds: float | None) -> None:
        pass

    def receive(self, limit: int) -> bytes:
        return self._stdout.read(limit) or b""

    def send(self, data: bytes) -> None:
        self.stdin.write(data)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    def __del__(self) -> None:  # not before the threads of the tunnel have let go of it
        self.stdin.close()
        self._stdout.close()


class Here:
    def __init__(self) -> None:
        self.commands: list[Command] = []

    def run(self, command: str) -> Command:
        self.commands.append(Command(command))
        return self.commands[-1]


@pytest.fixture
def link() -> Iterator[Here]:
    made = Here()
    yield made
    for command in made.commands:
        command.close()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    """Answers each connection with what it was asked, in capitals; keeps those open that ask for that."""
    path = str(tmp_path / "engine.sock")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(path)
    listening.listen()
    kept: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                asking, _ = listening.accept()
            except OSError:
                return
            kept.append(asking)
            try:
                asked = asking.recv(1 << 20)
                asking.sendall(asked.upper())
                if asked != b"stay":
                    asking.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # who asked has gone

    serving = threading.Thread(target=serve)
    serving.start()
    yield path
    listening.shutdown(socket.SHUT_RDWR)
    serving.join()
    for one in (listening, *kept):
        one.close()


def ask(path: str, question: bytes) -> socket.socket:
    asking = socket.socket(socket.AF_UNIX)
    asking.settimeout(30)
    asking.connect(path)
    with contextlib.suppress(BrokenPipeError):  # it has ended already, which reading shows
        asking.sendall(question)
    return asking


def whole(asking: socket.socket) -> bytes:
    with asking, contextlib.suppress(ConnectionResetError):
        return b"".join(iter(lambda: asking.recv(1 << 16), b""))
    return b""


def test_what_is_asked_here_is_answered_there(link: Here, engine: str) -> None:
    with tunnel(cast(Link, link), None, engine) as here:
        assert whole(ask(here, b"one")) == b"ONE"
        assert whole(ask(here, b"two")) == b"TWO"
    assert not Path(here).parent.exists()


def test_what_is_kept_open_ends_with_the_tunnel(link: Here, engine: str) -> None:
    with tunnel(cast(Link, link), None, engine) as here:
        asking = ask(here, b"stay")
        assert asking.recv(4) == b"STAY"
    assert whole(asking) == b""


def test_an_engine_that_is_not_there_ends_the_connection(link: Here, tmp_path: Path) -> None:
    with tunnel(cast(Link, link), None, str(tmp_path / "none.sock")) as here:
        assert whole(ask(here, b"one")) == b""


def test_a_link_that_is_down_ends_the_connection(engine: str) -> None:
    class Down:
        def run(self, command: str) -> Any:
            raise ConnectionError("the connection is closed")

    with tunnel(cast(Link, Down()), None, engine) as here:
        assert whole(ask(here, b"")) == b""


def test_a_long_path_of_temporary_files_is_none_for_a_socket(
    link: Here, engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    with tunnel(cast(Link, link), None, engine) as here:
        assert whole(ask(here, b"one")) == b"ONE"
    assert list(long.iterdir()) == []
