"""A container engine for tests: a real dockerd with everything of its own, so that a developer's is never touched.

The session's engine is the fixture ``engine``; ``new_engine`` makes others for tests that stop or configure
them. Each lives in a folder of its own: data, socket, process ids, log. Its network is described in bridge.py.
"""

from __future__ import annotations

import fcntl
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.testbed import bridge, leftovers

REPOSITORY = Path(__file__).parents[2]
CACHE = REPOSITORY / ".testbed"  # what is expensive to make and stays from session to session; not in git
CLI = "/usr/bin/docker"  # Debian's, which matches the engine; another may come first on PATH
_PREFIX = "mllaunch-engine-"
_TIMEOUT_S = 60.0
# Where overlay2 does not work, or where images would fill the memory.
_NOT_REAL_DISKS = {"overlay", "tmpfs", "ramfs"}


class Engine:
    """A dockerd. Not running until ``start``; gone without a trace after ``stop``.

    live_restore: containers go on while the daemon is away. isolated: in a network namespace of its own that leads
    nowhere, reached only by its socket, as an engine on another machine would be. arguments: more of them for
    dockerd. path: folders that dockerd searches for programs first, such as ``GpuHook.folder``.
    """

    def __init__(
        self,
        *,
        live_restore: bool = False,
        isolated: bool = False,
        arguments: Sequence[str] = (),
        path: Sequence[Path] = (),
    ) -> None:
        parent = _disk()
        leftovers.remove_abandoned(parent, _PREFIX)
        # Locked before it has the name by which other sessions look for abandoned ones.
        new = Path(tempfile.mkdtemp(prefix="mllaunch-new-", dir=parent))
        self._lock = (new / "lock").open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.folder = new.rename(parent / new.name.replace("mllaunch-new-", _PREFIX))
        self.socket = self.folder / "docker.sock"
        self.log = self.folder / "log"
        self.environment: Mapping[str, str] = {"DOCKER_HOST": f"unix://{self.socket}"}
        self._isolated = isolated
        self._process: subprocess.Popen[bytes] | None = None
        search = [*map(str, path), os.environ["PATH"], "/usr/sbin", "/sbin"]
        self._environ = {**os.environ, "PATH": os.pathsep.join(search)}
        # A file of its own, as settings in /etc/docker would mix with these. Up to version 24 engines also
        # take their identity from there: all on this machine would have the same.
        settings = {"deprecated-key-path": f"{self.folder}/key.json"} if _version() < 25 else {}
        (self.folder / "daemon.json").write_text(json.dumps(settings))
        self._command = [
            "dockerd",
            f"--config-file={self.folder}/daemon.json",
            f"--data-root={self.folder}/data",
            f"--exec-root={self.folder}/exec",
            f"--pidfile={self.folder}/docker.pid",
            f"--host=unix://{self.socket}",
            f"--cgroup-parent=/{self.folder.name}",
            "--exec-opt=native.cgroupdriver=cgroupfs",
            "--storage-driver=overlay2",
            *(["--live-restore"] if live_restore else []),
            *arguments,
        ]
        self._bridge: bridge.Bridge | None = None

    def start(self) -> None:
        """Start it, and return when it answers. Fails with the end of its log if it does not."""
        network = self._network_arguments()
        inside = ["nsenter", f"--net=/run/netns/{self.folder.name}"] if self._isolated else []
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*inside, *self._command, *network],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A test's Ctrl-C is not for the engine.
                start_new_session=True,
            )
        deadline = time.monotonic() + _TIMEOUT_S
        while not self.answers():
            ended = self._process.poll() is not None
            assert not ended and time.monotonic() < deadline, f"dockerd does not answer:\n{self.log_tail()}"
            time.sleep(0.02)

    def _network_arguments(self) -> list[str]:
        """What dockerd must be told of its network, which is made for the first start."""
        again = (self.folder / "data").exists()
        if self._isolated:
            if not again:
                name = self.folder.name
                subprocess.run(["ip", "netns", "add", name], check=True)
                # Forwarding, though to nowhere: without it dockerd warns with each container.
                script = "ip link set lo up && echo 1 > /proc/sys/net/ipv4/ip_forward"
                subprocess.run(["nsenter", f"--net=/run/netns/{name}", "sh", "-c", script], check=True)
            return ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
        if self._bridge is None:
            self._bridge = bridge.make(self.folder.name)
        return self._bridge.arguments(again)

    def halt(self, kill: bool = False) -> None:
        """End the daemon by SIGTERM or SIGKILL, and leave everything else as it is then."""
        assert self._process, "not started"
        self._process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        self._process.wait(_TIMEOUT_S)
        # containerd dies with a dockerd that is killed, but its dead process may wait for a careless init to
        # reap it. As long as it does, the next dockerd takes this file for a sign of life.
        for name in ("docker.pid", "exec/containerd/containerd.pid"):
            (self.folder / name).unlink(missing_ok=True)
        # Only the daemon that listens makes it anew: so nobody waits at an old one.
        self.socket.unlink(missing_ok=True)

    def restart(self, kill: bool = False) -> None:
        """End the daemon and start it again on the same data."""
        self.halt(kill)
        self.start()

    def stop(self) -> None:
        """Remove it from the machine, with its containers, images and network. May be called more than once."""
        try:
            if self.folder.exists():
                leftovers.remove(self.folder)
            if self._process:
                self._process.wait(_TIMEOUT_S)
        finally:
            self._lock.close()

    def __enter__(self) -> Engine:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """dockerd's process id."""
        assert self._process, "not started"
        return self._process.pid

    def answers(self) -> bool:
        """Does it answer now?"""
        connection = _UnixConnection(self.socket)
        try:
            connection.request("GET", "/_ping")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def log_tail(self, lines: int = 30) -> str:
        """The end of what the daemon has to say."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    @contextmanager
    def client(self) -> Iterator[Any]:
        """A ``docker.DockerClient``."""
        import docker  # type: ignore[import-untyped, unused-ignore]

        client = docker.DockerClient(base_url=f"unix://{self.socket}", timeout=int(_TIMEOUT_S))
        try:
            yield client
        finally:
            client.close()

    def docker(
        self,
        *args: str,
        check: bool = True,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        timeout_s: float = 300.0,
    ) -> subprocess.CompletedProcess[str]:
        """Call the command line client, with settings and logins of this engine's own.

        check: any exit code but 0 fails the test.
        """
        settings = {"DOCKER_CONFIG": str(self.folder / "cli"), "BUILDKIT_PROGRESS": "plain"}
        done = subprocess.run(
            [CLI, *args],
            env={**os.environ, **settings, **self.environment, **(env or {})},
            input=b"" if stdin is None else stdin,
            capture_output=True,
            timeout=timeout_s,
        )
        out, err = (data.decode("utf-8", "replace") for data in (done.stdout, done.stderr))
        assert not check or done.returncode == 0, f"docker {args}: exit {done.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(done.args, done.returncode, out, err)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def missing() -> str | None:
    """What this machine lacks for engines; None if nothing."""
    search = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
    absent = [name for name in ("dockerd", "ip", "iptables", CLI) if not shutil.which(name, path=search)]
    if absent:
        return f"{', '.join(absent)} not installed"
    return None if os.geteuid() == 0 else "not root"


@cache
def _version() -> int:
    """dockerd's major version."""
    said = subprocess.run(["dockerd", "--version"], stdout=subprocess.PIPE, check=True, text=True).stdout
    return int(said.split("version ")[1].split(".")[0])


def _disk() -> Path:
    """A folder on a real disk, for data; short, because the path of a socket has room for 107 bytes."""
    CACHE.mkdir(exist_ok=True)
    for folder in (Path("/var/tmp"), CACHE):
        kind = subprocess.run(
            ["findmnt", "--noheadings", "--output=FSTYPE", f"--target={folder}"],
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        ).stdout.strip()
        if kind not in _NOT_REAL_DISKS:
            return folder
    raise AssertionError("neither /var/tmp nor the repository is on a real disk, which images need")
