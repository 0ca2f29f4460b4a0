"""From git objects to files: exact blob bytes, no filter, no line-end conversion, nothing outside the folder.

A tree is hostile input. Every folder is made first and every symbolic link last, files are created
exclusively and never through a link, and a name that git would refuse to check out is refused here as well.

Verified: each blob that is written hashes to its object name, each LFS file to its pointer's SHA-256. Files
that are hard-linked from an earlier tree were verified when that one was made.
"""

from __future__ import annotations

import os
from typing import BinaryIO, NamedTuple

from mllaunch.capture import lfs
from mllaunch.capture.git import Git, batch, shown, temporary_index
from mllaunch.capture.submodules import Locate
from mllaunch.errors import MllaunchError

__all__ = ["Part", "Plan", "intact", "listing", "make_plan", "write"]

_CHUNK_BYTES = 1 << 20
_ATTRIBUTES = b".gitattributes"


class Part(NamedTuple):
    """One repository's share of a tree. prefix: its folder in the whole, b"" or ending in a slash.

    tree: the id of a tree, or of a submodule's commit, which git takes for its tree.
    records: ``MODE TYPE OID\\tPATH`` as git-ls-tree(1) writes them, paths relative to the prefix.
    """

    git: Git
    tree: str
    prefix: bytes
    records: list[bytes]


class Plan(NamedTuple):
    """What has to be made of one part. Paths are relative to the part's folder.

    linked: names of unchanged regular files, by folder. linked_symlinks: unchanged symbolic links.
    blobs, symlinks: (mode, object id, path) to be written.
    """

    folders: list[bytes]
    linked: dict[bytes, list[bytes]]
    linked_symlinks: list[bytes]
    blobs: list[tuple[bytes, str, bytes]]
    symlinks: list[tuple[bytes, str, bytes]]


def listing(git: Git, tree: str, locate: Locate, prefix: bytes = b"") -> list[Part]:
    """The parts of a tree: itself and its submodules, in depth. Raises GitFailed if an object is not there.

    locate: where the submodule at a path (from the root) with a commit has its objects; None: empty folder.
    """
    raw = git.run("ls-tree", "-r", "-t", "-z", "--full-tree", tree)
    records = raw.split(b"\0")[:-1]
    parts = [Part(git, tree, prefix, records)]
    for record in records:
        if record.startswith(b"160000"):
            meta, _, path = record.partition(b"\t")
            commit = meta.split(b" ")[2].decode()
            inner = locate(prefix + path, commit)
            if inner is not None:
                parts += listing(inner, commit, locate, prefix + path + b"/")
    return parts


def make_plan(records: list[bytes], earlier: list[bytes]) -> Plan:
    """What of a part must be written, given the records of an earlier one whose files can be linked. Pure.

    Raises MllaunchError "hostile-tree" for names that lead out of the folder or into a git folder.
    """
    same = set(earlier)
    if any(record.endswith(_ATTRIBUTES) for record in same.symmetric_difference(records)):
        same = set()  # which files are LFS pointers may have changed with them
    plan = Plan([], {b"": []}, [], [], [])
    for record in records:
        meta, _, path = record.partition(b"\t")
        mode = meta[:6]
        folder, _, name = path.rpartition(b"/")
        names = plan.linked.get(folder)
        if names is None or name in {b"", b".", b".."} or name.lower() == b".git" or path[:1] == b"/":
            raise MllaunchError(
                "hostile-tree",
                "the commit contains a path that git would not check out",
                evidence=(_text(path),),
            )
        if mode in {b"040000", b"160000"}:
            plan.folders.append(path)
            plan.linked[path] = []
        elif mode == b"120000":
            if record in same:
                plan.linked_symlinks.append(path)
            else:
                plan.symlinks.append((mode, _oid(meta), path))
        elif record in same:
            names.append(name)
        else:
            plan.blobs.append((mode, _oid(meta), path))
    return plan


def write(part: Part, plan: Plan, target: bytes, earlier: bytes | None, worktree: str | None) -> None:
    """Carry out a plan in the empty folder ``target``; ``earlier`` holds the linked files.

    worktree: the user's folder of this part, where an LFS file may be found that git-lfs does not keep.
    Raises MllaunchError "lfs-object-missing", "damaged-object"; OSError.
    """
    import hashlib  # not for those who only list a tree: OpenSSL takes its time

    os.makedirs(target, exist_ok=True)
    for folder in plan.folders:
        os.mkdir(target + b"/" + folder)
    linked_late: list[bytes] = []
    if earlier is not None:
        for folder, names in plan.linked.items():
            if names:
                linked_late += _link(earlier + b"/" + folder, target + b"/" + folder, folder, names)
    missing = set(linked_late)
    blobs = plan.blobs + [r for r in map(_row, part.records) if r[2] in missing]
    pointers = _write_blobs(part.git, blobs, target)
    _fill_in_lfs(part, pointers, target, worktree)
    for path in plan.linked_symlinks:
        assert earlier is not None
        os.symlink(os.readlink(earlier + b"/" + path), target + b"/" + path)
    wanted = [oid for _, oid, _ in plan.symlinks]
    for (_, _, path), (oid, _, size, stream) in zip(plan.symlinks, batch(part.git, wanted), strict=True):
        content = stream.read(size)
        _check(oid, hashlib.new(_algorithm(oid), b"blob %d\0" % size + content).hexdigest(), path)
        os.symlink(content, target + b"/" + path)


