"""What the tasks read that was there before them: files one by one, and folders of very many as one."""

from __future__ import annotations

import binascii
import hashlib
import json
import os
import stat
from typing import Any, Callable, Dict, Iterator, List, Set, Tuple

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
        self._classified: Dict[str, str] = {}
        self._listed = 0
        self._left_out = 0

    def look(self) -> List[Line]:
        """Checkpoints at once; other files when it has shown that their folder is not read as a whole."""
        until_s = system.boot_s() + _LOOK_S
        found: List[Line] = []
        now_ms = system.boot_s() * 1000
        for path, access in list(self._ledger.reads.items()):
            if path in self._done:
                continue
            kind = self._kind(path, access)
            if kind in ("own", "declared"):
                continue
            is_early = kind != "checkpoint" and (self._is_bulk(path) or now_ms - access.ms < 2000)
            if not is_early and system.boot_s() < until_s:
                found += self._told(path, access, kind)
        return found

    def finish(self) -> List[Line]:
        until_s = system.boot_s() + _PATIENCE_S
        found: List[Line] = []
        roots = self._roots()
        for path, access in list(self._ledger.reads.items()):
            kind = self._kind(path, access)
            if path in self._done or kind in ("own", "declared"):
                continue
            if kind != "checkpoint" and (_is_below(path, roots) or system.boot_s() > until_s):
                self._left_out += not _is_below(path, roots)
                continue
            found += self._told(path, access, kind)
        found += self._declared()
        for number, root in enumerate(roots):
            found += self._folder(root, len(self._spec["data"]) + number)
        return found

    def missed(self) -> List[Tuple[str, str]]:
        if not self._left_out:
            return []
        return [
            (
                "inputs: %d more files that were read" % self._left_out,
                "there are too many, or they are too large",
            )
        ]

    # --- files ------------------------------------------------------------------------------------------------

    def _kind(self, path: str, access: Access) -> str:
        """own: written by the run itself; declared: of its data; else code, checkpoint, data or file."""
        kind = self._classified.get(path)
        if kind is None:
            kind = self._classified[path] = self._classify(path, access)
            folder = os.path.dirname(path)
            self._counts[folder] = self._counts.get(folder, 0) + 1
        return kind

    def _classify(self, path: str, access: Access) -> str:
        written = self._ledger.writes.get(path)
        if (written is not None and written.first_ms <= access.ms) or self._places.is_output(path):
            return "own"
        if self._places.data_of(path):
            return "declared"
        name = os.path.basename(path)
        is_committed = self._places.is_inside(path) and self._places.committed(self._places.shown(path))
        if is_committed or name.endswith(_CODE):
            return "code"
        by_library = access.by and not access.by.startswith(("numpy.load", "joblib."))
        if by_library or weights.looks_like(name):
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
        found = weights.read(place) if hashed.sha256 and kind == "checkpoint" else None
        problem = hashed.problem
        if problem is None and hashed.info.st_ctime_ns > _wall_ns(access.last_ms):
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
        """The folders that are one input each: where siblings are, it is the folder above."""
        bulk = {folder for folder, count in self._counts.items() if count > _MANY} | self._ledger.folders
        found = {
            f for f in bulk if not self._places.data_of(f + "/x") and not self._places.is_output(f + "/x")
        }
        while True:
            above: Dict[str, List[str]] = {}
            for folder in found:
                above.setdefault(os.path.dirname(folder), []).append(folder)
            merged = [up for up, down in above.items() if len(down) > 1 and self._may_be_data(up)]
            if not merged:
                return sorted(f for f in found if not _is_below(f, [g for g in found if g != f]))
            for up in merged:
                found -= set(above[up])
                found.add(up)

    def _may_be_data(self, folder: str) -> bool:
        return folder.count("/") >= 2 and not (self._places.root + "/").startswith(folder + "/")

    def _folder(self, root: str, number: int) -> List[Line]:
        place = self._places.on_node(root)
        if place is None or not os.path.isdir(place):
            return []
        name = protocol.manifest_stream(number)
        manifest = os.path.join(self._spec["folder"], "streams", name)
        unfinished = os.path.join(self._spec["folder"], name + ".tmp")
        if os.path.exists(unfinished):
            os.unlink(unfinished)
        size = sum(e.info.st_size for e in hashing.walk(os.fsencode(place)) if e.info is not None)
        if size <= _HASHED_BYTES:
            cache = fingerprint.Cache(os.path.join(self._spec["cache"], "fingerprints.sqlite3"))
            made = fingerprint.fingerprint(place, unfinished, cache)
            cache.close()
            digest, verified, files = made.digest, made.verified, made.files
        else:
            digest, files = _list(place, unfinished)
            verified = "listed"
        os.rename(unfinished, manifest)
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
        marked = [
            folder for folder in self._ledger.folders if folder == root or folder.startswith(root + "/")
        ]
        if marked:
            known |= self._marked(root, manifest)
        first = min((access.ms for _, access in reads), default=None)
        return {
            "at": None if first is None else self._wall(first),
            "by": [{"rank": user.rank, "pid": user.pid} for user in by[:16]],
            "read": {"count": len(known), "exact": not marked},
        }

    def _marked(self, root: str, manifest: str) -> Set[str]:
        """The files of a manifest that have left a mark. Two names may share one, which is why it is not exact."""
        try:
            with open(os.path.join(self._spec["folder"], "trace", "reads"), "rb") as file:
                marks = file.read()
            with open(manifest, encoding="ascii") as lines:
                paths = ["%s/%s" % (root, json.loads(line)[0]) for line in lines]
        except OSError:
            return set()
        return {path for path in paths if _is_marked(marks, path)}


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


def _wall_ns(ms: int) -> int:
    import time

    return time.time_ns() - int((system.boot_s() * 1000 - ms) * 1e6)
