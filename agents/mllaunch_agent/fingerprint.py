"""What a data folder or file held: a manifest and one digest over it. The format is in docs/fingerprint.md.

The manifest is JSON lines, written and read as a stream, so memory stays bounded by the largest single folder.
A cache of digests by (device, inode, size, mtime_ns, ctime_ns) spares an unchanged file its reading.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections import deque
from typing import Any, Callable, Deque, Iterator, List, NamedTuple, Optional, Tuple

from mllaunch_agent import hashing

__all__ = ["Cache", "Changes", "Fingerprint", "Names", "compare", "fingerprint"]

_NAMED = 20  # how many names a list gives before it only counts
_THREADS = 2
_BIG_BYTES = 256 * 1024  # below, handing a file to a thread costs more than hashing it
_AHEAD = 32  # rows that may wait for a big file before them
_COMMIT = 5000
# A file changed within the same clock tick after its hashing would keep its times; and some servers count seconds.
_SETTLED_NS = 2 * 1000 * 1000 * 1000

_LINK_PREFIX = "link:"

Row = List[Any]  # [path, size, mtime_ns, ctime_ns, inode, content]


class Names(NamedTuple):
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    first: Tuple[str, ...]  # at most 20, in the order of the walk


class Fingerprint(NamedTuple):
    kind: str  # "file" or "folder"
    digest: str  # hex SHA-256
    verified: str  # "content": every byte was read now; "stat": some files had the stat of an earlier reading
    size_bytes: int
    files: int
    links: int
    skipped: Names  # pipes, sockets and devices: not part of the digest
    unreadable: Names  # files are in the digest as unreadable; folders (named with a final /) are not in it
    torn: Names  # changed while they were read; in the digest as torn
    outside: Names  # symlinks that lead out of the folder: what they lead to is not part of the digest


class Changes(NamedTuple):
    added: Names
    removed: Names
    modified: Names


class _Counter:
    def __init__(self) -> None:
        self.count = 0
        self.first: List[str] = []

    def add(self, path: bytes) -> None:
        self.count += 1
        if len(self.first) < _NAMED:
            self.first.append(hashing.text(path))

    def names(self) -> Names:
        return Names(self.count, tuple(self.first))


class Cache:
    """Digests of files read before, in a small SQLite file of this user. Whatever fails in it only costs time."""

    def __init__(self, path: str, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._now_ns = now_ns
        self._fresh: List[Tuple[Any, ...]] = []
        self._db: Any = None
        try:
            import sqlite3

            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._errors: Any = sqlite3.Error
            self._db = sqlite3.connect(path, timeout=5, isolation_level=None)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute(
                "PRAGMA synchronous=OFF"
            )  # after a power cut it may be lost, or be refused as damaged
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS digests (device, inode, size, mtime_ns, ctime_ns, sha256,"
                " PRIMARY KEY (device, inode)) WITHOUT ROWID"
            )
        except Exception:  # noqa: BLE001 - a missing module, a damaged file, a full disk: read everything then
            self._drop()

    def get(self, key: hashing.Key) -> Optional[str]:
        if self._db is None:
            return None
        try:
            row = self._db.execute(
                "SELECT lower(hex(sha256)) FROM digests WHERE device=? AND inode=?"
                " AND size=? AND mtime_ns=? AND ctime_ns=?",
                (_signed(key[0]), _signed(key[1]), *key[2:]),
            ).fetchone()
        except self._errors:
            self._drop()
            return None
        return row[0] if row else None

    def put(self, key: hashing.Key, sha256: str) -> None:
        if self._db is None or max(key[3:]) > self._now_ns() - _SETTLED_NS:
            return
        self._fresh.append((_signed(key[0]), _signed(key[1]), *key[2:], bytes.fromhex(sha256)))
        if len(self._fresh) >= _COMMIT:
            self._flush()

    def _flush(self) -> None:
        if self._db is None:
            return
        fresh, self._fresh = self._fresh, []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO digests VALUES (?,?,?,?,?,?)", fresh)
            self._db.execute("COMMIT")
        except self._errors:
            self._drop()

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def close(self) -> None:
        self._flush()
        self._drop()


def _signed(number: int) -> int:
    """SQLite's integers are signed; inode and device numbers are not."""
    return number - (1 << 64) if number >= 1 << 63 else number


# ---- making


def fingerprint(path: str, manifest: str, cache: Optional[Cache] = None) -> Fingerprint:
    """Fingerprint a folder or file; writes the manifest's rows to the new file ``manifest``.

    ``path`` itself may be a symlink; links inside are recorded by their target and never followed. Raises OSError
    when ``path`` can't be read at all or ``manifest`` can't be written.
    """
    root = os.fsencode(os.path.realpath(path))
    if not stat.S_ISDIR(os.stat(root).st_mode):
        entries = iter([hashing.Entry(b"", os.stat(root))])
    else:
        entries = hashing.walk(root)
    work = _Work(root, cache)
    digest = hashlib.sha256()
    with open(manifest, "w", encoding="ascii", buffering=1 << 17) as out:
        write = out.write
        encode = json.JSONEncoder(separators=(",", ":")).encode
        for relative, row in work.rows(entries):
            write(encode(row) + "\n")
            digest.update(b"%s\0%d\0%s\n" % (relative, row[1], row[5].encode("ascii")))
    return work.result(digest.hexdigest())


