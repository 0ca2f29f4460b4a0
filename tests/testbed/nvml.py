"""A stand-in for NVIDIA's library, so that the real nvidia-ml-py finds GPUs on a machine that has none.

``fake_nvml`` is the fixture. Programs started with its ``environment`` see the GPUs that it describes at
that moment. The library must be found by the dynamic loader, which reads LD_LIBRARY_PATH when a program
starts: so it serves programs that a test starts, not the test's own process.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("fake_nvml.c")


class FakeNvml:
    """GPUs as written in a state file, whose format ``fake_nvml.c`` describes."""

    def __init__(self, library: Path, state: Path) -> None:
        self._state = state
        self.environment: Mapping[str, str] = {
            "LD_LIBRARY_PATH": f"{library.parent}:{os.environ.get('LD_LIBRARY_PATH', '')}".rstrip(":"),
            "FAKE_NVML": str(state),
        }

    def set(self, *gpus: str, **settings: object) -> None:
        """Describe the machine anew: one text of ``key=value`` words for each GPU, and global settings."""
        lines = [f"{name} {value}" for name, value in settings.items()]
        lines += [f"gpu {index} {gpu}" for index, gpu in enumerate(gpus)]
        temporary = self._state.with_suffix(".new")
        temporary.write_text("\n".join(lines) + "\n")
        temporary.replace(self._state)

    def break_driver(self) -> None:
        """From now on the library is there, but no driver answers."""
        self._state.unlink()

    def python(self, code: str, **variables: str) -> str:
        """What a Python program prints when it runs with these GPUs."""
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **self.environment, **variables},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            timeout=60,
        ).stdout


def library() -> Path:
    """The compiled library, from a cache that is keyed by its source. Needs gcc; safe with several callers
    at once."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"mllaunch-testbed-{os.getuid()}" / f"nvml-{digest}"
    target = folder / "libnvidia-ml.so.1"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = folder / f"{os.getpid()}.so"
        command = [
            "gcc",
            "-shared",
            "-fPIC",
            "-O1",
            f"-Wl,-soname,{target.name}",
            "-o",
            str(temporary),
            str(SOURCE),
        ]
        subprocess.run(command, check=True)
        temporary.replace(target)
    return target


@pytest.fixture
def fake_nvml(tmp_path: Path) -> FakeNvml:
    """Two idle GPUs, until the test says otherwise."""
    nvml = FakeNvml(library(), tmp_path / "nvml.state")
    nvml.set("", "")
    return nvml
