"""The parent of one task: starts it, waits for it, writes down how it ended. No network, no dependencies.

Everything it does after the start is a few system calls in a loop, so that it survives all but its own SIGKILL.
It also watches the supervisor: a supervisor that dies is replaced by a fork of this process, which has the code
in memory already and therefore needs no file, no interpreter and no version that may have changed since.
"""

from __future__ import annotations

import json
import os
import signal
import time
from typing import Callable, Dict, List, NoReturn, Optional, Tuple

from mllaunch_agent import protocol, system
from mllaunch_agent.probes import processes
from mllaunch_agent.watchdog import Watchdog

_IGNORED = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_TAKEN = b"taken"
_FULL_DISK_PAUSE_S = 0.5


def exit_path(folder: str, rank: int) -> str:
    return os.path.join(folder, "exit-%d.json" % rank)


def task_path(folder: str, rank: int) -> str:
    return os.path.join(folder, "task-%d.json" % rank)


class Launch:
    """What a shim starts: one task with its environment, and the descriptors that it inherits."""

    def __init__(
        self,
        folder: str,
        rank: int,
        argv: List[str],
        cwd: str,
        environment: Dict[str, str],
        inherit: Tuple[int, ...] = (),
        cgroup: Optional[str] = None,
    ) -> None:
        self.folder = folder
        self.rank = rank
        self.argv = argv
        self.cwd = cwd
        self.environment = environment
        self.inherit = inherit
        self.cgroup = cgroup


def run(launch: Launch, revive: Callable[[], None], alive: int, close: Tuple[int, ...]) -> NoReturn:
    """Be the shim; never returns. Called in a fresh fork of the supervisor, which has one thread.

    revive is called in a further fork when the supervisor has died, which shows as a hang-up on alive, the
    reading end of its FIFO. close are descriptors of the supervisor that must not stay open here, its lock above all.
    """
    status = 1
    try:
        watchdog = Watchdog(alive, revive, settle(close))
        task = _start(launch)
        while _reap(launch, task, watchdog.supervisors):
            watchdog.wait()
        status = 0
    finally:
        os._exit(status)


def settle(close: Tuple[int, ...]) -> int:
    """What every shim does first: let go of what is the supervisor's, and take care of children. Returns a
    descriptor that becomes readable when one of them ends."""
    for fd in close:
        os.close(fd)
    os.setsid()
    system.become_subreaper()
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    wakeup_r, wakeup_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wakeup_w, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return wakeup_r


def _start(launch: Launch) -> int:
    """Fork and execute the task; its pid. A program that cannot be executed leaves its exit record at once."""
    error_r, error_w = os.pipe2(os.O_CLOEXEC)
    shim_pid = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become_task(launch, error_w, shim_pid)
    os.close(error_w)
    with os.fdopen(error_r, "rb") as pipe:
        error = pipe.read()
    if error == _TAKEN:
        os._exit(0)  # another shim's child became this rank's task, and the supervisor follows that one
    if error:
        # Before the child is reaped: a shim that dies between the two leaves its exit to the supervisor.
        write_exit(launch.folder, launch.rank, None, "shim", error=error.decode("utf-8", "replace"))
        os._exit(0)
    return pid


