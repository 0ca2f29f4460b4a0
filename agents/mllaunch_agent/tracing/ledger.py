"""What is known of the tasks' processes, folded from their records; pure.

Everything is bounded: a program that opens a million files, or starts a hundred thousand processes, costs no more
memory here than one that stays just below the limits, and what was left out is counted.
"""

from __future__ import annotations

import os.path
from typing import Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from mllaunch_agent.tracing.raw import Record

__all__ = ["Access", "Ledger", "Process", "Use", "User", "Writing"]

_USERS = 16  # processes named for one file
_PATHS = 50_000
_PROCESSES = 10_000
_TAKERS = 200  # processes of which it is known what they took from a file of the code, and how often each
_NAMED = 200


class User(NamedTuple):
    rank: Optional[int]
    pid: int


class Process(NamedTuple):
    pid: int
    parent: int
    rank: Optional[int]
    executable: str
    version: str
    argv: Tuple[str, ...]
    ms: int


class Access:
    """A file that was read."""

    def __init__(self, ms: int) -> None:
        self.ms = ms
        self.last_ms = ms
        self.users: List[User] = []
        self.by: Optional[str] = None  # the function of a library that loaded it


class Writing:
    """A file that was written, as far as that is told: closed, or not yet."""

    def __init__(self, ms: int, user: User) -> None:
        self.first_ms = ms
        self.ms = ms
        self.user = user
        self.lost = 0  # versions that nobody has looked at before the next
        self.by: Optional[str] = None
        self.step: Optional[int] = None
        self.closed = False
        self.changed = True  # since somebody looked at its content


class Use(NamedTuple):
    """A process took code from a file. blob: git's id of it; None: not known. how: source, run, bytecode, native."""

    path: str
    blob: Optional[str]
    how: str
    ms: int
    user: User


