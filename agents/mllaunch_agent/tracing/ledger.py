"""What is known of the tasks' processes, folded from their records; pure.

Everything is bounded: a program that opens a million files, or starts a hundred thousand processes, costs no more
memory here than one that stays just below the limits, and what was left out is counted.
"""

from __future__ import annotations

import os.path
import re
from typing import Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from mllaunch_agent.tracing.raw import Record

__all__ = ["Access", "Ledger", "Process", "Use", "User", "Writing"]

_USERS = 16  # processes named for one file
_PATHS = 50_000
_PROCESSES = 10_000
_TAKERS = 200  # processes of which it is known what they took from a file of the code, and how often each
_NAMED = 200
_DIGITS = 18
_STEP = re.compile("-?[0-9]{1,%d}\\Z" % _DIGITS)


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
    """A file that was read. is_own: what the run itself had written before."""

    def __init__(self, ms: int, is_own: bool) -> None:
        self.ms = ms
        self.is_own = is_own
        self.last_ms = ms
        self.users: List[User] = []
        self.by: Optional[str] = None  # the function of a library that loaded it


class Writing:
    """A file that was written, as far as that is told: whole, or not yet. first_ms: when it first had this name."""

    def __init__(self, ms: int, user: User) -> None:
        self.first_ms = ms
        self.ms = ms
        self.user = user
        self.lost = 0  # versions that nobody has looked at before the next
        self.by: Optional[str] = None
        self.step: Optional[int] = None
        self.closed = False
        self.changed = True  # since somebody looked at its content
        # Whole versions since then. The closing of a file and the return of the function that saved it tell of one.
        self._ends = {"Z": 0, "S": 0, "M": 0}

    def begin(self, ms: int, user: User) -> None:
        """It was opened for writing."""
        self.lost += self.changed and self.closed
        self.by = self.step = None
        self.closed = False
        self._change(ms, user)
        self._forget_ends()

    def end(self, kind: str, ms: int, user: User) -> None:
        """It is whole, as a record of this kind tells."""
        before = max(self._ends.values())
        self._ends[kind] += 1
        if self.closed and self.changed and before and max(self._ends.values()) > before:
            self.lost += 1
        self.closed = True
        self._change(ms, user)

    def seen(self) -> None:
        """Its content has been looked at."""
        self.changed = False
        self._forget_ends()

    def replace(self, other: "Writing") -> None:
        """It takes the name of another, whose content is gone."""
        self.lost += other.lost + (other.changed and other.closed)

    def _change(self, ms: int, user: User) -> None:
        self.ms, self.user, self.changed = ms, user, True

    def _forget_ends(self) -> None:
        self._ends = dict.fromkeys(self._ends, 0)


class Use(NamedTuple):
    """A process took code from a file. blob: git's id of it; None: not known. how: source, run, bytecode, native.
    is_first: nobody has taken this version of the file before."""

    path: str
    blob: Optional[str]
    how: str
    ms: int
    user: User
    is_first: bool


