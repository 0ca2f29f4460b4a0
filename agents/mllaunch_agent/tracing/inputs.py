"""What the tasks read that was there before them: files one by one, and folders of very many as one."""

from __future__ import annotations

import binascii
import hashlib
import json
import os
import stat
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

from mllaunch_agent import fingerprint, hashing, protocol, system, weights
from mllaunch_agent.tracing.ledger import Access, Ledger
from mllaunch_agent.tracing.places import Places

__all__ = ["Inputs"]

Line = Dict[str, Any]

_MANY = 100  # files of one folder that are one input
_ALONE = 500  # inputs that are listed one by one
_LOOK_S = 1.0  # of hashing in one look
_HASHED_BYTES = 2 << 30  # a folder that nobody declared is read as a whole up to this size
_PATIENCE_S = 60.0  # after the end, for files that are no checkpoints
_SETTLING_MS = 2000  # until then it may show that a file is one of very many
_CODE = (".py", ".so", ".sh")
_DATA = (
    *(
        ".csv",
        ".tsv",
        ".parquet",
        ".arrow",
        ".feather",
        ".npy",
        ".jsonl",
        ".tfrecord",
        ".record",
        ".idx",
        ".tar",
    ),
    *(
        ".png",
        ".jpg",
        ".jpeg",
        ".webp",
        ".wav",
        ".flac",
        ".mp3",
        ".mp4",
        ".h5",
        ".hdf5",
        ".npz",
        ".zarr",
        ".db",
    ),
    *(".gz", ".zst", ".zip", ".bin", ".mat", ".lmdb", ".sqlite", ".sqlite3", ".webdataset"),
)
_MARKS = (8 << 20) * 8  # bits of the map of marks


