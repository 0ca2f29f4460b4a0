"""Installed by gpus.py as nvidia-container-runtime-hook, and called by runc before a container's first process.

stdin: the container's state (JSON with ``pid`` and ``bundle``), as the OCI runtime specification has it. The
GPUs asked for are in the container's variable NVIDIA_VISIBLE_DEVICES, where dockerd has put them: UUIDs or numbers
with commas between, or ``all``. The machine's GPUs are in gpus.json beside this program.
"""

import ctypes
import json
import os
import stat
import sys
from pathlib import Path

CLONE_NEWNS = 0x00020000
NULL = os.makedev(1, 3)  # the devices behave as /dev/null, which every container may use


def main() -> None:
    machine = json.loads(Path(__file__).with_name("gpus.json").read_text())
    state = json.load(sys.stdin)
    config = json.loads(Path(state["bundle"], "config.json").read_text())
    variables = dict(variable.split("=", 1) for variable in config["process"]["env"])
    asked = variables.get("NVIDIA_VISIBLE_DEVICES", "")
    if machine["silent"] or asked in ("", "none", "void"):
        return
    gpus = machine["gpus"]
    numbers = range(len(gpus)) if asked == "all" else [number(word, gpus) for word in asked.split(",")]
    enter_mounts(state["pid"])
    hand_in(Path(config["root"]["path"]), {index: gpus[index] for index in numbers})


def number(word: str, gpus: list[str]) -> int:
    """A GPU's number by its UUID or number."""
    if word in gpus:
        return gpus.index(word)
    if word.isdecimal() and int(word) < len(gpus):
        return int(word)
    sys.exit(f"nvidia-container-cli: device error: {word}: unknown device")


def enter_mounts(pid: int) -> None:
    """See the container's /dev, which is mounted only there; its root folder is not yet the root."""
    libc = ctypes.CDLL(None, use_errno=True)
    with Path(f"/proc/{pid}/ns/mnt").open("rb") as namespace:
        if libc.setns(namespace.fileno(), CLONE_NEWNS):
            raise OSError(ctypes.get_errno(), "setns")


def hand_in(root: Path, gpus: dict[int, str]) -> None:
    for index in gpus:
        device = root / f"dev/nvidia{index}"
        os.mknod(device, stat.S_IFCHR, NULL)
        device.chmod(0o666)
    seen = root / "run/visible-gpus"
    seen.parent.mkdir(exist_ok=True)
    seen.write_text("".join(f"{uuid}\n" for uuid in gpus.values()))


if __name__ == "__main__":
    main()
