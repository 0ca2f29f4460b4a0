"""Finds out what `doctor` goes by. Every question is asked by itself, so that one failure hides no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from mllaunch.errors import MllaunchError
from mllaunch.ports import AttemptRef, RunQuery
from mllaunch.usecases.doctor import Engine, Facts, Fault, Home

if TYPE_CHECKING:
    from mllaunch.wiring import App

_PATIENCE_S = 60.0  # a broken driver makes NVML hang for as long as the agent's own limit, several times


def facts(app: App) -> Facts:
    """What there is to know about this machine, this folder and this home."""
    home = _home(app.home)
    config = _config(app)
    unsettled = _unsettled(app)
    agent = _agent(app) if home.fault is None else Fault("its home cannot be written", None)
    mounts = agent["mounts"] if isinstance(agent, dict) else None
    return Facts(
        git=_git_version(app.cwd),
        repository=_repository(app.cwd),
        config=config if isinstance(config, Fault) else None,
        python=_python(app, None if isinstance(config, Fault) else config),
        home=home,
        run_log=_run_log(app.home),
        code=_code(app.code.path),
        agent=agent,
        engine=_engine(app),
        unattended=tuple(name for name in unsettled.values() if name),
        mounts=tuple(m["path"] for m in mounts or [] if not m["attended"] and m["run_id"] not in unsettled),
        leftovers=_leftovers(app),
    )


def _engine(app: App) -> Engine:
    answer = app.engine_answer
    if answer.version is None:
        return Engine(None, answer.socket, answer.problem, answer.is_denied)
    from mllaunch_agent import engine

    try:
        runtimes = engine.Engine(answer.socket).info().get("Runtimes") or {}
    except OSError:
        runtimes = {}
    return Engine(answer.title, answer.socket, has_nvidia="nvidia" in runtimes)


def _git_version(cwd: str) -> str | None:
    from mllaunch.capture.git import Git, GitFailed

    try:
        words = Git(cwd).run("version").decode(errors="replace").split()
    except (MllaunchError, GitFailed, OSError):
        return None
    return words[2] if len(words) > 2 else None


def _repository(cwd: str) -> tuple[str, int] | Fault:
    from mllaunch.capture import worktree

    try:
        found = worktree.begin(cwd).finish()
        return found.root, len(found.changes())
    except MllaunchError as error:
        return Fault(error.message, error.hint)


def _config(app: App) -> str | Fault | None:
    """The interpreter that is configured, if any."""

    try:
        try:
            root = app.root
        except MllaunchError:
            root = None  # it is said of the repository
        return app.config(root, {}).interpreter(root or app.cwd)
    except MllaunchError as error:
        return Fault("; ".join((error.message, *error.evidence)), error.hint)


def _python(app: App, configured: str | None) -> tuple[str, str] | Fault:
    for name in [configured] if configured else ["python", "python3"]:
        path = app.which(name)
        if path is None:
            continue
        asked = [path, "-I", "-c", "import platform; print(platform.python_version())"]
        try:
            done = subprocess.run(
                asked, capture_output=True, text=True, errors="replace", timeout=30, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return Fault(f"{path} does not run: {error}", "set `python:` in mllaunch.yaml")
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
            return Fault(f"{path} does not run: {last}", "set `python:` in mllaunch.yaml")
        return path, done.stdout.strip()
    if configured:
        return Fault(f"{configured} is not an executable program", "set `python:` in mllaunch.yaml")
    return Fault("no interpreter: neither python nor python3 is on PATH", "set `python:` in mllaunch.yaml")


def _home(path: str) -> Home:
    from mllaunch.runlog import filesystem

    fault = None
    try:
        os.makedirs(path, mode=0o700, exist_ok=True)
        probe = os.path.join(path, f"check-{os.getpid()}-{os.urandom(4).hex()}")
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        os.unlink(probe)
    except OSError as error:
        fault = error.strerror or str(error)
    there = path
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    disk = os.statvfs(there)
    try:
        with open("/proc/self/mounts", "rb") as table:
            kind = filesystem.kind_of(os.path.realpath(there), table.read())
    except OSError:
        kind = ""
    return Home(path, fault, disk.f_bavail * disk.f_frsize, kind, filesystem.is_local(there))


def _run_log(home: str) -> tuple[int | None, int, tuple[str, ...]]:
    from mllaunch.runlog.health import check

    return check(home)


def _code(path: str) -> str | None:
    """What is wrong with the store of code; None if nothing is, or if there is none yet."""
    from mllaunch.capture.git import Git, GitFailed

    for folder in (path, path.removesuffix(".git") + "-sha256.git"):
        if not os.path.isdir(folder):
            continue
        try:
            Git(folder, git_dir=folder).run("fsck", "--connectivity-only", "--no-dangling", "--no-progress")
        except (GitFailed, MllaunchError, OSError) as error:
            return f"{folder}: {error}"
    return None


def _agent(app: App) -> dict[str, Any] | Fault:
    """What an agent answers that is started just as for a run."""
    from mllaunch_agent import starting

    question = {"home": app.home, "import_path": app.import_path, "lease_dir": app.lease_dir}
    try:
        done = subprocess.run(
            starting.command("check"),
            env=starting.environment(),
            input=json.dumps(question) + "\n",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Fault(
            f"it did not answer within {_PATIENCE_S:.0f} s", "nvidia-smi shows whether the driver hangs"
        )
    except OSError as error:
        return Fault(str(error), f"does {sys.executable} still exist? install mllaunch again")
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return Fault(last, "install mllaunch again")
    return answer


def _unsettled(app: App) -> dict[str, str | None]:
    """Ids of the runs from which more may come; with the name of each that no agent looks after."""
    from mllaunch.domain.state import State

    try:
        rows = app.log.rows(RunQuery(limit=-1, unsettled=True))
    except MllaunchError:
        return {}  # it is said of the run log
    found: dict[str, str | None] = {}
    for row in rows:
        nodes = app.scheduler.files(AttemptRef(row.id, row.status.attempt)).values()
        # In this order: an agent writes the seal before it ends.
        alone = any(not node.is_alive() and node.seal() is None for node in nodes)
        found[row.id] = row.name if alone and row.status.state is not State.PACKAGING else None
    return found


def _leftovers(app: App) -> tuple[str, ...]:
    """What processes that were killed left in this home."""
    from mllaunch_agent import system

    found = []
    for name in _names(app.trees):
        path = os.path.join(app.trees, name)
        if name.startswith("tmp-") and not system.is_locked(path):
            found.append(path)
    for name in _names(app.home):
        pid = name.split("-")[1] if name.startswith("check-") and name.count("-") == 2 else ""
        if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            found.append(os.path.join(app.home, name))
    return tuple(path for path in found if os.path.lexists(path))


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