def intact(part: Part, target: bytes) -> bool:
    """Whether every file of the part is in ``target`` with its exact bytes. Reads all of them."""
    suspects = []
    for mode, oid, path in map(_row, part.records):
        place = target + b"/" + path
        if mode in {b"040000", b"160000"}:
            if not os.path.isdir(place):
                return False
        elif _name_of(place, _algorithm(oid)) != oid:
            suspects.append((oid, place))
    pointers = lfs.pointers(part.git, {oid for oid, _ in suspects})
    return all(oid in pointers and lfs.holds(os.fsdecode(place), pointers[oid]) for oid, place in suspects)


def _name_of(path: bytes, algorithm: str) -> str | None:
    """The object id that git would give to a file or symbolic link as it is, or None if there is none."""
    import hashlib

    try:
        if os.path.islink(path):
            content = os.readlink(path)
            return hashlib.new(algorithm, b"blob %d\0" % len(content) + content).hexdigest()
        with open(path, "rb") as file:
            digest = hashlib.new(algorithm, b"blob %d\0" % os.fstat(file.fileno()).st_size)
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError:
        return None
    return digest.hexdigest()


def _link(source: bytes, target: bytes, folder: bytes, names: list[bytes]) -> list[bytes]:
    """Hard-link files from one folder to another; returns the paths that could not be linked."""
    failed = []
    try:
        from_fd = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # swept away meanwhile
        return [os.path.join(folder, name) for name in names]
    to_fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            try:
                os.link(name, name, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
            except OSError:  # too many links, or swept away
                failed.append(os.path.join(folder, name))
    finally:
        os.close(from_fd)
        os.close(to_fd)
    return failed


def _write_blobs(git: Git, rows: list[tuple[bytes, str, bytes]], target: bytes) -> dict[bytes, lfs.Pointer]:
    """Write blobs as files; returns what looks like an LFS pointer, by path."""
    pointers = {}
    for (mode, oid, path), (_, kind, size, stream) in zip(
        rows, batch(git, [oid for _, oid, _ in rows]), strict=True
    ):
        if kind != "blob":
            raise MllaunchError(
                "damaged-object", f"git has no file content for {_text(path)}", evidence=(oid,)
            )
        head = _write_one(stream, size, oid, target + b"/" + path, 0o755 if mode == b"100755" else 0o644)
        pointer = lfs.parse(head) if size < lfs.MAX_POINTER_BYTES else None
        if pointer is not None:
            pointers[path] = pointer
    return pointers


def _write_one(stream: BinaryIO, size: int, oid: str, path: bytes, mode: int) -> bytes:
    """Copy one blob to a new file and check its name; returns its first chunk."""
    import hashlib

    digest = hashlib.new(_algorithm(oid), b"blob %d\0" % size)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        head = chunk = stream.read(min(size, _CHUNK_BYTES))
        left = size
        while chunk:
            digest.update(chunk)
            left -= len(chunk)
            view = memoryview(chunk)
            while view:
                view = view[os.write(fd, view) :]
            chunk = stream.read(min(left, _CHUNK_BYTES)) if left else b""
    finally:
        os.close(fd)
    _check(oid, digest.hexdigest(), path)
    return head


def _fill_in_lfs(part: Part, pointers: dict[bytes, lfs.Pointer], target: bytes, worktree: str | None) -> None:
    """Replace the pointers that the snapshot's own attributes give to LFS by the files they stand for."""
    if not pointers:
        return
    missing = []
    for path in _given_to_lfs(part, sorted(pointers)):
        pointer = pointers[path]
        places = [os.fsencode(lfs.object_path(part.git.cwd, pointer))]
        if worktree is not None:
            places.append(os.path.join(os.fsencode(worktree), path))
        if not any(lfs.copy(place, target + b"/" + path, pointer) for place in places):
            missing.append(f"{_text(part.prefix + path)}  sha256:{pointer.oid}  {pointer.size_bytes} bytes")
    if missing:
        raise MllaunchError(
            "lfs-object-missing",
            f"{len(missing)} LFS files are only pointers here: their content is not on this machine",
            evidence=(*missing[:20], *([f"... and {len(missing) - 20} more"] if len(missing) > 20 else ())),
            hint="git lfs pull",
        )


def _given_to_lfs(part: Part, paths: list[bytes]) -> list[bytes]:
    """Those of the paths whose attribute ``filter`` is ``lfs`` in the part's tree."""
    with temporary_index(part.git) as git:
        git.run("read-tree", part.tree)
        output = git.run("check-attr", "--cached", "-z", "--stdin", "filter", stdin=b"\0".join(paths) + b"\0")
    fields = output.split(b"\0")[:-1]
    return [path for path, value in zip(fields[0::3], fields[2::3], strict=True) if value == b"lfs"]


def _row(record: bytes) -> tuple[bytes, str, bytes]:
    meta, _, path = record.partition(b"\t")
    return meta[:6], _oid(meta), path


def _oid(meta: bytes) -> str:
    return meta.rpartition(b" ")[2].decode()


def _algorithm(oid: str) -> str:
    return "sha1" if len(oid) == 40 else "sha256"


def _check(oid: str, found: str, path: bytes) -> None:
    if found != oid:
        raise MllaunchError(
            "damaged-object",
            f"git gave other bytes than its name says for {_text(path)}",
            evidence=(f"expected {oid}", f"found {found}"),
            hint="git fsck",
        )


def _text(path: bytes) -> str:
    return shown(os.fsdecode(path))
