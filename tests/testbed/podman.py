"""A Podman for tests, which answers as Docker does; everything of its own, as tests/testbed/engine.py has it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from tests.testbed.engine import Engine, _disk

_TIMEOUT_S = 60.0
# Podman asks for more open files than a machine that is itself confined may give.
_LIMITS = "[containers]\ndefault_ulimits = ['nofile=20000:20000', 'nproc=4096:4096']\n"


class Podman:
    """``podman system service``, as a context manager."""

    docker = Engine.docker

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mllaunch-podman-", dir=_disk()))
        self.socket = self.folder / "podman.sock"
        self.environment: Mapping[str, str] = {"DOCKER_HOST": f"unix://{self.socket}"}
        (self.folder / "containers.conf").write_text(_LIMITS)
        self._environ = {**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf")}
        self._command = [
            "podman",
            f"--root={self.folder}/data",
            f"--runroot={self.folder}/run",
            "--runtime=runc",
            "--cgroup-manager=cgroupfs",
        ]

    def __enter__(self) -> Podman:
        self._process = subprocess.Popen(
            [*self._command, "system", "service", "--time=0", f"unix://{self.socket}"],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + _TIMEOUT_S
        while not self.socket.exists():
            assert self._process.poll() is None and time.monotonic() < deadline, "podman does not answer"
            time.sleep(0.02)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(_TIMEOUT_S)
        subprocess.run([*self._command, "rm", "--all", "--force"], env=self._environ, capture_output=True)
        subprocess.run([*self._command, "unshare", "true"], env=self._environ, capture_output=True)
        subprocess.run(["umount", "-l", f"{self.folder}/data/overlay"], capture_output=True)
        shutil.rmtree(self.folder)


def missing() -> str | None:
    """What this machine lacks; None if nothing."""
    if not shutil.which("podman"):
        return "podman is not installed"
    places = ("/usr/libexec/podman/catatonit", "/usr/bin/catatonit")
    return None if any(Path(place).exists() for place in places) else "catatonit is not installed"