class Inputs:
    def __init__(
        self,
        spec: protocol.TaskSpec,
        ledger: Ledger,
        places: Places,
        digests: hashing.Digests,
        wall: Callable[[int], str],
    ) -> None:
        self._spec = spec
        self._ledger = ledger
        self._places = places
        self._digests = digests
        self._wall = wall
        self._done: Set[str] = set()
        self._counts: Dict[str, int] = {}  # folder -> files of it that were read
        self._counted: Set[str] = set()
        self._classified: Dict[str, str] = {}
        self._listed = 0
        self._left_out = 0
        self._unlisted: List[Tuple[str, OSError]] = []  # folders

    def look(self) -> List[Line]:
        """Checkpoints at once; other files when it has shown that their folder is not read as a whole."""
        until_s = system.boot_s() + _LOOK_S
        found: List[Line] = []
        now_ms = system.boot_s() * 1000
        for path, access, kind in list(self._untold()):  # and the files of each folder are counted
            # Samples of a data set may look like checkpoints, too: of very many, the folder is told.
            is_early = self._is_bulk(path) or (kind != "checkpoint" and now_ms - access.ms < _SETTLING_MS)
            if not is_early and system.boot_s() < until_s:
                found += self._told(path, access, kind)
        return found

    def finish(self) -> List[Line]:
        until_s = system.boot_s() + _PATIENCE_S
        found: List[Line] = []
        untold = list(self._untold())  # and the files of each folder are counted
        roots = self._roots()
        for path, access, kind in untold:
            if _is_below(path, roots) or (self._places.data_of(path) and self._is_bulk(path)):
                continue
            if kind == "checkpoint" or system.boot_s() < until_s:
                found += self._told(path, access, kind)
            else:
                self._left_out += 1
        found += self._declared()
        for number, root in enumerate(roots):
            found += self._folder(root, len(self._spec["data"]) + number)
        return found

    def _untold(self) -> Iterator[Tuple[str, Access, str]]:
        """The files that are inputs by themselves, as (path, access, kind)."""
        for path, access in list(self._ledger.reads.items()):
            if path in self._done:
                continue
            kind = self._kind(path, access)
            if kind == "declared" or self._is_own(path, access):
                continue
            self._count(path)
            yield path, access, kind

    def _count(self, path: str) -> None:
        """Count a file in its folder; code is told of one by one, however many files of it there are."""
        if path not in self._counted and not path.endswith(_CODE):
            self._counted.add(path)
            folder = os.path.dirname(path)
            self._counts[folder] = self._counts.get(folder, 0) + 1

    def missed(self) -> List[Tuple[str, str]]:
        found = [
            ("inputs: the folder %s" % self._places.shown(root), "it could not be listed: %s" % error)
            for root, error in self._unlisted
        ]
        if self._left_out:
            what = "inputs: %d more files that were read" % self._left_out
            found.append((what, "there are too many, or they are too large"))
        return found

    # --- files ------------------------------------------------------------------------------------------------

    def _is_own(self, path: str, access: Access) -> bool:
        """Whether it is an output of the run itself that was read back."""
        written = self._ledger.writes.get(path)
        if self._places.is_output(path):
            return True
        if written is None or written.first_ms == access.ms:
            return access.is_own
        return written.first_ms < access.ms

    def _kind(self, path: str, access: Access) -> str:
        """declared: of the run's data; else code, checkpoint, data or file."""
        kind = self._classified.get(path)
        if kind is None:
            kind = self._classified[path] = self._classify(path)
        is_loaded = access.by and not access.by.startswith(("numpy.load", "joblib."))
        return "checkpoint" if is_loaded and kind != "code" else kind

    def _classify(self, path: str) -> str:
        if self._places.data_of(path):
            return "declared"
        name = os.path.basename(path)
        is_committed = self._places.is_inside(path) and self._places.committed(self._places.shown(path))
        if is_committed or name.endswith(_CODE):
            return "code"
        if weights.looks_like(name):
            return "checkpoint"
        return "data" if name.lower().endswith(_DATA) else "file"

    def _is_bulk(self, path: str) -> bool:
        folder = os.path.dirname(path)
        return folder in self._ledger.folders or self._counts.get(folder, 0) > _MANY

    def _told(self, path: str, access: Access, kind: str) -> List[Line]:
        self._done.add(path)
        place = self._places.on_node(path)
        if place is None or not os.path.isfile(place):
            return []  # opened in vain, or a pipe, or gone
        if kind == "code":
            return self._code(path, access, place)
        if self._listed >= _ALONE and kind != "checkpoint":
            self._left_out += 1
            return []
        self._listed += 1
        hashed = self._digests.of(os.fsencode(os.path.realpath(place)))
        if hashed.info is None:
            return []
        found = _weights(place) if hashed.sha256 and kind == "checkpoint" else None
        problem = hashed.problem
        if problem is None and hashed.info.st_ctime_ns > self._wall_ns(access.ms + 1):
            problem = "changed"
        return [
            {
                "record": "input",
                "at": self._wall(access.ms),
                "path": self._places.shown(path),
                "kind": kind,
                "sha256": hashed.sha256,
                "weights": found.digest if found else None,
                "format": found.format if found else None,
                "size_bytes": hashed.info.st_size,
                "by": _by(access),
                "loaded_by": access.by,
                "problem": problem,
            }
        ]

    def _code(self, path: str, access: Access, place: str) -> List[Line]:
        """Settings and scripts: code that is read, not compiled. Python files tell more when they are compiled."""
        if path.endswith(".py"):
            return []
        from mllaunch_agent.codewatch import blob_id

        shown = self._places.shown(path)
        user = access.users[0]
        return [
            {
                "record": "code",
                "at": self._wall(access.last_ms),
                "path": shown,
                "blob": blob_id(place),
                "committed": self._places.committed(shown) if self._places.is_inside(path) else None,
                "how": "read",
                "rank": user.rank,
                "pid": user.pid,
            }
        ]

    # --- folders ----------------------------------------------------------------------------------------------

    def _roots(self) -> List[str]:
        """The folders that are one input each: where most of a folder's folders are, it is the folder itself."""
        written = {os.path.dirname(path) for path in self._ledger.writes}
        marked = {f for f in self._ledger.folders if f not in written or self._counts.get(f)}
        bulk = {folder for folder, count in self._counts.items() if count > _MANY} | marked
        found = {f for f in bulk if not self._places.data_of(f) and not self._places.is_output(f + "/x")}
        while True:
            above: Dict[str, List[str]] = {}
            for folder in found:
                above.setdefault(os.path.dirname(folder), []).append(folder)
            merged = [up for up, down in above.items() if len(down) > 1 and self._is_mostly(up, down)]
            if not merged:
                return sorted(f for f in found if not _is_below(f, [g for g in found if g != f]))
            for up in merged:
                found -= set(above[up])
                found.add(up)

    def _is_mostly(self, folder: str, read: List[str]) -> bool:
        """Whether what was read is most of a folder: a home or a store of many data sets is not one input."""
        if folder.count("/") < 2 or (self._places.root + "/").startswith(folder + "/"):
            return False
        place = self._places.on_node(folder)
        try:
            with os.scandir(place or folder) as entries:
                return 2 * len(read) >= sum(entry.is_dir() for entry in entries)
        except OSError:
            return False

    def _folder(self, root: str, number: int) -> List[Line]:
        place = self._places.on_node(root)
        if place is None or not os.path.isdir(place):
            return []
        name = protocol.manifest_stream(number)
        manifest = os.path.join(self._spec["folder"], "streams", name)
        try:
            digest, verified, files, size = self._listed_in(place, manifest)
        except OSError as error:
            self._unlisted.append((root, error))
            return []
        reads = [(p, a) for p, a in self._ledger.reads.items() if p.startswith(root + "/")]
        return [
            {
                "record": "folder",
                "path": self._places.shown(root),
                "manifest": name,
                "sha256": digest,
                "verified": verified,
                "files": files,
                "size_bytes": size,
                **self._reading(root, reads, manifest),
            }
        ]

    def _listed_in(self, place: str, manifest: str) -> Tuple[str, str, int, int]:
        """Write the manifest of a folder: (digest, how it was verified, files, bytes)."""
        unfinished = os.path.join(self._spec["folder"], os.path.basename(manifest) + ".tmp")
        if os.path.exists(unfinished):
            os.unlink(unfinished)
        size = sum(e.info.st_size for e in hashing.walk(os.fsencode(place)) if e.info is not None)
        if size <= _HASHED_BYTES:
            cache = fingerprint.Cache(os.path.join(self._spec["cache"], "fingerprints.sqlite3"))
            made = fingerprint.fingerprint(place, unfinished, cache)
            cache.close()
            found = made.digest, made.verified, made.files, size
        else:
            digest, files = _list(place, unfinished)
            found = digest, "listed", files, size
        os.rename(unfinished, manifest)
        return found

    def _declared(self) -> Iterator[Line]:
        """How much of each data path of the run was really read."""
        for number, link in enumerate(self._spec["data"]):
            root = self._places.root + "/" + link["path"]
            reads = [(p, a) for p, a in self._ledger.reads.items() if p == root or p.startswith(root + "/")]
            manifest = os.path.join(self._spec["folder"], "streams", protocol.manifest_stream(number))
            reading = self._reading(root, reads, manifest)
            if reading["read"]["count"]:
                yield {"record": "read", "path": link["path"], **reading}

    def _reading(self, root: str, reads: List[Tuple[str, Access]], manifest: str) -> Line:
        """When a folder was first read, by whom, and how many of its files; a count from marks is about right only."""
        by: List[Any] = []
        for _, access in reads:
            by += [user for user in access.users if user not in by]
        known = {path for path, _ in reads}
        is_marked = any(f == root or f.startswith(root + "/") for f in self._ledger.folders)
        count = len(known) + (self._marked(root, manifest, known) if is_marked else 0)
        first = min((access.ms for _, access in reads), default=None)
        return {
            "at": None if first is None else self._wall(first),
            "by": [{"rank": user.rank, "pid": user.pid} for user in by[:16]],
            "read": {"count": count, "exact": not is_marked},
        }

    def _marked(self, root: str, manifest: str, known: Set[str]) -> int:
        """How many files of a manifest have left a mark, but for the known ones. Two names may share one, which is
        why it is not exact."""
        try:
            with open(os.path.join(self._spec["folder"], "trace", "reads"), "rb") as file:
                marks = file.read(_MARKS // 8)
            if len(marks) < _MARKS // 8:
                return 0
            with open(manifest, encoding="ascii") as lines:
                paths = ("%s/%s" % (root, json.loads(line)[0]) for line in lines)
                return sum(_is_marked(marks, path) and path not in known for path in paths)
        except (OSError, ValueError):
            return 0

    def _wall_ns(self, ms: int) -> int:
        return time.time_ns() - int((system.boot_s() * 1000 - ms) * 1e6)


def _weights(place: str) -> Optional[weights.Weights]:
    try:
        return weights.read(place)
    except OSError:
        return None


def _is_marked(marks: bytes, path: str) -> bool:
    bit = binascii.crc32(path.encode("utf-8", "surrogateescape")) & (_MARKS - 1)
    return bool(marks[bit >> 3] & (1 << (bit & 7)))


def _list(place: str, manifest: str) -> Tuple[str, int]:
    """A manifest of names, sizes and times alone; its digest, and how many files. Nobody has read them."""
    digest, files = hashlib.sha256(), 0
    with open(manifest, "w", encoding="ascii") as out:
        for entry in hashing.walk(os.fsencode(place)):
            info = entry.info
            if info is None or not stat.S_ISREG(info.st_mode):
                continue
            files += 1
            row = [
                hashing.text(entry.path),
                info.st_size,
                info.st_mtime_ns,
                info.st_ctime_ns,
                info.st_ino,
                "unread",
            ]
            out.write(json.dumps(row, separators=(",", ":")) + "\n")
            digest.update(b"%s\0%d\0%d\n" % (entry.path, info.st_size, info.st_mtime_ns))
    return digest.hexdigest(), files


def _by(access: Access) -> List[Dict[str, Any]]:
    return [{"rank": user.rank, "pid": user.pid} for user in access.users]


def _is_below(path: str, roots: List[str]) -> bool:
    return any(path.startswith(root + "/") for root in roots)