class _Work:
    """Turns a walk into rows, hashing big files in threads while small ones go on; order is kept."""

    def __init__(self, root: bytes, cache: Optional[Cache]) -> None:
        self.root = root
        self.cache = cache
        self.is_file = not stat.S_ISDIR(os.stat(root).st_mode)
        self.content: Optional[str] = None
        self.cached = self.files = self.links = self.size = 0
        self.skipped, self.unreadable, self.torn, self.outside = (
            _Counter(),
            _Counter(),
            _Counter(),
            _Counter(),
        )

    def result(self, digest: str) -> Fingerprint:
        return Fingerprint(
            kind="file" if self.is_file else "folder",
            digest=self.content if self.is_file and self.content else digest,
            verified="stat" if self.cached else "content",
            size_bytes=self.size,
            files=self.files,
            links=self.links,
            skipped=self.skipped.names(),
            unreadable=self.unreadable.names(),
            torn=self.torn.names(),
            outside=self.outside.names(),
        )

    def rows(self, entries: Iterator[hashing.Entry]) -> Iterator[Tuple[bytes, Row]]:
        from concurrent.futures import ThreadPoolExecutor

        waiting: Deque[Tuple[bytes, os.stat_result, Any]] = deque()
        with ThreadPoolExecutor(_THREADS) as pool:
            for path, info in entries:
                found = self._begin(pool, path, info)
                if found is not None:
                    waiting.append(found)
                while waiting and (len(waiting) > _AHEAD or _is_ready(waiting[0][2])):
                    yield from self._finish(*waiting.popleft())
            while waiting:
                yield from self._finish(*waiting.popleft())

    def _begin(
        self, pool: Any, path: bytes, info: Optional[os.stat_result]
    ) -> Optional[Tuple[bytes, os.stat_result, Any]]:
        if info is None:
            self.unreadable.add(path)
            return None
        full = os.path.join(self.root, path) if path else self.root
        if stat.S_ISLNK(info.st_mode):
            return path, info, self._link(full, path)
        if not stat.S_ISREG(info.st_mode):
            self.skipped.add(path)
            return None
        known = self.cache.get(hashing.key_of(info)) if self.cache else None
        if known is not None:
            self.cached += 1
            return path, info, known
        if info.st_size < _BIG_BYTES:
            return path, info, hashing.sha256_of(full)
        return path, info, pool.submit(hashing.sha256_of, full)

    def _link(self, full: bytes, path: bytes) -> Optional[str]:
        try:
            target = os.readlink(full)
        except OSError:
            return None
        leads_to = os.path.normpath(os.path.join(os.path.dirname(full), target))
        if leads_to != self.root and not leads_to.startswith(self.root.rstrip(b"/") + b"/"):
            self.outside.add(path)
        return _LINK_PREFIX + hashlib.sha256(target).hexdigest()

    def _finish(self, path: bytes, info: os.stat_result, found: Any) -> Iterator[Tuple[bytes, Row]]:
        if found is None:
            return
        content: str
        if isinstance(found, str):
            content = found
        else:
            hashed: hashing.Hashed = found if isinstance(found, hashing.Hashed) else found.result()
            if hashed.problem == hashing.VANISHED:
                return
            info = hashed.info or info
            if hashed.sha256 is not None and self.cache:
                self.cache.put(hashing.key_of(info), hashed.sha256)
            elif hashed.problem is not None:
                (self.torn if hashed.problem == hashing.TORN else self.unreadable).add(path)
            content = hashed.sha256 or str(hashed.problem)
        if content.startswith(_LINK_PREFIX):
            self.links += 1
        else:
            self.files += 1
            self.size += info.st_size
            if self.is_file and len(content) == 64:
                self.content = content
        yield (
            path,
            [
                hashing.text(path),
                info.st_size,
                info.st_mtime_ns,
                info.st_ctime_ns,
                info.st_ino,
                content,
            ],
        )


def _is_ready(found: Any) -> bool:
    return found is None or isinstance(found, (str, hashing.Hashed)) or bool(found.done())


# ---- comparing


def compare(before: str, path: str) -> Changes:
    """What changed in ``path`` since the manifest ``before`` was written; reads only files whose stat moved.

    A file is modified when its bytes differ, or can't be told to be equal; an edit which restored all other times
    is found through ctime. A file that was only touched or renamed onto itself isn't named.
    """
    root = os.fsencode(os.path.realpath(path))
    added, removed, modified = _Counter(), _Counter(), _Counter()
    if os.path.isdir(root):
        entries = hashing.walk(root)
    elif os.path.exists(root):
        entries = iter([hashing.Entry(b"", os.stat(root))])
    else:
        entries = iter(())
    now = (entry for entry in entries if entry.info is not None and _is_recorded(entry.info))
    with open(before, encoding="ascii") as lines:
        rows = (json.loads(line) for line in lines)
        row, entry = next(rows, None), next(now, None)
        while row is not None or entry is not None:
            old = row[0].encode("utf-8", "surrogateescape") if row is not None else None
            if entry is None or (old is not None and old < entry.path):
                removed.add(old or b"")
                row = next(rows, None)
            elif old is None or entry.path < old:
                added.add(entry.path)
                entry = next(now, None)
            else:
                if row is not None and _is_modified(root, entry, row):
                    modified.add(entry.path)
                row, entry = next(rows, None), next(now, None)
    return Changes(added.names(), removed.names(), modified.names())


def _is_recorded(info: os.stat_result) -> bool:
    return stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)


def _is_modified(root: bytes, entry: hashing.Entry, row: Row) -> bool:
    info = entry.info
    assert info is not None
    _, size, mtime_ns, ctime_ns, inode, content = row
    if (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino) == (size, mtime_ns, ctime_ns, inode):
        return False
    full = os.path.join(root, entry.path) if entry.path else root
    if stat.S_ISLNK(info.st_mode):
        try:
            return bool(_LINK_PREFIX + hashlib.sha256(os.readlink(full)).hexdigest() != content)
        except OSError:
            return True
    return info.st_size != size or bool(hashing.sha256_of(full).sha256 != content)
