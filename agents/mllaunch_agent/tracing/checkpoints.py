"""The checkpoints among what the tasks write: recognised, and identified by their content once they are whole."""

from __future__ import annotations

import os
import stat
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple

from mllaunch_agent import hashing, system, weights
from mllaunch_agent.tracing.ledger import Ledger, Writing
from mllaunch_agent.tracing.places import Places

__all__ = ["Checkpoints"]

Line = Dict[str, Any]

_QUIET_S = 1.0  # a file that nobody has open and that stays as it is so long is whole
_FOLDER_QUIET_S = 2.0
_LEVELS = 3  # folders above a file that may be one checkpoint with it
_SMALL_BYTES = 512  # below, nothing is weights; its content is not looked at
_BY = ("torch.", "safetensors.", "keras.", "numpy.savez", "joblib.")


class Checkpoints:
    """open_files: the paths that the tasks' processes have open for writing, as they see them. wall: from
    milliseconds since boot to wall time."""

    def __init__(
        self,
        ledger: Ledger,
        places: Places,
        digests: hashing.Digests,
        open_files: Callable[[], Set[str]],
        wall: Callable[[int], str],
    ) -> None:
        self._ledger = ledger
        self._places = places
        self._digests = digests
        self._open_files = open_files
        self._wall = wall
        self._seen: Dict[str, Tuple[hashing.Key, float]] = {}  # path -> its stat, since when
        self._folders: Dict[str, float] = {}  # folders in which a checkpoint was found -> when
        self._noted: Set[str] = set()  # all that ever were among these
        self._told: Dict[str, str] = {}  # folder -> its digest
        self._steps: Dict[
            str, Tuple[int, str]
        ] = {}  # path -> step, and what tells it, where that is not its name

    def look(self) -> List[Line]:
        """Those that have become whole."""
        return [*self._files(False), *self._whole_folders(False)]

    def finish(self) -> List[Line]:
        """Nobody writes any more: all that are left."""
        return [*self._files(True), *self._whole_folders(True)]

    def missed(self) -> List[Tuple[str, str]]:
        """(what, why) of versions whose content was never read."""
        found = []
        written = [*self._ledger.writes.items(), *self._ledger.gone.items()]
        for path, writing in written:
            lost = writing.lost + (writing.changed and writing.closed)
            if lost and self._may_be(path, writing):
                times = "a version" if lost == 1 else "%d versions" % lost
                what = "outputs: %s of %s" % (times, self._places.shown(path))
                found.append((what, "it was written anew or removed before its content could be read"))
        return found

    def _files(self, ended: bool) -> Iterator[Line]:
        found = list(self._read_files(ended))
        opened = _Opened(self._open_files, ended)
        for read in found:
            # Only now it is certain that nobody was about to write what was read.
            if ended or (_is_still(read.place, read.key) and not opened.has(read.path, read.place)):
                read.writing.seen()
                if read.line["step_from"] in ("call", "content"):
                    self._steps[read.path] = read.line["step"], read.line["step_from"]
                self._note_folders(read.path)
                yield read.line

    def _read_files(self, ended: bool) -> Iterator["_Read"]:
        opened = _Opened(self._open_files, ended)
        for path, writing in list(self._ledger.writes.items()):
            if not writing.changed or self._places.data_of(path):
                continue
            place = self._places.on_node(path)
            info = _regular(place)
            if place is None or info is None or not (ended or self._is_quiet(path, info, writing)):
                continue
            if opened.has(path, place):
                continue
            if self._is_one(path, place, info, writing):
                read = self._identified(path, place, writing, ended)
                if read is not None:
                    yield read
            else:
                writing.seen()
                if os.path.dirname(path) in self._noted:  # an index comes after its shards
                    self._note_folders(path)

    def _is_quiet(self, path: str, info: os.stat_result, writing: Writing) -> bool:
        """Whether it is said to be whole, or has not changed for a while."""
        key, now_s = hashing.key_of(info), system.boot_s()
        known, since_s = self._seen.get(path, (None, 0.0))
        if known != key:
            self._seen[path] = (key, now_s)
        return writing.closed or (known == key and now_s - since_s >= _QUIET_S)

    def _may_be(self, path: str, writing: Writing) -> bool:
        return weights.looks_like(os.path.basename(path)) or bool(writing.by and writing.by.startswith(_BY))

    def _is_one(self, path: str, place: str, info: os.stat_result, writing: Writing) -> bool:
        """Whether it holds weights, by who wrote it, by its name, or by its content."""
        if self._may_be(path, writing):
            return True
        try:
            return info.st_size >= _SMALL_BYTES and weights.format_of(place) not in (None, "npy")
        except OSError:
            return False

    def _identified(self, path: str, place: str, writing: Writing, ended: bool) -> Optional["_Read"]:
        hashed = self._digests.of(os.fsencode(place))
        if hashed.info is None or (hashed.problem == hashing.TORN and not ended):
            return None
        found = _weights(place) if hashed.sha256 else None
        step, step_from = _step(writing, found, self._places.shown(path))
        line = {
            "record": "checkpoint",
            "at": self._wall(writing.ms),
            "path": self._places.shown(path),
            "sha256": hashed.sha256,
            "weights": found.digest if found else None,
            "format": found.format if found else None,
            "size_bytes": hashed.info.st_size,
            "step": step,
            "step_from": step_from,
            "rank": writing.user.rank,
            "pid": writing.user.pid,
            "by": writing.by,
            "problem": hashed.problem,
        }
        return _Read(path, place, hashing.key_of(hashed.info), writing, line)

    # --- folders that are one checkpoint ------------------------------------------------------------------------

    def _note_folders(self, path: str) -> None:
        """A checkpoint was found: the folders above may be one as a whole."""
        folder = os.path.dirname(path)
        for _ in range(_LEVELS):
            if not self._places.is_inside(folder):
                break
            self._folders[folder] = system.boot_s()
            self._noted.add(folder)
            folder = os.path.dirname(folder)

    def _whole_folders(self, ended: bool) -> Iterator[Line]:
        now_s = system.boot_s()
        opened = _Opened(self._open_files, ended)
        for folder, found_s in list(self._folders.items()):
            if not ended and now_s - found_s < _FOLDER_QUIET_S:
                continue
            place = self._places.on_node(folder)
            shape = weights.folder_format(_names(place)) if place else None
            if place is None or shape is None:
                del self._folders[folder]
                continue
            below = {path: w for path, w in self._ledger.writes.items() if path.startswith(folder + "/")}
            if not ended and (self._is_unfinished(below) or opened.has_below(folder, place)):
                continue
            line = self._folder(folder, place, shape, list(below.values()), ended)
            if line is None and not ended:
                continue
            del self._folders[folder]
            if line is not None and self._told.get(folder) != line["sha256"]:
                self._told[folder] = line["sha256"]
                yield line

    def _is_unfinished(self, below: Dict[str, Writing]) -> bool:
        changed = [path for path, writing in below.items() if writing.changed]
        return any(_regular(self._places.on_node(path)) is not None for path in changed)

    def _folder(
        self, folder: str, place: str, shape: str, below: List[Writing], ended: bool
    ) -> Optional[Line]:
        files, keys = [], {}
        for entry in hashing.walk(os.fsencode(place)):
            if entry.info is None or not stat.S_ISREG(entry.info.st_mode):
                continue
            name = os.path.join(os.fsencode(place), entry.path)
            hashed = self._digests.of(name)
            if hashed.info is None or hashed.sha256 is None:
                return None  # its files say why
            files.append((hashing.text(entry.path), hashed.info.st_size, hashed.sha256))
            keys[os.fsdecode(name)] = hashing.key_of(hashed.info)
        if not ended and not self._is_still_whole(folder, place, keys):
            return None
        steps = [found for path, found in self._steps.items() if path.startswith(folder + "/")]
        named = weights.step_in_name(self._places.shown(folder))
        step, step_from = max(steps, default=(named, None if named is None else "name"))
        last = max(below, key=lambda writing: writing.ms, default=None)
        return {
            "record": "checkpoint",
            "at": self._wall(last.ms) if last else None,
            "path": self._places.shown(folder),
            "folder": True,
            "sha256": weights.folder_digest(files),
            "weights": None,
            "format": shape,
            "size_bytes": sum(size for _, size, _ in files),
            "files": len(files),
            "step": step,
            "step_from": step_from,
            "rank": last.user.rank if last else None,
            "pid": last.user.pid if last else None,
            "by": last.by if last else None,
            "problem": None,
        }

    def _is_still_whole(self, folder: str, place: str, keys: Dict[str, hashing.Key]) -> bool:
        """Whether all files are what was read, and nobody has begun to write one of them meanwhile."""
        if not all(_is_still(name, key) for name, key in keys.items()):
            return False
        return not _Opened(self._open_files, False).has_below(folder, place)


