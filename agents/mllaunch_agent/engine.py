"""The container engine's HTTP API over its unix socket, as far as submitting and running need it.

https://docs.docker.com/reference/api/engine/ (Podman serves the same). Paths carry no version: an engine then
answers in its newest, and none that is asked for here has changed since 1.40; a fixed one would be too old for some
engines and too new for others.

Why not Docker's SDK: importing it takes 150 ms of processor time, as long as the engine takes to start a container;
and the agent works with nothing but Python. Building, pushing and pulling, where that does not matter, use the SDK.

Requests are HTTP/1.0: the answer ends with the connection, so nothing needs to be unchunked, and a stream is a file.
But for one whose end must be told from the engine's death: a task's output, which tells neither by its content.
"""

from __future__ import annotations

import json
import os
import socket
import time
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple

from mllaunch_agent.engine_answer import Answer, EngineError, EngineGone

__all__ = ["Engine", "EngineError", "EngineGone", "socket_path"]

_TIMEOUT_S = 120.0  # creating a container on a busy disk can take this long
_PING_TIMEOUT_S = 5.0


def socket_path(environ: Mapping[str, str]) -> Optional[str]:
    """Where the engine of this user listens; None if DOCKER_HOST names one that is not on this machine.

    Without DOCKER_HOST: Docker's, a rootless Docker's, or Podman's, the first that is there.
    """
    host = environ.get("DOCKER_HOST")
    if host:
        return host[len("unix://") :] if host.startswith("unix://") else None
    private = environ.get("XDG_RUNTIME_DIR") or "/run/user/%d" % os.getuid()
    places = (
        "/var/run/docker.sock",
        os.path.join(private, "docker.sock"),
        os.path.join(private, "podman", "podman.sock"),
        "/run/podman/podman.sock",
    )
    return next((path for path in places if os.path.exists(path)), places[0])


