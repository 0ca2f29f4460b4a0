"""What this node lets an agent do, found out by doing it: for ``doctor``, from inside an agent process."""

from __future__ import annotations

import os
import platform
import shutil
from typing import Any, Callable, Dict, List, Optional

from mllaunch_agent import PROTOCOL_VERSION, family, leases, node, overlay, workdir
from mllaunch_agent.probes.gpu import Gpus

__all__ = ["checkup"]


def checkup(question: Dict[str, Any]) -> Dict[str, Any]:
    """question: {"home", "import_path", "lease_dir"}. A fact that cannot be found out is None, and "failed" says why.

    {"protocol", "python", "checkout": "overlay" | "reflink" | "copy", "cgroup": bool, "gpus": {"found", "driver",
    "problems": [{"what", "why"}], "strangers": [{"gpu", "pid", "user", "command"}]}, "lease_folder",
    "mounts": [{"path", "run_id", "attended"}], "failed": {fact: why}}
    """
    failed: Dict[str, str] = {}

    def ask(fact: str, find_out: Callable[[], Any]) -> Any:
        try:
            return find_out()
        except Exception as error:  # noqa: BLE001  whatever it is, it is what the user wants to hear
            failed[fact] = str(error) or type(error).__name__
            return None

    home, lease_dir = question["home"], question["lease_dir"]
    return {
        "protocol": PROTOCOL_VERSION,
        "python": platform.python_version(),
        "checkout": ask("checkout", lambda: _checkout(home)),
        "cgroup": ask("cgroup", _cgroup),
        "lease_folder": ask("lease_folder", lambda: _lease_folder(lease_dir)),
        "gpus": ask("gpus", lambda: _gpus(question["import_path"], lease_dir)),
        "mounts": ask("mounts", lambda: _mounts(home)),
        "failed": failed,
    }


def _checkout(home: str) -> str:
    """How a run's checkout is made here: by making one."""
    place = os.path.join(home, "check-%d-%s" % (os.getpid(), os.urandom(4).hex()))
    tree, attempt = os.path.join(place, "tree"), os.path.join(place, "attempt")
    os.makedirs(tree, mode=0o700)
    try:
        os.mkdir(attempt)
        with open(os.path.join(tree, "file"), "wb") as file:
            file.write(b"x" * 8192)
        try:
            return workdir.make(tree, attempt)
        finally:
            workdir.discard(attempt)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _cgroup() -> bool:
    made = family.make_cgroup("check-%d" % os.getpid(), 0, 0)
    if made:
        os.rmdir(made)
    return made is not None


def _lease_folder(lease_dir: Optional[str]) -> str:
    leases.Queue(lease_dir).try_out()
    return lease_dir or leases.default_dir()


def _gpus(import_path: List[str], lease_dir: Optional[str]) -> Dict[str, Any]:
    gpus = Gpus(import_path)
    found = gpus.list()
    leased = {holder["gpu"] for holder in leases.holders(lease_dir)}
    strangers = [
        dict(process, gpu=gpu["uuid"])
        for gpu in found
        if gpu["uuid"] not in leased
        for process in gpus.processes(gpu["uuid"]) or []
    ]
    driver = gpus.versions()["driver"] if found else None
    return {"found": found, "driver": driver, "strangers": strangers, "problems": list(gpus.not_captured())}


def _mounts(home: str) -> List[Dict[str, Any]]:
    """File systems mounted in attempts' folders, and whether an agent looks after the attempt."""
    runs = os.path.realpath(os.path.join(home, "runs"))
    found = []
    for path in overlay.mounts_in(runs):
        parts = os.path.relpath(path, runs).split("/")
        attempt = node.AttemptFolder(os.path.join(runs, *parts[:2]))
        found.append({"path": path, "run_id": parts[0], "attended": attempt.is_alive()})
    return found
