"""The checkpoints among what the tasks write: recognised, and identified by their content once they are whole."""

from __future__ import annotations

import os
import stat
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

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
        self._others: Dict[str, hashing.Key] = {}  # what was looked at and is no checkpoint
        self._folders: Dict[str, float] = {}  # folders in which a checkpoint was found -> when
        self._told: Dict[str, str] = {}  # folder -> its digest
        self._steps: Dict[str, int] = {}  # path -> step

    def look(self) -> List[Line]:
        """Those that have become whole."""
        return [*self._files(False), *self._whole_folders(False)]

    def finish(self) -> List[Line]:
        """Nobody writes any more: all that are left."""
        return [*self._files(True), *self._whole_folders(True)]

    def missed(self) -> List[Tuple[str, str]]:
        """(what, why) of versions whose content was never read."""
        found = []
        for path, writing in self._ledger.writes.items():
            if writing.lost and self._may_be(path, writing):
                times = "a version" if writing.lost == 1 else "%d versions" % writing.lost
                what = "outputs: %s of %s" % (times, self._places.shown(path))
                found.append((what, "it was written anew before its content could be read"))
        return found

    def _files(self, ended: bool) -> Iterator[Line]:
        open_files: Optional[Set[str]] = None
        now_s = system.boot_s()
        for path, writing in list(self._ledger.writes.items()):
            if not writing.changed or self._places.data_of(path):
                continue
            place = self._places.on_node(path)
            info = _regular(place)
            if place is None or info is None:
                continue
            key = hashing.key_of(info)
            known, since_s = self._seen.get(path, (None, 0.0))
            if known != key:
                self._seen[path] = (key, now_s)
            if not ended and not writing.closed:
                if known != key or now_s - since_s < _QUIET_S:
                    continue
                open_files = self._open_files() if open_files is None else open_files
                if path in open_files:
                    continue
            if self._is_one(path, place, info, writing):
                line = self._identified(path, place, writing, ended)
                if line is not None:
                    yield line

    def _may_be(self, path: str, writing: Writing) -> bool:
        return weights.looks_like(os.path.basename(path)) or bool(writing.by and writing.by.startswith(_BY))

    def _is_one(self, path: str, place: str, info: os.stat_result, writing: Writing) -> bool:
        """Whether it holds weights, by who wrote it, by its name, or by its content."""
        if self._may_be(path, writing):
            return True
        key = hashing.key_of(info)
        if info.st_size < _SMALL_BYTES or self._others.get(path) == key:
            return False
        if weights.format_of(place) in (None, "npy"):
            self._others[path] = key
            return False
        return True

    def _identified(self, path: str, place: str, writing: Writing, ended: bool) -> Optional[Line]:
        writing.changed = False
        hashed = self._digests.of(os.fsencode(place))
        if hashed.info is None or hashed.problem == hashing.VANISHED:
            return None
        if hashed.problem and not ended:
            writing.changed = True  # it is being written after all
            return None
        found = weights.read(place) if hashed.sha256 else None
        step, step_from = _step(writing, found, self._places.shown(path))
        if step is not None:
            self._steps[path] = step
        folder = os.path.dirname(path)
        for _ in range(_LEVELS):
            if not self._places.is_inside(folder) or folder == self._places.root:
                break
            self._folders[folder] = system.boot_s()
            folder = os.path.dirname(folder)
        return {
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

    # --- folders that are one checkpoint ------------------------------------------------------------------------

    def _whole_folders(self, ended: bool) -> Iterator[Line]:
        now_s = system.boot_s()
        for folder, found_s in list(self._folders.items()):
            if not ended and now_s - found_s < _FOLDER_QUIET_S:
                continue
            below = [w for path, w in self._ledger.writes.items() if path.startswith(folder + "/")]
            if any(w.changed and not w.closed for w in below) and not ended:
                continue
            del self._folders[folder]
            place = self._places.on_node(folder)
            shape = weights.folder_format(_names(place)) if place else None
            if place and shape:
                line = self._folder(folder, place, shape, below)
                if line is not None and self._told.get(folder) != line["sha256"]:
                    self._told[folder] = line["sha256"]
                    yield line

    def _folder(self, folder: str, place: str, shape: str, below: List[Writing]) -> Optional[Line]:
        files = []
        for entry in hashing.walk(os.fsencode(place)):
            if entry.info is None or not stat.S_ISREG(entry.info.st_mode):
                continue
            hashed = self._digests.of(os.path.join(os.fsencode(place), entry.path))
            if hashed.info is None or hashed.sha256 is None:
                return None  # its files say why
            files.append((hashing.text(entry.path), hashed.info.st_size, hashed.sha256))
        steps = [step for path, step in self._steps.items() if path.startswith(folder + "/")]
        named = weights.step_in_name(self._places.shown(folder))
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
            "step": max(steps) if steps else named,
            "step_from": "content" if steps else "name" if named is not None else None,
            "rank": last.user.rank if last else None,
            "pid": last.user.pid if last else None,
            "by": last.by if last else None,
            "problem": None,
        }


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


def _names(place: str) -> List[str]:
    try:
        return os.listdir(place)
    except OSError:
        return []