class Ledger:
    def __init__(self) -> None:
        self.processes: Dict[str, Process] = {}
        self.reads: Dict[str, Access] = {}
        self.writes: Dict[str, Writing] = {}
        self.gone: Dict[str, Writing] = {}  # removed before anybody had looked at every version
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
        self._newest: Dict[int, str] = {}  # pid -> its latest Python process
        self._uses: List[Use] = []
        self._above: Set[str] = set()  # folders that files were written below
        self._may_be_mixed: Set[str] = set()  # paths to look at again
        self._several: Set[str] = set()  # paths of which there are several versions

    def feed(self, record: Record) -> None:
        """Take in one record. One of a newer kind changes nothing."""
        fold = _FOLDS.get(record.kind)
        try:
            if fold is not None:
                fold(self, record)
        except (ValueError, IndexError, OverflowError):
            pass  # torn, or not of our making: it is the user's process that writes them

    def new_uses(self) -> List[Use]:
        """The uses of code since the last call: each version of a file once; where it has several, each process."""
        uses, self._uses = self._uses, []
        return uses

    def mixed(self) -> Iterator[Tuple[str, Dict[str, List[User]]]]:
        """Files of which processes had different versions in the end: (path, {blob: users}); those of which that may
        have become so, or otherwise so, since the last call."""
        paths, self._may_be_mixed = self._may_be_mixed, set()
        for path in sorted(paths):
            takers = self._code[path]
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
        return (
            User(process.rank, process.pid) if process else User(None, _number(record.process.split("-")[0]))
        )

    def _process(self, record: Record) -> None:
        layer, pid, parent, rank, executable, version, _, *argv = record.fields
        self.layers.add(layer)
        if len(self.processes) >= _PROCESSES:
            self.left_out += 1
            return
        self.processes[record.process] = Process(
            _number(pid), _number(parent), _rank(rank), executable, version, tuple(argv), record.ms
        )
        if layer == "python":
            self._newest[_number(pid)] = record.process

    def _inherited(self, record: Record) -> None:
        parent = self._newest.get(_number(record.fields[0]))
        if parent is not None and parent != record.process and record.process in self.processes:
            self._forks[record.process] = (parent, record.ms)
            self._may_be_mixed |= self._several

    def _took_code(self, record: Record) -> None:
        how, name, path = record.fields
        if how != "native" and self._hook_knows_better(record):
            return
        blob = None if name == "-" else name
        path = os.path.normpath(path)
        if path not in self._code and len(self._code) >= _PATHS:
            self.left_out += 1
            return
        takers = self._code.setdefault(path, {})
        versions = {known for taken in takers.values() for _, known in taken}
        is_first, is_new = blob not in versions, record.process not in takers
        if is_new and len(takers) >= _TAKERS and not (is_first and len(versions) < _TAKERS):
            self.left_out += 1
            return
        taken = takers.setdefault(record.process, [])
        if len(taken) >= _TAKERS:
            self.left_out += 1
            return
        taken.append((record.ms, blob))
        if is_first or (len(versions) > 1 and is_new):
            self._uses.append(Use(path, blob, how, record.ms, self._user(record), is_first))
        if len((versions | {blob}) - {None}) > 1:
            self._several.add(path)
            self._may_be_mixed.add(path)

    def _hook_knows_better(self, record: Record) -> bool:
        """Whether it is the C layer that says so of a Python which has the hook as well, and is later to begin."""
        process = self.processes.get(record.process)
        if process is None or not record.process.endswith("-c"):
            return False
        hooked = self._newest.get(process.pid)
        return hooked is not None and self.processes[hooked].ms >= process.ms

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
            access = self.reads[path] = Access(record.ms, path in self.writes)
        access.last_ms = record.ms
        user = self._user(record)
        if len(access.users) < _USERS and user not in access.users:
            access.users.append(user)
        return access

    def _wrote(self, record: Record) -> None:
        path = os.path.normpath(record.fields[0])
        writing = self._writing(record, path)
        if writing is not None:
            writing.begin(record.ms, self._user(record))

    def _closed(self, record: Record) -> None:
        writing = self._writing(record, os.path.normpath(record.fields[0]))
        if writing is not None:
            writing.end("Z", record.ms, self._user(record))

    def _saved(self, record: Record) -> None:
        by, step, path = record.fields
        writing = self._writing(record, os.path.normpath(path))
        if writing is not None:
            writing.end("S", record.ms, self._user(record))
            writing.by = by
            writing.step = int(step) if _STEP.match(step) else None

    def _writing(self, record: Record, path: str) -> Optional[Writing]:
        writing = self.writes.get(path)
        if writing is None:
            if len(self.writes) >= _PATHS:
                self.left_out += 1
                return None
            writing = Writing(record.ms, self._user(record))
            self._put(path, writing)
        return writing

    def _put(self, path: str, writing: Writing) -> None:
        self.writes[path] = writing
        above = os.path.dirname(path)
        while above not in self._above and above not in ("", "/"):
            self._above.add(above)
            above = os.path.dirname(above)

    def _renamed(self, record: Record) -> None:
        source, target = (os.path.normpath(path) for path in record.fields)
        if source == target:
            return
        moved = self.writes.pop(source, None)
        if moved is None and source in self._above and self._renamed_folder(record, source, target):
            return
        if moved is None:
            moved = self._writing(record, target)
            if moved is None:
                return
            moved.begin(record.ms, self._user(record))
        else:
            moved.first_ms = record.ms  # under this name
            if target in self.writes:
                moved.first_ms = self.writes[target].first_ms
                moved.replace(self.writes[target])
        moved.end("M", record.ms, moved.user)
        self._put(target, moved)

    def _linked(self, record: Record) -> None:
        """One more name of a file. If it was written, so was this; if not, it is what it was."""
        source, target = (os.path.normpath(path) for path in record.fields)
        first = self.writes.get(source)
        if first is not None and source != target:
            made = Writing(record.ms, first.user)
            made.by, made.step = first.by, first.step
            made.end("M", record.ms, first.user)
            self._put(target, made)

    def _renamed_folder(self, record: Record, source: str, target: str) -> bool:
        """Whether files were written in it, which are others now."""
        inside = [path for path in self.writes if path.startswith(source + "/")]
        for path in inside:
            self.writes[path].first_ms = record.ms
            self._put(target + path[len(source) :], self.writes.pop(path))
        self._above -= {path for path in self._above if path == source or path.startswith(source + "/")}
        return bool(inside)

    def _removed(self, record: Record) -> None:
        path = os.path.normpath(record.fields[0])
        writing = self.writes.pop(path, None)
        if writing is None:
            return
        if path in self.gone:
            writing.replace(self.gone[path])
        writing.lost += writing.changed and writing.closed
        if writing.lost and (path in self.gone or len(self.gone) < _PATHS):
            writing.seen()
            self.gone[path] = writing

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


def _number(text: str) -> int:
    """A number of ours; ValueError if it is none, or so long that reading it would take minutes."""
    if len(text) > _DIGITS:
        raise ValueError
    return int(text)


def _rank(text: str) -> Optional[int]:
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else None


_FOLDS = {
    "P": Ledger._process,
    "I": Ledger._inherited,
    "C": Ledger._took_code,
    "R": Ledger._read,
    "W": Ledger._wrote,
    "Z": Ledger._closed,
    "K": Ledger._linked,
    "M": Ledger._renamed,
    "D": Ledger._removed,
    "L": Ledger._loaded_by,
    "S": Ledger._saved,
    "X": Ledger._shut_out,
    "N": Ledger._silent_program,
    "F": Ledger._many,
    "E": Ledger._fault,
}
