"""Looks after the container of one task: makes it, starts it, waits for it, writes down how it ended.

Normally in a process of its own, the rank's shim. If that one dies, a thread of the supervisor goes on: whatever is
needed is at the engine, under a name that only one container can have, and a lock tells who is the one to look.
"""

from __future__ import annotations

import json
import os
import select
import time
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, NoReturn, Optional, Set, Tuple

from mllaunch_agent import container, node, protocol, shim, system
from mllaunch_agent.container_watch import MainProcess, Output, Wait, seen_from_here
from mllaunch_agent.engine import Engine, EngineError, EngineGone
from mllaunch_agent.engine_answer import Answer, Frames
from mllaunch_agent.watchdog import Watchdog

__all__ = ["Launch", "lock_path", "look_after", "run"]

_RETRY_S = 0.5  # while the engine does not answer
_LOOK_S = 5.0  # an exit that nothing told of is found within this time
_START_PATIENCE_S = 10.0  # for a start that a shim which died may have asked for
_ENGINE_PATIENCE_S = 60.0  # after the task's end, for an engine that is gone to come back and say how it was
_FULL_DISK_PAUSE_S = 0.5
_EMPTY_PAUSE_S = 0.1  # after an answer that says nothing: an engine with a fault must not keep us busy
_LAGS_S = (0.02, 1.0)  # for the engine to notice an end that the kernel has told: at first, and at most
_OVER = ("exited", "dead", "removing")


class Launch(NamedTuple):
    """One task as a container. request: the create request. manner: a file that holds the Manner once it is known."""

    folder: str
    rank: int
    engine: str
    name: str
    request: Callable[[container.Manner], Dict[str, Any]]
    manner: str


def lock_path(folder: str, rank: int) -> str:
    """Locked by whoever looks after the rank's container."""
    return os.path.join(folder, "shim-%d.lock" % rank)


def run(launch: Launch, revive: Callable[[], None], alive: int, close: Tuple[int, ...]) -> NoReturn:
    """Be the shim; never returns. As shim.run."""
    status = 1
    try:
        wakeup = shim.settle(close)
        lock = system.try_lock(lock_path(launch.folder, launch.rank))
        if lock is not None:

            def become_supervisor() -> None:
                os.close(lock)  # or the lock would outlive this process
                revive()

            watchdog = Watchdog(alive, become_supervisor, wakeup)

            def wait(files: Iterable[int], timeout_s: Optional[float]) -> Set[int]:
                ready = watchdog.wait(files, timeout_s)
                _reap(watchdog.supervisors)
                return ready

            _Keeper(launch, wait).keep()
        status = 0
    finally:
        os._exit(status)


def look_after(launch: Launch) -> None:
    """Do the same in a thread, where the shim has died. Returns once the exit is on record, or another looks."""
    lock = system.try_lock(lock_path(launch.folder, launch.rank))
    if lock is None:
        return
    try:
        _Keeper(launch, _wait).keep()
    finally:
        os.close(lock)


def _reap(supervisors: List[int]) -> None:
    """Collect our children that have ended. The task is none of them, so nobody else asks how."""
    while True:
        try:
            pid = os.waitpid(-1, os.WNOHANG)[0]
        except ChildProcessError:
            return
        if not pid:
            return
        if pid in supervisors:
            supervisors.remove(pid)


def _wait(files: Iterable[int], timeout_s: Optional[float]) -> Set[int]:
    poll = select.poll()
    for file in files:
        poll.register(file, select.POLLIN)
    return {file for file, _ in poll.poll(None if timeout_s is None else timeout_s * 1000)}


def _explained(message: str) -> str:
    """The engine's words, or ours where they are clearer."""
    return container.NO_GPU if "could not select device driver" in message else message


class _Lost(EngineError):
    """The container is not there, or nothing can be heard of it: how the task ended cannot be known, if it began."""


