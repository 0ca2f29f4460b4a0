"""What a launcher can ask of a node: docs/protocol.md, "Calls". How it is asked: serving.py."""

from __future__ import annotations

import os
import shutil
import sys
import time
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple, Optional

from mllaunch_agent import PROTOCOL_VERSION, __version__, codekeeping, node, protocol, starting, system
from mllaunch_agent.attempts import Attempts
from mllaunch_agent.codekeeping import CodeKeeping

if TYPE_CHECKING:
    from mllaunch_agent.checkpointkeeping import CheckpointKeeping
    from mllaunch_agent.environments import Environments
    from mllaunch_agent.sweeping import Unused

AT_MOST_BYTES = 1 << 30  # in one call, or one answer
_MEETING_S = 10.0


class Data(NamedTuple):
    """An answer that is bytes. value: what is said beside them."""

    content: bytes
    value: Any = None


class Calls:
    """One method for each call. Those about attempts take the run's id and the attempt's number.

    What not every launcher asks for is imported when it is asked for: on many nodes at once a start is waited for.
    """

    def __init__(self, home: str) -> None:
        self._home = home
        self._attempts = Attempts(home)
        self._code = CodeKeeping(home)

    # --- the node ----------------------------------------------------------------------------------------------

    def do_hello(self) -> Dict[str, Any]:
        """Who answers. at_s: the node's clock, Unix seconds."""
        return {
            "protocol": PROTOCOL_VERSION,
            "version": __version__,
            "python": "%d.%d.%d" % sys.version_info[:3],
            "hostname": os.uname().nodename,
            "boot_id": system.boot_id(),
            "at_s": time.time(),
            "home": self._home,
            "import_path": import_path(),
        }

    def do_offer(self) -> Dict[str, Any]:
        """What the node has, and how much of it is free now. waiting: runs that wait for GPUs."""
        from mllaunch_agent import leases
        from mllaunch_agent.probes.gpu import Gpus

        gpus = Gpus(import_path())
        found = gpus.list()
        holders = {holder["gpu"]: holder for holder in leases.holders()}
        strangers = [
            dict(process, gpu=gpu["uuid"])
            for gpu in found
            if gpu["uuid"] not in holders
            for process in gpus.processes(gpu["uuid"]) or ()
        ]
        used = set(holders) | {process["gpu"] for process in strangers}
        return {
            "gpus": found,
            "free": [gpu["uuid"] for gpu in found if gpu["uuid"] not in used],
            "holders": list(holders.values()),
            "strangers": strangers,
            "waiting": leases.waiting(),
            "driver": gpus.versions()["driver"] if found else None,
            "problems": list(gpus.not_captured()),
            "cpus": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
            "free_memory_bytes": _free_memory_bytes(),
            "load": os.getloadavg()[0],
        }

    def do_engine(self, thoroughly: bool = False) -> Dict[str, Any]:
        """The node's container engine: its socket (None if that is not on the node), and either what it says of itself
        as version, or why it cannot be used as problem; is_denied then says that it is there but not for this user.
        thoroughly: also the names of its runtimes."""
        from mllaunch_agent.engine import Engine, socket_path

        socket = socket_path(os.environ)
        found: Dict[str, Any] = {"socket": socket, "version": None, "problem": None, "is_denied": False}
        if socket is None or not os.path.exists(socket):
            return {**found, "problem": "none answers at %s" % (socket or os.environ.get("DOCKER_HOST"))}
        try:
            engine = Engine(socket)
            found["version"] = engine.version()
            if thoroughly:
                found["runtimes"] = sorted(engine.info().get("Runtimes") or ())
            return found
        except OSError as error:
            denied = isinstance(error.__cause__, PermissionError)
            problem = "you may not use it (%s)" % socket if denied else str(error)
            return {**found, "problem": problem, "is_denied": denied}

    def do_has_image(self, socket: str, image: str) -> bool:
        from mllaunch_agent.engine import Engine

        return Engine(socket).image(image) is not None

    def do_shared_layers(self, socket: str, layers: List[str]) -> int:
        from mllaunch_agent.engine import Engine

        return Engine(socket).shared_layers(layers)

    def do_which(self, programs: List[str]) -> Optional[str]:
        """The absolute path of the first of the programs that is there; None if none is."""
        for program in programs:
            found = shutil.which(os.path.expanduser(program))
            if found is not None:
                return os.path.abspath(found)
        return None

    def do_missing(self, paths: List[str]) -> List[str]:
        """Those of the paths at which nothing is; a link that leads nowhere is nothing."""
        return [path for path in paths if not os.path.exists(path)]

    def do_check(self, lease_dir: Optional[str]) -> Dict[str, Any]:
        from mllaunch_agent.checkup import checkup

        return checkup({"home": self._home, "import_path": import_path(), "lease_dir": lease_dir})

    # --- code --------------------------------------------------------------------------------------------------

    def do_tree(self, key: str) -> Dict[str, Any]:
        """Where a tree is, and whether it is there. Code stays as it is until an attempt has been started with it."""
        self._code.hold()
        return {"path": self._code.tree(key), "is_there": self._code.has(key)}

    def do_lacking(self, content: bytes) -> List[str]:
        return self._code.lacking(content)

    def do_keep(self, sizes: List[List[Any]], content: bytes) -> None:
        """Keep several contents, one after the other. sizes: [id, bytes] of each."""
        offset = 0
        for blob, size in sizes:
            self._code.keep(blob, content[offset : offset + size])
            offset += size

    def do_keep_part(self, blob: str, offset: int, content: bytes) -> None:
        self._code.keep_part(blob, offset, content)

    def do_keep_whole(self, blob: str) -> None:
        self._code.keep_whole(blob)

    def do_make(self, key: str, content: bytes) -> None:
        self._code.make(key, content)

    # --- checkpoints -------------------------------------------------------------------------------------------

    @property
    def _checkpoints(self) -> "CheckpointKeeping":
        from mllaunch_agent.checkpointkeeping import CheckpointKeeping

        return CheckpointKeeping(self._home)

    def do_examine_checkpoint(
        self, run_id: str, number: int, path: str, sha256: str, size_bytes: Optional[int]
    ) -> Dict[str, Any]:
        """Read a checkpoint that an attempt wrote: {"problem": what is wrong with it} or {"place", "keys", "files":
        [name in its folder, bytes] of each; "" names one that is a file}. path: as in the files stream."""
        from mllaunch_agent import checkpoint

        place = os.path.join(self._attempts.folder(run_id, number), "work", path)
        problem, keys = checkpoint.examine(place, sha256, size_bytes)
        if problem is not None:
            return {"problem": problem}
        names = checkpoint.files_in(place) if os.path.isdir(place) else [""]
        files = [[name, os.stat(os.path.join(place, name) if name else place).st_size] for name in names]
        return {"problem": None, "place": place, "keys": keys, "files": files}

    def do_read_checkpoint(self, place: str, name: str, offset: int, limit: int) -> Data:
        with open(os.path.join(place, name) if name else place, "rb") as file:
            file.seek(offset)
            return Data(file.read(min(limit, AT_MOST_BYTES)))

    def do_find_checkpoint(self, sha256: str, name: str) -> Optional[Dict[str, Any]]:
        self._code.hold()  # against being swept away, as everything here, until the run begins
        return self._checkpoints.find(sha256, name)

    def do_held_of_checkpoint(self, sha256: str, names: List[str]) -> List[int]:
        return self._checkpoints.held(sha256, names)

    def do_keep_checkpoint_part(self, sha256: str, name: str, offset: int, content: bytes) -> None:
        self._checkpoints.keep_part(sha256, name, offset, content)

    def do_keep_checkpoint(self, sha256: str, name: str) -> Dict[str, Any]:
        return self._checkpoints.keep_whole(sha256, name)

    # --- environments ------------------------------------------------------------------------------------------

    @property
    def _environments(self) -> "Environments":
        from mllaunch_agent.environments import Environments

        return Environments(self._home)

    def do_make_environment(self, kind: str, sizes: List[List[Any]], content: bytes) -> str:
        """Have an environment made, if it is not there; its key. sizes: [relative path, bytes] of each file in content;
        the first is the one to install from."""
        self._code.hold()
        files = []
        offset = 0
        for path, size in sizes:
            files.append((path, content[offset : offset + size]))
            offset += size
        return self._environments.make(kind, files, environment())

    def do_environment(self, key: str, offset: int) -> Dict[str, Any]:
        return self._environments.state(key, offset)

    # --- attempts ----------------------------------------------------------------------------------------------

    def do_start(self, spec: protocol.TaskSpec, venv: Optional[str] = None) -> None:
        """Start an attempt. What the specification leaves to the node: the rest of the environment.

        venv: the virtual environment that its tasks are in.
        """
        folder = self._attempts.folder(spec["run_id"], spec["attempt"])
        session = environment()
        if venv is not None:
            from mllaunch_agent.environments import variables

            session.update(variables(venv, session))
        whole = {**spec, "folder": folder, "environment": {**session, **spec["environment"]}}
        whole["cache"] = os.path.join(self._home, "cache")
        whole["import_path"] = import_path()
        self._supervise(whole, spec["run_id"], spec["attempt"])
        self._code.let_go()  # from now on the attempt's own folder tells what it needs

    def do_retry(self, run_id: str, number: int, meeting: Optional[protocol.Meeting]) -> None:
        """Start the attempt after a failed one with the same specification. Harmless when it has started already."""
        spec = self._attempts.following(run_id, number)
        if spec is not None:
            self._supervise({**spec, "meeting": meeting}, run_id, number + 1)

    def do_meeting(self, run_id: str, number: int) -> Dict[str, Any]:
        """Where the agent of an attempt's first node can be reached, and by what it knows the others:
        {"port", "addresses", "token"}."""
        folder = node.AttemptFolder(self._attempts.folder(run_id, number))
        path = folder.path("meeting.json")
        patience_s = time.monotonic() + _MEETING_S
        while True:
            found: Optional[Dict[str, Any]] = node.read_json(path)
            spec = folder.spec()
            if found is not None and found["addresses"] and spec is not None and spec["meeting"] is not None:
                return {**found, "token": spec["meeting"]["token"]}
            if found is not None:
                raise OSError("no address is known under which other nodes could reach this one")
            if time.monotonic() > patience_s:
                raise FileNotFoundError("the first agent does not listen")
            time.sleep(0.01)

    def _supervise(self, spec: Any, run_id: str, number: int) -> None:
        reached = _reached()

        def act() -> None:
            from mllaunch_agent import supervisor

            os.environ["MLLAUNCH_REACHED"] = reached
            supervisor.supervise(spec)

        reader, writer = os.pipe()
        pid = starting.fork(act, writer)
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            answer = pipe.readline()
        if answer == b"ok\n":
            return
        os.waitpid(pid, 0)  # until then it still holds the lock of what it has not taken
        if not self._attempts.has_begun(run_id, number):
            raise OSError(answer.decode(errors="replace").strip() or "the agent ended without a word")

    def do_look(self, run_id: str, number: int) -> Optional[Dict[str, Any]]:
        """How an attempt stands and how much of each stream can be shipped; None if nothing of it is here."""
        found = self._attempts.find(run_id, number)
        if found is None:
            return None
        seal = found.seal()  # before the lengths, which are then final
        alive = seal is not None or found.is_alive()
        spec = found.spec()
        return {
            "node": spec["node"] if spec else None,
            "seal": seal,
            "alive": alive,
            "lengths": found.lengths(),
        }

    def do_read(self, run_id: str, number: int, stream: str, offset: int, limit: int) -> Data:
        found = self._attempts.find(run_id, number)
        return Data(found.read(stream, offset, limit) if found else b"")

    def do_stop(self, run_id: str, number: int, request: protocol.StopRequest) -> bool:
        """Whether there was anything to leave the request with."""
        found = self._attempts.find(run_id, number)
        if found is not None:
            found.request_stop(request)
        return found is not None

    def do_revive(self, run_id: str, number: int) -> None:
        self._attempts.revive(run_id, number)

    def do_abandon(self, run_id: str, number: int) -> bool:
        return self._attempts.abandon(run_id, number)

    def do_outputs(self, run_id: str, number: int) -> Optional[List[Dict[str, Any]]]:
        """What is in the output folder at this moment; None if nothing is left of the attempt."""
        found = self._kept(run_id, number)
        return None if found is None else found.output_now()

    def do_stat_output(self, run_id: str, number: int, path: str) -> Dict[str, int]:
        opened = self._output(run_id, number, path)
        try:
            return opened.stat()
        finally:
            opened.close()

    def do_read_output(self, run_id: str, number: int, path: str, offset: int, limit: int) -> Data:
        opened = self._output(run_id, number, path)
        try:
            return Data(opened.read(offset, limit))
        finally:
            opened.close()

    def _output(self, run_id: str, number: int, path: str) -> node.OpenOutput:
        found = self._kept(run_id, number)
        if found is None:
            raise FileNotFoundError("nothing is left of attempt %d" % number)
        return found.open_output(path)

    def _kept(self, run_id: str, number: int) -> Optional[node.AttemptFolder]:
        """Also one whose streams have been freed."""
        folder = self._attempts.folder(run_id, number)
        return node.AttemptFolder(folder) if os.path.isdir(folder) else None

    def do_enter(self, run_id: str, number: int, rank: int) -> Dict[str, Any]:
        """How a task stands, and the command line that leads to it; see entering.look."""
        from mllaunch_agent import entering

        return entering.look(self._attempts.folder(run_id, number), rank)

    # --- disk --------------------------------------------------------------------------------------------------

    def do_kept(self) -> List[str]:
        return self._attempts.kept()

    def do_held(self, attempts: List[List[Any]]) -> List[Optional[List[int]]]:
        """Of each attempt, [run, number], how much disk it takes: [our copies of its streams, what its tasks wrote];
        None if nothing is left."""
        held = [self._attempts.held_bytes(run_id, number) for run_id, number in attempts]
        return [None if one is None else list(one) for one in held]

    def do_unused(self, for_s: float) -> Dict[str, int]:
        """Code that nothing here has used for so long, and what freeing it would give."""
        from mllaunch_agent import sweeping

        lock = system.share_lock(codekeeping.lock_path(self._home))  # nobody sweeps meanwhile
        try:
            return _summary(sweeping.find(self._home, for_s))
        finally:
            os.close(lock)

    def do_sweep(self, for_s: float, seldom: bool) -> Optional[Dict[str, int]]:
        """Free it. None if somebody is sending code now, or it was done of late and need be done seldom only."""
        from mllaunch_agent import sweeping

        found = sweeping.sweep(self._home, for_s, seldom)
        return None if found is None else _summary(found)

    def do_release_streams(self, run_id: str, number: int) -> None:
        self._attempts.release_streams(run_id, number)

    def do_discard(self, run_id: str, number: int) -> None:
        self._attempts.discard(run_id, number)


def _summary(found: "Unused") -> Dict[str, int]:
    return {
        "trees": len(found.trees),
        "contents": len(found.contents),
        "agents": len(found.agents),
        "size_bytes": found.size_bytes,
    }


def _free_memory_bytes() -> Optional[int]:
    """What programs could have without anything being swapped out: proc(5), MemAvailable."""
    with open("/proc/meminfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return None


def _reached() -> str:
    """The address under which the launcher has reached this node; "" if that is not known. sshd(8), ENVIRONMENT."""
    words = os.environ.get("SSH_CONNECTION", "").split()
    return words[2] if len(words) == 4 else ""


def import_path() -> List[str]:
    """Where nvidia-ml-py is: the archive that this agent came in brings it along."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    return [os.path.join(root, "lib")]


def environment() -> Dict[str, str]:
    """What a task finds of the node: what its user's session has."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("SSH_", "MLLAUNCH_AGENT"))
    }