class Ledger:
    def __init__(self) -> None:
        self.processes: Dict[str, Process] = {}
        self.reads: Dict[str, Access] = {}
        self.writes: Dict[str, Writing] = {}
        self.folders: Set[str] = set()  # read in great number
        self.silent: Set[str] = set()  # programs that do not tell what they open
        self.shut: Dict[
            Tuple[str, str], int
        ] = {}  # (why, command) of Python children without the hook -> how many
        self.faults: Set[str] = set()
        self.left_out = 0
        self.layers: Set[str] = set()
        # path -> process -> what it took from there, in order
        self._code: Dict[str, Dict[str, List[Tuple[int, Optional[str]]]]] = {}
        self._forks: Dict[str, Tuple[str, int]] = {}  # process -> the one it was forked from, and when
        self._newest: Dict[int, str] = {}  # pid -> its latest process
        self._uses: List[Use] = []

    def feed(self, record: Record) -> None:
        """Take in one record. One of a newer kind changes nothing."""
        fold = _FOLDS.get(record.kind)
        try:
            if fold is not None:
                fold(self, record)
        except (ValueError, IndexError):
            pass  # torn, or not of our making: it is the user's process that writes them

    def new_uses(self) -> List[Use]:
        """The uses of code since the last call: each version of a file once; where it has several, each process."""
        uses, self._uses = self._uses, []
        return uses

    def mixed(self) -> Iterator[Tuple[str, Dict[str, List[User]]]]:
        """Files of which processes had different versions in the end: (path, {blob: users})."""
        for path, takers in self._code.items():
            if len({blob for taken in takers.values() for _, blob in taken if blob}) < 2:
                continue
            had: Dict[str, List[User]] = {}
            for name, process in self.processes.items():
                blob = self._last(takers, name)
                if blob:
                    had.setdefault(blob, []).append(User(process.rank, process.pid))
            if len(had) > 1:
                yield path, had

    def _last(self, takers: Dict[str, List[Tuple[int, Optional[str]]]], name: str) -> Optional[str]:
        """The version of a file that a process had in the end, be it from the process that it was forked from."""
        until_ms: Optional[int] = None
        while True:
            taken = [blob for ms, blob in takers.get(name, ()) if until_ms is None or ms <= until_ms]
            if taken:
                return taken[-1]
            if name not in self._forks:
                return None
            name, until_ms = self._forks[name]

    # --- the kinds of records ---------------------------------------------------------------------------------

    def _user(self, record: Record) -> User:
        process = self.processes.get(record.process)
        return User(process.rank, process.pid) if process else User(None, int(record.process.split("-")[0]))

    def _process(self, record: Record) -> None:
        layer, pid, parent, rank, executable, version, _, *argv = record.fields
        self.layers.add(layer)
        if len(self.processes) >= _PROCESSES:
            self.left_out += 1
            return
        number = int(rank) if rank.isdigit() else None
        self.processes[record.process] = Process(
            int(pid), int(parent), number, executable, version, tuple(argv), record.ms
        )
        self._newest[int(pid)] = record.process

    def _inherited(self, record: Record) -> None:
        parent = self._newest.get(int(record.fields[0]))
        if parent is not None and parent != record.process:
            self._forks[record.process] = (parent, record.ms)

    def _took_code(self, record: Record) -> None:
        how, name, path = record.fields
        blob = None if name == "-" else name
        path = os.path.normpath(path)
        if path not in self._code and len(self._code) >= _PATHS:
            self.left_out += 1
            return
        takers = self._code.setdefault(path, {})
        known = {known for taken in takers.values() for _, known in taken}
        if blob not in known or (len(known) > 1 and record.process not in takers):
            self._uses.append(Use(path, blob, how, record.ms, self._user(record)))
        if record.process in takers or len(takers) < _TAKERS:
            taken = takers.setdefault(record.process, [])
            if len(taken) < _TAKERS:
                taken.append((record.ms, blob))

    def _read(self, record: Record) -> None:
        self._access(record, os.path.normpath(record.fields[0]))

    def _loaded_by(self, record: Record) -> None:
        access = self._access(record, os.path.normpath(record.fields[1]))
        if access is not None:
            access.by = record.fields[0]

    def _access(self, record: Record, path: str) -> Optional[Access]:
        access = self.reads.get(path)
        if access is None:
            if len(self.reads) >= _PATHS:
                self.left_out += 1
                return None
            access = self.reads[path] = Access(record.ms)
        access.last_ms = record.ms
        user = self._user(record)
        if len(access.users) < _USERS and user not in access.users:
            access.users.append(user)
        return access

    def _wrote(self, record: Record) -> None:
        path = os.path.normpath(record.fields[0])
        known = self.writes.get(path)
        if known is not None and known.changed and known.closed:
            known.lost += 1
        self._writing(record, path)

    def _writing(self, record: Record, path: str) -> Optional[Writing]:
        writing = self.writes.get(path)
        if writing is None:
            if len(self.writes) >= _PATHS:
                self.left_out += 1
                return None
            writing = self.writes[path] = Writing(record.ms, self._user(record))
        writing.ms, writing.user, writing.changed, writing.closed = record.ms, self._user(record), True, False
        return writing

    def _closed(self, record: Record) -> None:
        writing = self.writes.get(os.path.normpath(record.fields[0])) or self._writing(
            record, os.path.normpath(record.fields[0])
        )
        if writing is not None:
            writing.closed = writing.changed = True

    def _saved(self, record: Record) -> None:
        by, step, path = record.fields
        writing = self._writing(record, os.path.normpath(path))
        if writing is not None:
            writing.by, writing.closed = by, True
            writing.step = int(step) if step.lstrip("-").isdigit() else None

    def _renamed(self, record: Record) -> None:
        source, target = (os.path.normpath(path) for path in record.fields)
        moved = self.writes.pop(source, None)
        if moved is not None:
            replaced = self.writes.get(target)
            if replaced is not None:
                moved.lost += replaced.lost + (replaced.changed and replaced.closed)
            moved.changed = True
            self.writes[target] = moved
            return
        inside = [path for path in self.writes if path.startswith(source + "/")]
        for path in inside:  # a folder
            self.writes[target + path[len(source) :]] = self.writes.pop(path)
        if not inside:
            writing = self._writing(record, target)
            if writing is not None:
                writing.closed = True

    def _removed(self, record: Record) -> None:
        self.writes.pop(os.path.normpath(record.fields[0]), None)

    def _shut_out(self, record: Record) -> None:
        key = (record.fields[0], " ".join(record.fields[1:4]))
        if key in self.shut or len(self.shut) < _NAMED:
            self.shut[key] = self.shut.get(key, 0) + 1

    def _silent_program(self, record: Record) -> None:
        if len(self.silent) < _NAMED:
            self.silent.add(os.path.basename(record.fields[0]))

    def _many(self, record: Record) -> None:
        if len(self.folders) < _PATHS:
            self.folders.add(os.path.normpath(record.fields[0]))

    def _fault(self, record: Record) -> None:
        if len(self.faults) < _NAMED:
            self.faults.add(record.fields[0])


_FOLDS = {
    "P": Ledger._process,
    "I": Ledger._inherited,
    "C": Ledger._took_code,
    "R": Ledger._read,
    "W": Ledger._wrote,
    "Z": Ledger._closed,
    "M": Ledger._renamed,
    "D": Ledger._removed,
    "L": Ledger._loaded_by,
    "S": Ledger._saved,
    "X": Ledger._shut_out,
    "N": Ledger._silent_program,
    "F": Ledger._many,
    "E": Ledger._fault,
}