class Engine:
    """One engine. Every method raises EngineGone, or EngineError for what the engine refuses."""

    def __init__(self, path: str) -> None:
        self.path = path

    # --- the engine and its images --------------------------------------------------------------------------

    def version(self) -> Dict[str, Any]:
        """What the engine is: {"Version", "Os", "Arch", "Components", ...}."""
        answer: Dict[str, Any] = self._json("GET", "/version", timeout_s=_PING_TIMEOUT_S)
        return answer

    def info(self) -> Dict[str, Any]:
        answer: Dict[str, Any] = self._json("GET", "/info", timeout_s=_TIMEOUT_S)
        return answer

    def image(self, name: str) -> Optional[Dict[str, Any]]:
        """What is known of an image, by name or digest; None if the engine does not have it."""
        try:
            found: Dict[str, Any] = self._json("GET", "/images/%s/json" % _quoted(name))
        except EngineError as e:
            if e.status == 404:
                return None
            raise
        return found

    def images(self) -> List[str]:
        """The ids of all images."""
        return [str(image["Id"]) for image in self._json("GET", "/images/json")]

    def shared_layers(self, layers: List[str]) -> int:
        """How many of an image's layers, from the lowest on, are in one of the images here."""
        most = 0
        for image in self.images():
            found = self.image(image)
            theirs = found["RootFS"].get("Layers") or [] if found else []
            same = 0
            while same < min(len(layers), len(theirs)) and layers[same] == theirs[same]:
                same += 1
            most = max(most, same)
        return most

    def pull(self, reference: str, credentials: Optional[str] = None) -> None:
        """Fetch an image by ``NAME@DIGEST``. credentials: the value of X-Registry-Auth."""
        headers = {"X-Registry-Auth": credentials} if credentials else {}
        path = "/images/create?fromImage=%s" % _quoted(reference)
        with self._call("POST", path, headers=headers, timeout_s=None) as answer:
            for message in answer.documents():
                _raise_streamed(message)

    def load(self, parts: Iterable[bytes], size_bytes: int) -> str:
        """Take images from a tar of ``size_bytes`` bytes; what the engine says of them."""
        said = []
        path = "/images/load?quiet=1"
        # Unpacking many gigabytes on a slow disk takes what it takes, and nothing is said meanwhile.
        with self._call("POST", path, body=parts, size_bytes=size_bytes, timeout_s=None) as answer:
            for message in answer.documents():
                _raise_streamed(message)
                said.append(str(message.get("stream", "")).strip())
        return " ".join(said)

    # --- containers -----------------------------------------------------------------------------------------

    def create(self, name: str, config: Mapping[str, Any]) -> str:
        """A new container's id. EngineError 409 if the name is taken, 404 if the image is not there."""
        answer = self._json("POST", "/containers/create?name=%s" % _quoted(name), body=config)
        return str(answer["Id"])

    def start(self, container: str) -> None:
        """Start it; harmless if it runs already."""
        self._json("POST", "/containers/%s/start" % container)

    def inspect(self, container: str) -> Optional[Dict[str, Any]]:
        """What is known of a container, by name or id; None if there is none."""
        try:
            found: Dict[str, Any] = self._json("GET", "/containers/%s/json" % _quoted(container))
        except EngineError as e:
            if e.status == 404:
                return None
            raise
        return found

    def containers(self, labels: Iterable[str]) -> List[Dict[str, Any]]:
        """Containers in any state with all of the labels (``NAME`` or ``NAME=VALUE``)."""
        filters = json.dumps({"label": list(labels)})
        found: List[Dict[str, Any]] = self._json(
            "GET", "/containers/json?all=1&filters=%s" % _quoted(filters)
        )
        return found

    def waiting(self, container: str) -> "Answer":
        """A connection on which something comes once the container has ended (an engine may say something before):
        poll its fileno(), and drain() it."""
        return self._call("POST", "/containers/%s/wait" % container, polled=True, wait_for_head=False)

    def wait(self, container: str, timeout_s: float) -> int:
        """Its exit code, once it has ended. EngineGone if that takes longer."""
        answer = self._json("POST", "/containers/%s/wait" % container, timeout_s=timeout_s)
        return int(answer["StatusCode"])

    def output(self, container: str, follow: bool = True) -> "Answer":
        """All that it has printed so far and, with follow, will print until it ends: see Frames.

        With follow: poll its fileno(), drain() it, and ask is_whole() at the end.
        """
        path = "/containers/%s/logs?follow=%d&stdout=1&stderr=1" % (container, follow)
        return self._call("GET", path, polled=follow)

    def kill(self, container: str, signal: str) -> None:
        """Send a signal to its main process; harmless if it does not run."""
        try:
            self._json("POST", "/containers/%s/kill?signal=%s" % (container, signal))
        except EngineError as e:
            if e.status not in (404, 409):
                raise

    def was_killed(self, container: str) -> bool:
        """Whether it was asked through the engine to end, which also does so when it goes down. Remembered for the
        latest few hundred events, and for as long as the engine lives."""
        filters = json.dumps({"container": [container], "event": ["kill"]})
        path = "/events?since=0&until=%.9f&filters=%s" % (time.time(), _quoted(filters))
        with self._call("GET", path) as answer:
            attributes = [event.get("Actor", {}).get("Attributes", {}) for event in answer.documents()]
        return any(str(found.get("signal")) in _ENDING for found in attributes)

    def remove(self, container: str) -> None:
        """Remove it, running or not, with its anonymous volumes; harmless if there is none."""
        try:
            self._json("DELETE", "/containers/%s?force=1&v=1" % _quoted(container))
        except EngineError as e:
            if e.status not in (404, 409):  # 409: its removal is under way
                raise

    def changes(self, container: str) -> List[Tuple[str, int]]:
        """(path, 0 changed | 1 added | 2 deleted) against its image; what is mounted into it is not in there."""
        found = self._json("GET", "/containers/%s/changes" % container)
        return [(str(entry["Path"]), int(entry["Kind"])) for entry in found or ()]

    def archive(self, container: str, path: str) -> "Answer":
        """A tar of a file or folder in it."""
        return self._call("GET", "/containers/%s/archive?path=%s" % (container, _quoted(path)))

    def stat(self, container: str, path: str) -> Optional[Dict[str, Any]]:
        """{"name", "size", "mode": Go's os.FileMode, "mtime", "linkTarget"} of a path in it; None: it is not there."""
        import base64

        try:
            with self._call("HEAD", "/containers/%s/archive?path=%s" % (container, _quoted(path))) as answer:
                found: Dict[str, Any] = json.loads(base64.b64decode(answer.headers[_PATH_STAT]))
        except EngineError as e:
            if e.status == 404:
                return None
            raise
        except (KeyError, ValueError) as e:
            raise EngineGone("%s: not an answer of a container engine" % self.path) from e
        return found

    # --- one request ----------------------------------------------------------------------------------------

    def _json(
        self, method: str, path: str, body: Optional[Mapping[str, Any]] = None, timeout_s: float = _TIMEOUT_S
    ) -> Any:
        data = b"" if body is None else json.dumps(body).encode("ascii")
        with self._call(method, path, body=(data,), size_bytes=len(data), timeout_s=timeout_s) as answer:
            text = answer.read()
        if answer.status in _WITHOUT_BODY:
            return {}
        try:
            return json.loads(text)
        except ValueError as e:
            raise EngineGone("%s: not an answer of a container engine" % self.path) from e

    def _call(
        self,
        method: str,
        path: str,
        *,
        body: Iterable[bytes] = (),
        size_bytes: int = 0,
        headers: Optional[Mapping[str, str]] = None,
        timeout_s: Optional[float] = _TIMEOUT_S,
        polled: bool = False,
        wait_for_head: bool = True,
    ) -> "Answer":
        """polled: the caller waits for what comes by itself, however long that takes."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout_s)
            connection.connect(self.path)
            head = ["%s %s HTTP/1.%d" % (method, path, polled), "Host: engine", "Connection: close"]
            head += ["Content-Length: %d" % size_bytes]
            head += ["Content-Type: application/x-tar" if path.startswith("/images/load") else _JSON_BODY]
            head += ["%s: %s" % pair for pair in (headers or {}).items()]
            connection.sendall("\r\n".join(head).encode("ascii") + b"\r\n\r\n")
            try:
                for part in body:
                    connection.sendall(part)
            except (BrokenPipeError, ConnectionResetError):
                pass  # it refuses before it has heard all; its answer says why
            answer = Answer(connection, self.path, method != "HEAD", polled)
        except OSError as e:
            connection.close()
            raise EngineGone("%s: %s" % (self.path, e.strerror or e)) from e
        if wait_for_head:
            answer.check()
        if polled:
            connection.settimeout(None)
        return answer


_ENDING = ("15", "9", "2", "3", "SIGTERM", "SIGKILL", "SIGINT", "SIGQUIT")
_PATH_STAT = "x-docker-container-path-stat"
_JSON_BODY = "Content-Type: application/json"
_WITHOUT_BODY = (204, 304)


def _raise_streamed(message: Any) -> None:
    """An error that comes after the head has promised success."""
    if isinstance(message, dict) and message.get("error"):
        raise EngineError(500, " ".join(str(message["error"]).split()))


def _quoted(text: str) -> str:
    """Percent-encoded for a path or a query; slashes and colons of an image's name stay."""
    safe = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/:@")
    raw = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in safe else "%%%02X" % byte for byte in raw)
