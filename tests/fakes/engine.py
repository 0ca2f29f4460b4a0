"""A container engine that says what it is told to say: HTTP over a unix socket, in a thread."""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
import threading
from http.client import responses
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple


class Request(NamedTuple):
    """What was asked. path: without the query, which is in target."""

    method: str
    path: str
    target: str
    head: str
    body: bytes


def answer(body: bytes = b"", status: int = 200, **headers: str) -> bytes:
    """One with a length. A header's name has _ for -."""
    return _head(status, {"Content-Length": str(len(body)), **headers}) + body


def document(content: Any, status: int = 200) -> bytes:
    return answer(json.dumps(content).encode(), status, Content_Type="application/json")


def refusal(status: int, message: str) -> bytes:
    return document({"message": message}, status)


def endless(body: bytes, **headers: str) -> bytes:
    """One without a length, that ends with its connection, as an archive does."""
    return _head(200, headers) + body


def chunked(*chunks: bytes, whole: bool = True) -> bytes:
    """As an engine answers HTTP/1.1 while it does not know how much will come."""
    body = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return _head(200, {"Transfer-Encoding": "chunked"}) + body + (b"0\r\n\r\n" if whole else b"")


def frame(stream: int, data: bytes) -> bytes:
    """A piece of a container's output. stream: 1 is stdout, 2 is stderr."""
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {responses[status]}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


class FakeEngine:
    """Serves one connection after the other, and ends each once it has answered. A context manager.

    path: of its socket. requests: what was asked so far. What it was not told to answer is not found.
    """

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp()  # a socket's path must be short, unlike a test's name
        self.path = str(Path(self._folder) / "engine.sock")
        self.requests: list[Request] = []
        self._answers: dict[tuple[str, str], list[bytes]] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(16)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def tell(self, method: str, path: str, *answers: bytes) -> None:
        """What to answer, in turn; the last one again and again."""
        self._answers[method, path] = list(answers)

    def asked(self, method: str) -> list[str]:
        """The targets of the requests with a method."""
        return [request.target for request in self.requests if request.method == method]

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                try:
                    self._answer(connection)
                except OSError:
                    pass  # the other side has heard enough

    def _answer(self, connection: socket.socket) -> None:
        with connection.makefile("rb") as file:
            method, target, _ = file.readline().decode().split(" ")
            head = "".join(iter(lambda: file.readline().decode(), "\r\n"))
            lengths = [line for line in head.splitlines() if line.lower().startswith("content-length:")]
            body = file.read(int(lengths[0].partition(":")[2])) if lengths else b""
        path = target.partition("?")[0]
        self.requests.append(Request(method, path, target, head, body))
        answers = self._answers.get((method, path), [refusal(404, f"no {path}")])
        connection.sendall(answers.pop(0) if len(answers) > 1 else answers[0])

    def close(self) -> None:
        if self._thread.is_alive():
            self._listener.shutdown(socket.SHUT_RDWR)
            self._thread.join()
        self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> FakeEngine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
