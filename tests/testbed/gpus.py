"""What NVIDIA's container toolkit does for dockerd, on machines that have neither GPUs nor the toolkit.

An engine with ``path=[hook.folder]`` takes ``--gpus``: it finds the program nvidia-container-runtime-hook there and
has it called for each container that asks for GPUs. What the program then does is in gpu_hook.py.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("gpu_hook.py")
SEEN = "/run/visible-gpus"  # in the container: UUIDs of the GPUs that were handed in, one a line


def uuid(index: int) -> str:
    """The UUID of this machine's GPU, as the library of nvml.py has it."""
    value = 5381
    for byte in socket.gethostname().encode()[:64]:
        value = (value * 33 + byte) & 0xFFFFFFFF
    return f"GPU-{value:08x}-0000-4000-8000-{index:012d}"


class GpuHook:
    """The program, and what it hands into containers. May be changed while engines that use it are running."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        program = folder / "nvidia-container-runtime-hook"
        program.write_text(f"#!{sys.executable} -IS\n{SOURCE.read_text()}")
        program.chmod(0o755)
        self.reset()

    def reset(self) -> None:
        """The machine has eight GPUs."""
        self.set(*map(uuid, range(8)))

    def set(self, *gpus: str, silent: bool = False) -> None:
        """The machine has these GPUs: UUIDs, the first of which is /dev/nvidia0. Asking for another is an error.

        silent: nothing is handed in, and nothing is said about it, as by a toolkit that is configured to be
        skipped.
        """
        self._write({"gpus": gpus, "silent": silent})

    def _write(self, state: dict[str, Sequence[str] | bool]) -> None:
        temporary = self.folder / f"gpus.json.{os.getpid()}"
        temporary.write_text(json.dumps(state))
        temporary.replace(self.folder / "gpus.json")
