"""An image registry for tests: Debian's docker-registry on loopback, which engines speak to without TLS.

``registry`` takes everything from everybody; ``private_registry`` asks for a login. Both are empty for each test.
"""

from __future__ import annotations

import base64
import ctypes
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import yaml

_TIMEOUT_S = 30.0
_LISTENS = re.compile(r"listening on 127\.0\.0\.1:(\d+)")
# Apache's combined format: address, user, [time], "method target version", status, bytes of the answer's body.
_ACCESS = re.compile(
    r'\S+ \S+ .*? \[[^]]*\] "(?P<method>\S+) (?P<target>\S+) [^"]*" (?P<status>\d+) (?P<size>\d+)'
)
_UPLOADED = re.compile(r"/v2/.+/blobs/uploads/.*[?&]digest=sha256(?::|%3A)(?P<digest>[0-9a-f]{64})")
_BLOB = re.compile(r"/v2/.+/blobs/sha256:[0-9a-f]{64}")


class Login(NamedTuple):
    user: str
    secret: str


class Request(NamedTuple):
    """A request that the registry has answered."""

    method: str
    target: str  # path and query
    status: int
    size_bytes: int  # of the answer's body


class Registry:
    """A registry with its storage in ``folder``. Not running until ``start``."""

    def __init__(self, folder: Path, login: Login | None = None) -> None:
        self.folder = folder
        self.login = login
        self.port = 0  # until it has started for the first time; then always the same
        self._storage = folder / "storage"
        self._access, self._log = folder / "access.log", folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._storage.mkdir(parents=True)
        if login:
            (folder / "htpasswd").write_text(f"{login.user}:{_bcrypt(login.secret)}\n")

    @property
    def url(self) -> str:
        """What the names of images in this registry begin with: ``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and return when it listens."""
        settings: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "info"},
            "storage": {"filesystem": {"rootdirectory": str(self._storage)}, "delete": {"enabled": True}},
            "http": {"addr": self.url, "secret": uuid4().hex},
        }
        if self.login:
            settings["auth"] = {"htpasswd": {"realm": "testbed", "path": str(self.folder / "htpasswd")}}
        config = self.folder / "config.yml"
        config.write_text(yaml.safe_dump(settings))
        self._log.write_text("")
        with self._access.open("ab") as access, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["docker-registry", "serve", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=access,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + _TIMEOUT_S
        while not (found := _LISTENS.search(self._log.read_text())):
            ended = self._process.poll() is not None
            assert not ended and time.monotonic() < deadline, f"no registry: {self._log.read_text()}"
            time.sleep(0.01)
        self.port = int(found[1])

    def stop(self) -> None:
        """Stop it; what it stores stays for the next ``start``."""
        if self._process:
            self._process.kill()  # it has nothing to say at its end, but would take its time
            self._process.wait(_TIMEOUT_S)
            self._process = None

    def close(self) -> None:
        """Stop it and delete what it stores."""
        self.stop()
        shutil.rmtree(self.folder)

    def requests(self) -> list[Request]:
        """All requests so far, in the order in which they ended."""
        self._settle()
        matches = map(_ACCESS.match, self._access.read_text().splitlines())
        found = [Request(m["method"], m["target"], int(m["status"]), int(m["size"])) for m in matches if m]
        return [request for request in found if "testbed-settle" not in request.target]

    @property
    def received_bytes(self) -> int:
        """Bytes of all blobs that were uploaded, exactly; a blob that is mounted or known is none.

        Manifests and uploads that were broken off do not count.
        """
        digests = [
            match["digest"]
            for request in self.requests()
            if request.method in ("PUT", "POST") and request.status == 201
            if (match := _UPLOADED.fullmatch(request.target))
        ]
        return sum(self._blob(f"sha256:{digest}").stat().st_size for digest in digests)

    @property
    def served_bytes(self) -> int:
        """Bytes of blobs that were sent out, exactly. Manifests do not count."""
        return sum(
            request.size_bytes
            for request in self.requests()
            if request.method == "GET" and request.status in (200, 206) and _BLOB.fullmatch(request.target)
        )

    def blobs(self) -> dict[str, int]:
        """Layers and configurations that are stored, without manifests: digest -> bytes."""
        root = self._storage / "docker/registry/v2"
        manifests = {path.name for path in root.glob("repositories/**/_manifests/revisions/sha256/*")}
        found = [path for path in root.glob("blobs/sha256/*/*/data") if path.parent.name not in manifests]
        return {f"sha256:{path.parent.name}": path.stat().st_size for path in found}

    def corrupt(self, digest: str) -> None:
        """From now on other bytes are served for this digest: as many, but the last one differs."""
        path = self._blob(digest)
        with path.open("r+b") as file:
            file.seek(-1, 2)
            last = file.read(1)[0]
            file.seek(-1, 2)
            file.write(bytes([last ^ 0xFF]))

    def remove(self, digest: str) -> None:
        """From now on there is nothing at this digest, though manifests may name it."""
        self._blob(digest).unlink()

    def _blob(self, digest: str) -> Path:
        value = digest.removeprefix("sha256:")
        return self._storage / "docker/registry/v2/blobs/sha256" / value[:2] / value / "data"

    def _settle(self) -> None:
        """Wait until requests that were answered are in the access log, which is written just after the answer."""
        if self._process:
            mark = f"testbed-settle={uuid4().hex}"
            request = urllib.request.Request(f"http://{self.url}/v2/?{mark}")
            if self.login:
                token = base64.b64encode(":".join(self.login).encode()).decode()
                request.add_header("Authorization", f"Basic {token}")
            # No proxy: it would be asked for its own loopback.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(request, timeout=_TIMEOUT_S) as answer:
                answer.read()
            deadline = time.monotonic() + _TIMEOUT_S
            while mark not in self._access.read_text():
                assert time.monotonic() < deadline, "the registry writes no access log"
                time.sleep(0.005)


def _bcrypt(secret: str) -> str:
    """A hash as in htpasswd files; the C library's, because Python's own is gone since 3.13. Cheap: cost 4."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt.restype = ctypes.c_char_p
    hashed: bytes | None = library.crypt(secret.encode(), b"$2b$04$" + uuid4().hex[:22].encode())
    assert hashed and hashed.startswith(b"$2b$"), "libcrypt knows no bcrypt"
    return hashed.decode()


def running(folder: Path, login: Login | None = None) -> Iterator[Registry]:
    """A fresh registry, for a fixture."""
    made = Registry(folder, login)
    try:
        made.start()
        yield made
    finally:
        made.close()