class _Keeper:
    def __init__(self, launch: Launch, wait: Wait) -> None:
        self._launch = launch
        self._wait = wait
        self._engine = Engine(launch.engine)
        self._id = ""
        # A file that is there once a start was asked for.
        self._mark = os.path.join(launch.folder, "starting-%d" % launch.rank)
        self._gone = False  # whether the engine has been away since it last said that the container runs
        self._lag_s = _LAGS_S[0]
        # When the task was found to have ended, of which the engine does not tell.
        self._ended_s: Optional[float] = None

    def keep(self) -> None:
        """See the task through. An error of ours leaves it running, to be looked after by the next."""
        try:
            created = self._persistently(self._find_or_create)
            self._id = created["Id"]
            state = self._start(created)
        except EngineError as e:
            unknown = isinstance(e, _Lost) and os.path.exists(self._mark)
            self._write(error=None if unknown else _explained(e.message))
            return
        labels = created["Config"]["Labels"]
        pid = seen_from_here(int(state.get("Pid") or 0), self._id, labels["mllaunch.run"])
        prints = labels["mllaunch.output"]
        try:
            shim.record_task(self._launch.folder, self._launch.rank, os.getpid(), pid, self._id, prints)
        except FileExistsError:
            pass  # by a shim before this one
        main = MainProcess(pid)
        output = None
        if prints == container.ENGINE:
            output = Output(self._launch.folder, self._launch.rank, self._engine, self._id, self._wait)
        try:
            self._follow(main, output)
        finally:
            main.close()
            if output:
                output.close()

    # --- to the start ---------------------------------------------------------------------------------------

    def _persistently(self, act: Callable[[], Dict[str, Any]]) -> Dict[str, Any]:
        """Do it, waiting for an engine that is away for a moment. EngineError in the end."""
        deadline_s = time.monotonic() + _ENGINE_PATIENCE_S
        while True:
            try:
                return act()
            except EngineGone as e:
                if time.monotonic() > deadline_s:
                    raise _Lost(0, "the container engine does not answer: %s" % e) from e
            self._wait((), _RETRY_S)

    def _find_or_create(self) -> Dict[str, Any]:
        launch = self._launch
        known = node.read_json(launch.manner)
        started = os.path.exists(self._mark)
        found = self._engine.inspect(launch.name)
        if found is None:
            if started:  # a container must never run twice, and so must not its successor
                raise _Lost(404, "the container was removed")
            manner = self._create(container.Manner(*known) if known else container.Manner())
            found = self._created()
        else:
            log = found.get("HostConfig", {}).get("LogConfig", {}).get("Type")
            manner = container.Manner(log=log or container.Manner().log)
        if not known and not started:
            found = self._find_manner(found, manner)
        return found

    def _create(self, manner: container.Manner) -> container.Manner:
        """Make it, and say in which manner."""
        try:
            self._engine.create(self._launch.name, self._launch.request(manner))
        except EngineError as e:
            if "log driver" in e.message and manner.log == container.Manner().log:
                return self._create(manner._replace(log=container.PODMAN_LOG))
            if e.status != 409:  # else another, of whose death the engine had not heard, was first
                raise
        return manner

    def _find_manner(self, found: Dict[str, Any], manner: container.Manner) -> Dict[str, Any]:
        """The container, made anew if its image cannot do what was taken for granted."""
        if self._engine.stat(found["Id"], container.SHELL) is None:
            manner = manner._replace(prints=container.ENGINE)
            self._make_anew(manner)
            found = self._created()
        self._remember(manner)
        return found

    def _created(self) -> Dict[str, Any]:
        found = self._engine.inspect(self._launch.name)
        if found is None:
            raise EngineError(404, "the container vanished as soon as it was made")
        return found

    def _make_anew(self, manner: container.Manner) -> str:
        self._engine.remove(self._launch.name)
        return self._engine.create(self._launch.name, self._launch.request(manner))

    def _remember(self, manner: container.Manner) -> None:
        system.write_atomic(self._launch.manner, json.dumps(manner).encode())

    def _start(self, created: Dict[str, Any]) -> Dict[str, Any]:
        """Start it unless it has been started; its state. A container must never run twice."""
        state: Dict[str, Any] = created["State"]
        if os.path.exists(self._mark):
            # A shim before this one asked for the start; the engine may still be about it.
            deadline_s = time.monotonic() + _START_PATIENCE_S
            while state["Status"] == "created" and time.monotonic() < deadline_s:
                self._wait((), 0.1)
                state = self._persistently(self._inspected)["State"]
        if state["Status"] == "created":
            system.write_atomic(self._mark, b"", durable=False)
            state = self._persistently(self._started)
        return state

    def _started(self) -> Dict[str, Any]:
        found = self._inspected()
        state: Dict[str, Any] = found["State"]
        if state["Status"] != "created":
            return state  # the engine has heard an earlier request, though its answer was lost
        try:
            self._engine.start(self._id)
        except EngineError as e:
            # What this container was made with counts: another run may have found out meanwhile.
            if "rlimit" not in e.message or not found.get("HostConfig", {}).get("Ulimits"):
                raise
            known = container.Manner(*(node.read_json(self._launch.manner) or ()))
            manner = known._replace(limits=False)
            self._id = self._make_anew(manner)
            self._engine.start(self._id)
            self._remember(manner)
        begun: Dict[str, Any] = self._inspected()["State"]
        return begun

    def _inspected(self) -> Dict[str, Any]:
        found = self._engine.inspect(self._id)
        if found is None:
            raise _Lost(404, "the container was removed")
        return found

    # --- to the end -----------------------------------------------------------------------------------------

    def _follow(self, main: MainProcess, output: Optional[Output]) -> None:
        """Until the container has ended and that is on record."""
        waiting: Optional[Answer] = None
        over = False
        try:
            while True:
                try:
                    if waiting is None:
                        waiting = self._engine.waiting(self._id)
                    if output:
                        output.connect()
                    state = self._inspected()["State"]
                    over = state["Status"] in _OVER
                    if over:
                        if output:
                            output.finish()
                        self._write_heard(state)
                        return
                    self._gone = False  # an engine that is back, and has kept the container
                    hopeless = self._is_hopeless(main, answers=True)
                except (EngineGone, EngineError) as e:
                    self._gone = self._gone or (isinstance(e, EngineGone) and not over)
                    removed = isinstance(e, EngineError) and e.status == 404
                    hopeless = removed or self._is_hopeless(main, answers=False)
                    if waiting is not None:
                        waiting.close()
                    waiting = None
                if hopeless:
                    self._write_unheard(main)
                    return
                if waiting is None:
                    self._wait((), _RETRY_S)
                else:
                    waiting = self._await(waiting, output, main)
        finally:
            if waiting is not None:
                waiting.close()

    def _is_hopeless(self, main: MainProcess, answers: bool) -> bool:
        """Whether the task has ended, and the engine has had its time to say how. It may be away, or have failed to
        notice; where it answers, a process that cannot be seen from here is taken to live as it says."""
        if main.lives() or (answers and not main.is_seen()):
            self._ended_s = None
            return False
        if self._ended_s is None:
            self._ended_s = time.monotonic()
        return time.monotonic() - self._ended_s > _ENGINE_PATIENCE_S

    def _await(self, waiting: Answer, output: Optional[Output], main: MainProcess) -> Optional[Answer]:
        """Wait for whatever may mean the end; the connection to go on waiting with."""
        while True:
            printing = output.fileno() if output else None
            files = [file for file in (waiting.fileno(), printing, main.fileno()) if file is not None]
            ready = self._wait(files, _LOOK_S)
            if output and printing in ready:
                output.take()
                if ready == {printing}:
                    continue
            if waiting.fileno() in ready and not waiting.drain():
                waiting.close()
                self._wait((), _EMPTY_PAUSE_S)
                return None
            if main.fileno() in ready:
                # The kernel was faster than the engine, which first writes its own record of the end.
                self._wait((), self._lag_s)
                self._lag_s = min(2 * self._lag_s, _LAGS_S[1])
            return waiting

    def _write_heard(self, state: Dict[str, Any]) -> None:
        code = int(state["ExitCode"])
        error = state.get("Error") or None
        if code and not error:
            error = self._last_words()
        self._write(
            exit_code=code,
            error=error,
            at=_rfc3339(str(state.get("FinishedAt") or "")),
            observed_by="engine",
            out_of_memory=bool(state.get("OOMKilled")),
            by_engine=self._was_stopped(state),
        )

    def _was_stopped(self, state: Dict[str, Any]) -> bool:
        """Whether it was the engine that ended it."""
        if not state["ExitCode"] or state.get("OOMKilled"):
            return False
        try:
            return self._gone or self._engine.was_killed(self._id)
        except EngineGone:
            return True  # it went down just now
        except EngineError:
            return False  # it does not say

    def _write_unheard(self, main: MainProcess) -> None:
        """The engine can say nothing any more: the kernel may."""
        status = main.exit_status()
        if status is None:
            self._write()
        else:
            shim.write_exit(self._launch.folder, self._launch.rank, status, "pidfd")

    def _last_words(self) -> Optional[str]:
        """What the container printed to the engine where it prints to files: why its shell could not begin."""
        found = self._engine.inspect(self._id)
        if found is None or found["Config"]["Labels"]["mllaunch.output"] != container.FILES:
            return None
        try:
            with self._engine.output(self._id, follow=False) as answer:
                text = b"".join(data for _, data in Frames().feed(answer.read(1 << 16)))
        except OSError:
            return None
        return " ".join(text.decode("utf-8", "replace").split()) or None

    def _write(
        self,
        exit_code: Optional[int] = None,
        error: Optional[str] = None,
        at: Optional[str] = None,
        observed_by: Optional[str] = None,
        out_of_memory: Optional[bool] = None,
        by_engine: bool = False,
    ) -> None:
        record: protocol.ExitRecord = {
            "rank": self._launch.rank,
            "exit_code": 127 if error and exit_code is None else exit_code,
            "signal": None,
            "error": error,
            "at": at or system.now(),
            "observed_by": observed_by,
            "cpu_s": None,
            "max_rss_bytes": None,
            "out_of_memory": out_of_memory,
            "by_engine": by_engine,
        }
        while True:
            try:
                shim.store_exit(self._launch.folder, record)
                return
            except OSError as e:
                if not system.is_full(e):
                    raise
            self._wait((), _FULL_DISK_PAUSE_S)


def _rfc3339(text: str) -> Optional[str]:
    """The engine's time, in nanoseconds and any zone, as ours where it is in UTC; None for "never"."""
    whole, _, rest = text.partition(".")
    if not text.endswith("Z") or text.startswith("0001"):
        return None
    return "%s.%sZ" % (whole.rstrip("Z"), (rest.rstrip("Z") + "000")[:3])
