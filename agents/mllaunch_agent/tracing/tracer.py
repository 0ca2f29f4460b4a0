"""Follows what the tasks' processes note down, identifies what they read and wrote, and tells it: the stream ``trace``.

Runs in one thread of low priority beside the tasks. A supervisor that takes over reads all notes again, and tells only
what is not in the stream yet. The records are described in docs/trace.md.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from mllaunch_agent import hashing, protocol, redaction, system
from mllaunch_agent.blobs import BlobLog, past_lines
from mllaunch_agent.streams import Stream
from mllaunch_agent.tracing import folder_of, inputs
from mllaunch_agent.tracing.checkpoints import Checkpoints
from mllaunch_agent.tracing.ledger import Ledger, Process, Use, User
from mllaunch_agent.tracing.places import Places
from mllaunch_agent.tracing.raw import Reader

__all__ = ["Tracer"]

Line = Dict[str, Any]
Say = Callable[..., Any]

# What libraries ask about the machine; nothing of the run goes into them, or comes out.
_ASKING = {"uname", "ldconfig", "lscpu", "lsb_release", "nvidia-smi", "true"}
_ARGV = 16  # words of a command line
_WORD = 1000  # characters of one
_PROCESSES = 1000
_MIXED_PROCESSES = 16
_WRITERS = 2000


class Tracer:
    def __init__(
        self,
        spec: protocol.TaskSpec,
        places: Places,
        blobs: BlobLog,
        open_files: Callable[[], Set[str]],
    ) -> None:
        self._spec = spec
        self._places = places
        self._blobs = blobs
        self.digests = hashing.Digests()
        self._reader = Reader(folder_of(spec["folder"]))
        self._ledger = Ledger()
        self._said = _Said(spec["folder"])
        self._mixed: Dict[str, int] = {}
        self._told = 0  # processes that were looked at
        self._waiting: List[str] = []  # those of them that may be told of by somebody who knows more
        self._pythons: Set[int] = set()
        self._processes = 0
        self._booted_ns = int((time.time() - system.boot_s()) * 1e9)
        self._checkpoints = Checkpoints(self._ledger, places, self.digests, open_files, self._wall)
        self._inputs = inputs.Inputs(spec, self._ledger, places, self.digests, self._wall)

    # --- while the tasks run ------------------------------------------------------------------------------------

    def look(self, say: Say) -> None:
        """Take in what is new, and tell of it."""
        for record in self._reader.look():
            self._ledger.feed(record)
        self._tell_processes(False)
        for use in self._ledger.new_uses():
            self._tell_use(use)
        self._tell_mixed(say)
        self._said.all(self._checkpoints.look())
        self._said.all(self._inputs.look())

    def _tell_processes(self, ended: bool) -> None:
        """Each once. Of a Python with both layers it is the hook that knows more; the C layer is a moment earlier."""
        fresh = [*self._waiting, *list(self._ledger.processes)[self._told :]]
        self._told, self._waiting = len(self._ledger.processes), []
        for name in fresh:
            process = self._ledger.processes[name]
            if not process.version and _is_python(process.executable) and not ended:
                self._waiting.append(name)
                continue
            if process.version:
                self._pythons.add(process.pid)
            elif process.pid in self._pythons and _is_python(process.executable):
                continue
            self._tell_process(process)
            self._ledger.processes[name] = process._replace(argv=())

    def _tell_process(self, process: Process) -> None:
        self._processes += 1
        if self._processes > _PROCESSES:
            return
        argv = redaction.mask_argv(list(process.argv[:_ARGV]), self._spec["secrets"])
        self._said.one(
            {
                "record": "process",
                "at": self._wall(process.ms),
                "pid": process.pid,
                "parent": process.parent,
                "rank": process.rank,
                "executable": process.executable,
                "version": process.version or None,
                "argv": [word[:_WORD] for word in argv],
            }
        )

    def _tell_use(self, use: Use) -> None:
        place = self._places.on_node(use.path)
        blob = use.blob
        if blob is None and place is not None:
            from mllaunch_agent.codewatch import blob_id

            blob = blob_id(place)
        committed = (
            self._places.committed(self._places.shown(use.path)) if self._places.is_inside(use.path) else None
        )
        if blob is not None and blob != committed:
            self._blobs.keep_file(blob, os.path.join(folder_of(self._spec["folder"]), "code-" + blob))
            if place is not None:
                self._blobs.keep_file(blob, place)
        self._said.one(
            {
                "record": "code",
                "at": self._wall(use.ms),
                "path": self._places.shown(use.path),
                "blob": blob,
                "committed": committed,
                "how": use.how,
                "rank": use.user.rank,
                "pid": use.user.pid,
            },
            use.is_first,
        )

    def _tell_mixed(self, say: Say) -> None:
        for path, had in self._ledger.mixed():
            if self._mixed.get(path) != len(had):
                self._mixed[path] = len(had)
                versions = [
                    {
                        "blob": blob,
                        "by": [_user(user) for user in users[:_MIXED_PROCESSES]],
                        "processes": len(users),
                    }
                    for blob, users in had.items()
                ]
                say(protocol.CODE_MIXED, path=self._places.shown(path), versions=versions)

    # --- after the end ------------------------------------------------------------------------------------------

    def finish(self, say: Say) -> None:
        """The tasks are over: identify what is left, and say what could not be seen."""
        self.look(say)
        self._tell_processes(True)
        self._said.all(self._checkpoints.finish())
        self._said.all(self._inputs.finish())
        self._tell_writers()
        for what, why in [*self._checkpoints.missed(), *self._inputs.missed(), *self._unseen()]:
            say(protocol.NOT_CAPTURED, what=what, why=why)
        if self._said.dropped:
            why = "the disk was full; %d records are missing" % self._said.dropped
            say(protocol.NOT_CAPTURED, what=protocol.TRACE, why=why)
        self._said.close()
        self._blobs.close()

    def _tell_writers(self) -> None:
        """Who wrote what is there in the end; its content is in the ``files`` stream, or here if it lies elsewhere."""
        for path, writing in list(self._ledger.writes.items())[:_WRITERS]:
            place = self._places.on_node(path)
            if place is None or not os.path.isfile(place):
                continue
            line = {
                "record": "written",
                "at": self._wall(writing.ms),
                "path": self._places.shown(path),
                "rank": writing.user.rank,
                "pid": writing.user.pid,
                "by": writing.by,
                "step": writing.step,
            }
            self._said.one(line)

    def _unseen(self) -> List[Tuple[str, str]]:
        """(what, why) of what the hook could not see."""
        ledger = self._ledger
        found = []
        program = os.path.basename(self._spec["argv"][0])
        silent = sorted((ledger.silent | (set() if _is_python(program) else {program})) - _ASKING)
        if "c" not in ledger.layers and silent:
            names = ", ".join(silent[:8]) + (", ..." if len(silent) > 8 else "")
            what = "inputs, outputs: files that programs other than Python opened (%s)" % names
            found.append((what, "the C layer is off"))
        if not ledger.processes and self._spec["python"]:
            found.append(
                (
                    "code, inputs: what the tasks' Python processes did",
                    "the hook did not begin in any of them",
                )
            )
        for (why, command), count in sorted(ledger.shut.items()):
            reason = {
                "isolated": "it was started with -I, -E or -S, which keep the hook out",
                "environment": "it was started with an environment of its own, which leaves the hook out",
            }.get(why, why)
            times = "" if count == 1 else ", %d times" % count
            if "c" not in ledger.layers or why == "environment":
                shown = redaction.mask_text(command, self._spec["secrets"])
                found.append(
                    ("code, inputs, outputs: of the child process `%s`%s" % (shown[:120], times), reason)
                )
        found += [("part of the hook", fault) for fault in sorted(ledger.faults)]
        if ledger.left_out:
            what = "%d processes, files or versions beyond what is kept of one attempt" % ledger.left_out
            found.append((what, "there are too many"))
        return found

    def _wall(self, ms: int) -> str:
        """Wall time of a time since boot."""
        from mllaunch_agent.outputs import rfc3339

        return rfc3339(self._booted_ns + ms * 1000000) or ""


def _is_python(executable: str) -> bool:
    return os.path.basename(executable).startswith(("python", "pypy"))


def _user(user: User) -> Dict[str, Any]:
    return {"rank": user.rank, "pid": user.pid}


class _Said:
    """The ``trace`` stream: each line once, also over the deaths of supervisors."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._keys: Optional[Set[str]] = None
        self._stream: Optional[Stream] = None
        self.dropped = 0

    def all(self, lines: Sequence[Line]) -> None:
        for line in lines:
            self.one(line)

    def one(self, line: Line, whoever: bool = False) -> None:
        """whoever: it is the same line whoever did it, for it depends on chance who is seen to be the first."""
        if self._keys is None:
            self._keys = {key for past in past_lines(self._folder, protocol.TRACE) for key in _keys(past)}
        by_this, by_anybody = _keys(line)
        if (by_anybody if whoever else by_this) in self._keys:
            return
        self._keys.update((by_this, by_anybody))
        if self._stream is None:
            self._stream = Stream(self._folder, protocol.TRACE)
        self._stream.write(json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n")
        self.dropped = self._stream.dropped

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None


def _keys(line: Line) -> Tuple[str, str]:
    """What makes a line another one; and that, whoever did what it tells."""
    names = _KEYS.get(str(line.get("record")), _KEY)
    found = [line.get(name) for name in names]
    return json.dumps([*found, line.get("pid")]), json.dumps([*found, None])


_KEY = ("record", "path", "blob", "sha256", "problem", "argv")
_KEYS = dict.fromkeys(("input", "folder", "read"), ("record", "path"))  # what it was at first
