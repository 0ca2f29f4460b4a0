"""Virtual environments on a node, each made once from files that decide every version, for all runs that ask for it.

Beneath HOME/environments:

    KEY/          the environment; nothing is moved there, because its programs know where they are
    KEY/made.json written last, so that an environment without it is a broken half and is made anew
    KEY.files/    what it is made from, and plan.json
    KEY.lock      locked by whoever makes it
    KEY.log       what the installation printed; KEY.failed says why the last one came to nothing
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from typing import Any, Dict, List, Tuple

from mllaunch_agent import starting, system

__all__ = ["KINDS", "Environments", "install", "listed", "mark", "variables"]

# Of mllaunch_containers.spec.KINDS, those that are installed here.
KINDS = ("requirements", "pyproject.toml", "uv.lock", "pylock.toml", "poetry.lock")

_FORMAT = 1  # changes whenever the same files would give another environment
_AT_MOST_BYTES = 1 << 16
_MADE = "made.json"
_BESIDE = re.compile(r"\.(files|lock|log|failed|tool)(\..*)?\Z")  # a key itself has dots, too


class Environments:
    """home: the folder that holds everything mllaunch keeps for this user on this node."""

    def __init__(self, home: str) -> None:
        self._folder = os.path.join(home, "environments")

    def make(self, kind: str, files: List[Tuple[str, bytes]], environ: Dict[str, str]) -> str:
        """See to it that an environment is there or is being made; its key.

        files: (relative path, content); the first is the one to install from. environ: the user's, with what
        configures pip. Raises ValueError for a kind that is not known and for paths that lead elsewhere.
        """
        if kind not in KINDS or not files or any(not _stays_inside(path) for path, _ in files):
            raise ValueError("not an environment: %s of %r" % (kind, [path for path, _ in files]))
        key = _key(kind, files)
        place = os.path.join(self._folder, key)
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        if _is_whole(place):
            os.utime(mark(place))  # by which the least used is found
            return key
        lock = system.try_lock(place + ".lock")
        if lock is None:
            return key  # another submission is at it
        try:
            if not _is_whole(place):
                _write_files(place, kind, files)
                _start(place, lock, environ)
        finally:
            os.close(lock)
        return key

    def state(self, key: str, offset: int) -> Dict[str, Any]:
        """How it stands: {"state", "path", "why", "log", "offset"}. state: "ready", "making" or "failed", why then says
        what failed. log: what was printed from that offset on; the new offset is beside it."""
        if os.path.basename(key) != key:
            raise ValueError("not an environment: %r" % key)
        place = os.path.join(self._folder, key)
        # In this order: what has just been finished is not locked any more.
        making = system.is_locked(place + ".lock")
        log = _read_from(place + ".log", offset)
        answer = {
            "path": place,
            "why": None,
            "log": log.decode("utf-8", "replace"),
            "offset": offset + len(log),
        }
        if _is_whole(place):
            return {**answer, "state": "ready"}
        if making:
            return {**answer, "state": "making"}
        failed = system.read_file(place + ".failed")
        why = "it was ended before it was done" if failed is None else failed.decode("utf-8", "replace")
        return {**answer, "state": "failed", "why": why}


def listed(folder: str) -> Dict[str, List[str]]:
    """Paths of what lies in a folder of environments, by their keys."""
    found: Dict[str, List[str]] = {}
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return found
    for name in names:
        found.setdefault(_BESIDE.sub("", name), []).append(os.path.join(folder, name))
    return found


def mark(place: str) -> str:
    """What shows that an environment is whole."""
    return os.path.join(place, _MADE)


def variables(place: str, environ: Dict[str, str]) -> Dict[str, str]:
    """What makes an environment that of a process: as its ``activate`` does."""
    path = os.path.join(place, "bin") + os.pathsep + environ.get("PATH", os.defpath)
    return {"VIRTUAL_ENV": place, "PATH": path}


def install(place: str, lock: int) -> None:
    """Make the environment. Runs by itself, detached.

    lock: the descriptor that keeps KEY.lock locked. What is executed inherits it: where only this process is killed,
    nobody begins anew while pip is still at it.
    """
    failed = place + ".failed"
    with open(place + ".log", "wb", 0) as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        plan = _plan(place)
        shutil.rmtree(place, ignore_errors=True)
        steps = _steps(place, plan["kind"], plan["files"][0])
        for number, (title, argv) in enumerate(steps, 1):
            sys.stderr.write("step %d of %d: %s\n" % (number, len(steps), title))
            sys.stderr.flush()
            status = subprocess.call(
                argv, cwd=place + ".files", stdin=subprocess.DEVNULL, env=_environ(place), pass_fds=(lock,)
            )
            if status:
                system.write_atomic(failed, ("%s: exit status %d" % (title, status)).encode())
                return
        shutil.rmtree(_tool(place), ignore_errors=True)
        os.sync()  # what was made is there for good before the file that says so
        system.write_atomic(os.path.join(place, _MADE), json.dumps(plan).encode("ascii"), durable=True)
    except OSError as error:
        system.write_atomic(failed, str(error).encode("utf-8", "replace"))


def _steps(place: str, kind: str, first: str) -> List[Tuple[str, List[str]]]:
    """(title, command line) of each; as images install the same kinds of files."""
    python = os.path.join(place, "bin", "python")
    pip = [
        python,
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--progress-bar",
        "off",
    ]
    steps = [("python -m venv", [sys.executable, "-m", "venv", place])]
    if kind == "poetry.lock":
        return [*steps, *_by_poetry(place, python, pip)]
    if kind in ("uv.lock", "pylock.toml"):
        return [*steps, *_by_uv(place, kind, first, python, pip)]
    return [*steps, ("pip install -r " + first, [*pip, "-r", first])]


def _by_uv(place: str, kind: str, first: str, python: str, pip: List[str]) -> List[Tuple[str, List[str]]]:
    steps = [("pip install uv", [*pip, "--target", _tool(place), "uv"])]
    uv = os.path.join(_tool(place), "bin", "uv")
    lock = first
    if kind == "uv.lock":
        lock = os.path.join(_tool(place), "pylock.toml")
        options = ["--quiet", "--frozen", "--no-dev", "--no-emit-local", "--format", "pylock.toml"]
        steps.append(("uv export", [uv, "export", *options, "--python", python, "--output-file", lock]))
    options = ["--preview-features", "pylock", "--python", python, "-r", lock]
    return [*steps, ("uv pip install", [uv, "pip", "install", *options])]


def _by_poetry(place: str, python: str, pip: List[str]) -> List[Tuple[str, List[str]]]:
    exported = os.path.join(_tool(place), "exported.txt")
    poetry = ["env", "PYTHONPATH=" + _tool(place), python, "-m", "poetry", "--no-interaction"]
    # Of several lines that are one, joined, those go that name packages of the repository itself.
    without = ["sed", "-i", "-e", ":a", "-e", r"/\\$/{N;ba", "-e", "}", "-e", r"/file:\/\//d", exported]
    return [
        ("pip install poetry", [*pip, "--target", _tool(place), "poetry", "poetry-plugin-export"]),
        ("poetry export", [*poetry, "export", "--output", exported]),
        ("without the repository's own packages", without),
        ("pip install", [*pip, "--no-deps", "-r", exported]),
    ]


def _tool(place: str) -> str:
    return os.path.join(place, "tool")


def _environ(place: str) -> Dict[str, str]:
    """pip's settings are the user's, but for what would have it install elsewhere or ask."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    return {**kept, **variables(place, kept), "PIP_USER": "0", "PYTHONUNBUFFERED": "1", "UV_NO_PROGRESS": "1"}


