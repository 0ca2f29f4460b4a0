"""A shell, or one command, where a task of an attempt runs: what ``mllaunch ssh`` leads to.

What is started has the task's environment and is in its folder (in its container, if it has one), but is no part of
the run: it carries the mark of our own processes, so it is neither recorded nor ended with the tasks.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from typing import Any, Dict, List, NoReturn, Optional

from mllaunch_agent import node, protocol, shim, starting, system
from mllaunch_agent.environment import AGENT_MARK
from mllaunch_agent.probes import processes
from mllaunch_agent.runtimes.process import root_path, work_path

__all__ = ["enter", "look"]

RUNNING, ENDED, WAITING, GONE = "running", "ended", "waiting", "gone"

_OF_THE_TERMINAL = ("TERM", "COLORTERM")  # they describe where the user sits, not where the task runs
_NO_PROGRAM = 127  # as a shell says it
# In a container: the better of the two shells.
_SHELL = "command -v bash >/dev/null 2>&1 && exec bash || exec sh"


def look(folder: str, rank: int) -> Dict[str, Any]:
    """How a task stands, and the command line that leads to it: {"state", "argv"}; words of a command may follow.

    state: RUNNING; ENDED, where its work folder still is; WAITING, before its start; GONE, when nothing is left.
    """
    return {"state": _state(folder, rank), "argv": starting.command("enter", folder, str(rank))}


def enter(folder: str, rank: int, words: List[str]) -> NoReturn:
    """Become the command, or a shell if there are no words. RuntimeError if the task is not there."""
    state = _state(folder, rank)
    spec = node.AttemptFolder(folder).spec()
    if state in (WAITING, GONE) or spec is None:
        raise RuntimeError("there is no task to go to any more, or not yet")
    record = _record(folder, rank)
    container = spec.get("container")
    if state == RUNNING and record is not None and record["container"] is not None and container is not None:
        _become(_in_container(container["engine"], record["container"], words), dict(os.environ))
    environment = dict(os.environ)
    if state == RUNNING and record is not None:
        of_terminal = {name: os.environ[name] for name in _OF_THE_TERMINAL if name in os.environ}
        environment = {**_environment(record["pid"]), **of_terminal, AGENT_MARK: "1"}
    place = next(path for path in _places(spec) if os.path.isdir(path))
    os.chdir(place)
    environment["PWD"] = place
    _become(words or [_login_shell()], environment)


def _state(folder: str, rank: int) -> str:
    spec = node.AttemptFolder(folder).spec()
    if spec is None:
        return GONE
    record = _record(folder, rank)
    same_boot = record is not None and record["boot_id"] == system.boot_id()
    if record is not None and same_boot and processes.is_same(record["pid"], record["start_ticks"]):
        return RUNNING
    over = ("ended", "seal.json")  # the second alone stays once the run log has the record
    if record is None and not any(os.path.exists(os.path.join(folder, name)) for name in over):
        return WAITING
    return ENDED if any(os.path.isdir(path) for path in _places(spec)) else GONE


def _record(folder: str, rank: int) -> Optional[protocol.TaskRecord]:
    found: Optional[protocol.TaskRecord] = node.read_json(shim.task_path(folder, rank))
    return found


def _places(spec: protocol.TaskSpec) -> List[str]:
    """Where the task began; at the end little but what it wrote is left there."""
    return [work_path(spec), root_path(spec)]


def _environment(pid: int) -> Dict[str, str]:
    """What a process was started with: proc(5), /proc/PID/environ."""
    with open("/proc/%d/environ" % pid, "rb") as file:
        entries = file.read().split(b"\0")
    pairs = [os.fsdecode(entry).partition("=") for entry in entries if b"=" in entry]
    return {name: value for name, _, value in pairs}


def _in_container(socket: str, container: str, words: List[str]) -> List[str]:
    """The engine gives what is executed there the container's environment, user and folder."""
    mode = "-it" if not words and sys.stdin.isatty() else "-i"
    options = [mode, "-e", AGENT_MARK + "=1"]
    for name in _OF_THE_TERMINAL if mode == "-it" else ():
        options += ["-e", name]
    inside = words or ["/bin/sh", "-c", _SHELL]
    return [*_client(), "unix://" + socket, "exec", *options, container, *inside]


def _client() -> List[str]:
    """Either program speaks to either engine."""
    is_podman = shutil.which("docker") is None and shutil.which("podman") is not None
    return ["podman", "--url"] if is_podman else ["docker", "--host"]


def _login_shell() -> str:
    import pwd

    try:
        return os.environ.get("SHELL") or pwd.getpwuid(os.getuid()).pw_shell or "/bin/sh"
    except KeyError:
        return "/bin/sh"


def _become(argv: List[str], environment: Dict[str, str]) -> NoReturn:
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, and not meant for what follows it
        signal.signal(ignored, signal.SIG_DFL)
    try:
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        sys.stderr.write("error[no_program]: %s: %s\n" % (argv[0], error.strerror))
        sys.exit(_NO_PROGRAM)