class _Read(NamedTuple):
    """What was read of a file, and what would be told of it if it is whole."""

    path: str
    place: str
    key: hashing.Key
    writing: Writing
    line: Line


class _Opened:
    """The files that are open for writing, asked for once, and only if need be; none after the end."""

    def __init__(self, ask: Callable[[], Set[str]], ended: bool) -> None:
        self._ask = ask
        self._paths: Optional[Set[str]] = set() if ended else None

    def has(self, path: str, place: str) -> bool:
        """Under the name that the tasks use, or the one that a link there leads to."""
        paths = self._all()
        return bool(paths) and not paths.isdisjoint(
            (path, place, os.path.realpath(path), os.path.realpath(place))
        )

    def has_below(self, folder: str, place: str) -> bool:
        names = {folder, place, os.path.realpath(folder), os.path.realpath(place)}
        roots = tuple(name + "/" for name in names)
        return any(path.startswith(roots) for path in self._all())

    def _all(self) -> Set[str]:
        if self._paths is None:
            self._paths = self._ask()
        return self._paths


def _step(
    writing: Writing, found: Optional[weights.Weights], path: str
) -> Tuple[Optional[int], Optional[str]]:
    """The step, and what tells it: the call that saved it, its content, or its name."""
    if writing.step is not None:
        return writing.step, "call"
    if found is not None and found.step is not None:
        return found.step, "content"
    named = weights.step_in_name(path)
    return named, None if named is None else "name"


def _regular(place: Optional[str]) -> Optional[os.stat_result]:
    try:
        info = os.lstat(place) if place else None
    except OSError:
        return None
    return info if info and stat.S_ISREG(info.st_mode) else None


def _is_still(place: str, key: hashing.Key) -> bool:
    info = _regular(place)
    return info is not None and hashing.key_of(info) == key


def _weights(place: str) -> Optional[weights.Weights]:
    try:
        return weights.read(place)
    except OSError:
        return None


def _names(place: str) -> List[str]:
    try:
        return os.listdir(place)
    except OSError:
        return []