def _become_task(launch: Launch, error_w: int, shim_pid: int) -> NoReturn:
    """In the child: leave the record of who this is, arrange streams and signals, execute the user's program."""
    try:
        os.setsid()
        if launch.cgroup:
            _join(launch.cgroup)
        record_task(launch.folder, launch.rank, shim_pid)
        null = os.open(os.devnull, os.O_RDONLY)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        streams = os.path.join(launch.folder, "streams")
        out = os.open(os.path.join(streams, protocol.stdout_stream(launch.rank)), flags, 0o600)
        err = os.open(os.path.join(streams, protocol.stderr_stream(launch.rank)), flags, 0o600)
        os.dup2(null, 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        keep = {0, 1, 2, error_w, *launch.inherit}
        for fd in launch.inherit:
            os.set_inheritable(fd, True)
        system.close_all_but(keep)
        os.chdir(launch.cwd)
        for number in range(1, signal.NSIG):
            try:
                signal.signal(number, signal.SIG_DFL)
            except (OSError, ValueError):
                pass  # SIGKILL, SIGSTOP and the C library's own
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execvpe(launch.argv[0], launch.argv, launch.environment)
    except FileExistsError:
        _tell(error_w, _TAKEN)
    except OSError as e:
        what = launch.cwd if e.filename == launch.cwd else launch.argv[0]
        _tell(error_w, ("%s: %s" % (os.strerror(e.errno or 0), what)).encode("utf-8", "replace"))
    except BaseException as e:  # noqa: BLE001  told to the shim, which has the record to write
        _tell(error_w, repr(e).encode("utf-8", "replace"))
    finally:
        os._exit(127)


def _tell(error_w: int, message: bytes) -> None:
    # A shim that is dead hears nothing; SIGPIPE would then look like the end of a program that never ran.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.write(error_w, message)


def _join(cgroup: str) -> None:
    try:
        fd = os.open(os.path.join(cgroup, "cgroup.procs"), os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return  # accounting by cgroup is a convenience; the sweep by process tree does not need it
    try:
        os.write(fd, b"0")
    except OSError:
        pass
    finally:
        os.close(fd)


def record_task(
    folder: str,
    rank: int,
    shim_pid: int,
    pid: Optional[int] = None,
    container: Optional[str] = None,
    prints: Optional[str] = None,
) -> None:
    """Written by the process that is about to become the task, so that no task ever runs unrecorded; or by the
    shim of a container that has been created, whose main process is pid (0: it has ended already).

    shim_pid may be dead already: the parent is then somebody who must not be taken for a shim, and killed as one.
    Raises FileExistsError if the rank has a task already: whoever comes second must not become another.
    """
    pid = os.getpid() if pid is None else pid
    record: protocol.TaskRecord = {
        "rank": rank,
        "pid": pid,
        "start_ticks": processes.start_ticks(pid) or 0,
        "boot_id": system.boot_id(),
        "shim_pid": shim_pid,
        "shim_start_ticks": processes.start_ticks(shim_pid) or 0,
        "container": container,
        "prints": prints,
    }
    temporary = "%s.%d.tmp" % (task_path(folder, rank), os.getpid())
    with open(temporary, "wb") as f:
        f.write(json.dumps(record).encode())
    try:
        os.link(temporary, task_path(folder, rank))
    finally:
        os.unlink(temporary)


def write_exit(
    folder: str,
    rank: int,
    status: Optional[int],
    observed_by: Optional[str],
    error: Optional[str] = None,
    cpu_s: Optional[float] = None,
    max_rss_bytes: Optional[int] = None,
) -> None:
    """Write the exit record once, durably. status is wait(2)'s; None when nobody could read it."""
    exited = status is not None and os.WIFEXITED(status)
    signaled = status is not None and os.WIFSIGNALED(status)
    record: protocol.ExitRecord = {
        "rank": rank,
        "exit_code": 127 if error else os.WEXITSTATUS(status) if status is not None and exited else None,
        "signal": os.WTERMSIG(status) if status is not None and signaled else None,
        "error": error,
        "at": system.now(),
        "observed_by": observed_by,
        "cpu_s": cpu_s,
        "max_rss_bytes": max_rss_bytes,
        "out_of_memory": None,
        "by_engine": False,
    }
    store_exit(folder, record)


def store_exit(folder: str, record: protocol.ExitRecord) -> None:
    """Write an exit record, unless there is one."""
    path = exit_path(folder, record["rank"])
    if os.path.exists(path):
        return
    data = json.dumps(record).encode()
    try:
        system.write_atomic(path, data, durable=True)
    except OSError as e:
        if not system.is_full(e):
            raise
        release_ballast(folder)
        system.write_atomic(path, data, durable=True)


def ballast_path(folder: str) -> str:
    """A file that only holds room, given up when the disk is full so that the end can still be written down."""
    return os.path.join(folder, "ballast")


def release_ballast(folder: str) -> None:
    try:
        os.unlink(ballast_path(folder))
    except FileNotFoundError:
        pass


def _reap(launch: Launch, task: int, supervisors: List[int]) -> bool:
    """Collect every child that has ended; whether any but supervisors is left."""
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        if found is None:
            break
        if found.si_pid == task:
            while not write_down(launch.folder, launch.rank, task, "shim"):
                time.sleep(_FULL_DISK_PAUSE_S)  # only this process knows how the task ended
        elif found.si_pid in supervisors:
            supervisors.remove(found.si_pid)
        os.waitpid(found.si_pid, 0)
    if not os.path.exists(exit_path(launch.folder, launch.rank)):
        return True
    return _has_other_children(supervisors)


def write_down(folder: str, rank: int, pid: int, observed_by: str) -> bool:
    """Write the exit record of a child of ours; False if it lives, or the disk has no room for the record.

    The child is still to be reaped then: who reads an exit and dies before it is on disk leaves a zombie to the
    next, who reads the same.
    """
    ended = system.peek_exit(pid)
    if ended is None:
        return False
    try:
        write_exit(folder, rank, ended.status, observed_by, None, ended.cpu_s, ended.max_rss_bytes)
    except OSError as e:
        if not system.is_full(e):
            raise
        return False
    return True


def _has_other_children(known: List[int]) -> bool:
    return any(pid not in known for pid in processes.children(os.getpid()))