def _key(kind: str, files: List[Tuple[str, bytes]]) -> str:
    """Names an environment: the same files on the same Python and platform are the same one."""
    digests = [(path, hashlib.sha256(content).hexdigest()) for path, content in files]
    text = json.dumps([_FORMAT, kind, digests[0], sorted(digests[1:])])
    version = "%d.%d.%d" % sys.version_info[:3]
    return "%s-python%s-%s" % (
        hashlib.sha256(text.encode()).hexdigest()[:32],
        version,
        sysconfig.get_platform(),
    )


def _is_whole(place: str) -> bool:
    """Also that the interpreter which it was made with is still there."""
    return os.path.exists(os.path.join(place, _MADE)) and os.path.exists(os.path.join(place, "bin", "python"))


def _stays_inside(path: str) -> bool:
    return bool(path) and not os.path.isabs(path) and ".." not in path.split("/") and path != "plan.json"


def _write_files(place: str, kind: str, files: List[Tuple[str, bytes]]) -> None:
    folder = place + ".files"
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder, 0o700)
    for path, content in files:
        target = os.path.join(folder, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb") as file:
            file.write(content)
    plan = {"kind": kind, "files": [path for path, _ in files]}
    system.write_atomic(os.path.join(folder, "plan.json"), json.dumps(plan).encode("ascii"))


def _plan(place: str) -> Dict[str, Any]:
    with open(os.path.join(place + ".files", "plan.json"), encoding="ascii") as file:
        return dict(json.load(file))


def _start(place: str, lock: int, environ: Dict[str, str]) -> None:
    """Have it made by a process that outlives this one, and the launcher's connection."""
    for old in (place + ".failed", place + ".log"):
        if os.path.exists(old):
            os.unlink(old)
    subprocess.Popen(
        starting.command("install", place, str(lock)),
        env={**environ, "MLLAUNCH_AGENT": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        cwd="/",
        pass_fds=(lock,),
    )


def _read_from(path: str, offset: int) -> bytes:
    try:
        with open(path, "rb") as file:
            file.seek(offset)
            return file.read(_AT_MOST_BYTES)
    except FileNotFoundError:
        return b""
