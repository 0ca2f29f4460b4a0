"""What the tasks of an attempt wrote: from the record once it is sealed, else from the work folder as it is now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from mllaunch.domain.run import Run
from mllaunch.errors import Unreachable
from mllaunch.ports import BlobStore, RunLog, StreamRef
from mllaunch_agent import protocol

_READ_BYTES = 4 << 20


class OpenOutput(Protocol):
    """A file that is being copied."""

    def stat(self) -> dict[str, int]:
        """size_bytes, mtime_ns, ctime_ns and mode, as they are now."""

    def read(self, offset: int, limit: int) -> bytes:
        """At most ``limit`` bytes from ``offset`` on; b"" at the end."""

    def close(self) -> None:
        """It is not needed any more."""


class OutputFolder(Protocol):
    """What a node still holds of what an attempt's tasks wrote. Unreachable if it does not answer."""

    def output_now(self) -> list[dict[str, Any]]:
        """The output folder at this moment, as lines of the files stream without digests."""

    def open_output(self, path: str) -> OpenOutput:
        """A regular file, by its path in the files stream. OSError. Follows no link."""


class OutputFile(NamedTuple):
    """One file that a task wrote, changed or deleted.

    path: relative to the root of the checkout; bytes that are not UTF-8 are lone surrogates. kind: "file",
    "symlink", "special" (a pipe, socket or device), "folder" (one that could not be read) or "deleted".
    modified_at: RFC 3339, UTC. sha256: None unless it is a file that was read whole. problem: "torn" (it kept
    changing while it was read), "unreadable", or None. target: of a symlink.
    """

    path: str
    kind: str
    size_bytes: int | None
    modified_at: str | None
    sha256: str | None
    problem: str | None
    target: str | None
    node: str


class Listing(NamedTuple):
    """What an attempt wrote. is_final: nothing can be added any more. faults: in words, what is wrong with it.
    silent: nodes of which nothing is known because they do not answer, and what is said of that.
    """

    attempt: int
    files: tuple[OutputFile, ...]
    is_final: bool
    faults: tuple[str, ...]
    silent: Mapping[str, str]


def listing(
    log: RunLog,
    blobs: BlobStore,
    folders: Mapping[str, OutputFolder],
    run: Run,
    attempt: int,
    only: str | None = None,
) -> Listing:
    """What an attempt wrote, of all its nodes. folders: by node, what can still be looked at. only: of this node.

    Of several nodes those that are silent are named; Unreachable, if there is one alone.
    """
    views = {
        node: view
        for (number, node), view in log.views(run.id).items()
        if number == attempt and only in (None, node)
    }
    files: list[OutputFile] = []
    faults: list[str] = []
    silent: dict[str, str] = {}
    is_final = bool(views)
    for node in sorted({*views, *folders}):
        seal = views.get(node, {}).get("seal")
        if seal:
            ref = StreamRef(run.id, attempt, node, protocol.FILES)
            found, damaged = parse(_all(blobs, ref), node)
            faults += _faults(views[node], node, damaged)
        else:
            is_final = False
            try:
                found = _now(folders[node], node) if node in folders else []
            except Unreachable as error:
                if len(folders) == 1:
                    raise
                silent[node] = error.message
                continue
        files += found
    return Listing(attempt, tuple(files), is_final, tuple(faults), silent)


def parse(data: bytes, node: str) -> tuple[list[OutputFile], int]:
    """The files of a files stream, and how many of its lines are no description of a file."""
    import json

    files = []
    damaged = 0
    for line in data.splitlines():
        try:
            files.append(_file(json.loads(line), node))
        except (ValueError, TypeError, KeyError, AttributeError):
            damaged += 1
    return files, damaged


def _file(line: dict[str, Any], node: str) -> OutputFile:
    path = line["path"]
    if not isinstance(path, str) or not is_plain(path):
        raise ValueError(path)
    size = line.get("size_bytes")
    values = [line.get(key) for key in ("mtime", "sha256", "problem", "target")]
    if not (size is None or isinstance(size, int)) or not all(
        v is None or isinstance(v, str) for v in values
    ):
        raise ValueError(path)
    modified_at, sha256, problem, target = values
    return OutputFile(path, str(line["kind"]), size, modified_at, sha256, problem, target, node)


def is_plain(path: str) -> bool:
    """Whether a path names something below a folder and cannot lead out of it."""
    return "\0" not in path and all(part not in ("", ".", "..") for part in path.split("/"))


def stays_inside(target: str, depth: int) -> bool:
    """Whether a link ``depth`` folders below the top leads to something below the top.

    A ".." after a name is refused: the name may be a link itself, and then the way up starts elsewhere.
    """
    parts = [part for part in target.split("/") if part not in ("", ".")]
    if target.startswith("/") or not target or "\0" in target:
        return False
    up = 0
    while up < len(parts) and parts[up] == "..":
        up += 1
    return up <= depth and ".." not in parts[up:]


def _now(folder: OutputFolder, node: str) -> list[OutputFile]:
    return [_file(line, node) for line in folder.output_now()]


def _faults(view: dict[str, Any], node: str, damaged: int) -> list[str]:
    """Why the list of a sealed attempt may not be all that was written."""
    stream = view["seal"]["streams"].get(protocol.FILES)
    faults = [f"{node}: {n['why']}" for n in view["not_captured"] if n.get("what") == "files written"]
    if stream is None and not faults:
        faults.append(f"{node}: no list of files was made")
    if stream is not None and not stream.get("verified"):
        faults.append(f"{node}: the list of files differs from what was sealed")
    if damaged:
        faults.append(
            f"{node}: {damaged} line{'s' if damaged > 1 else ''} of the list of files cannot be read"
        )
    return faults


def _all(blobs: BlobStore, ref: StreamRef) -> bytes:
    parts = []
    offset = 0
    while data := blobs.read(ref, offset, _READ_BYTES):
        parts.append(data)
        offset += len(data)
    return b"".join(parts)


def chosen(files: tuple[OutputFile, ...], pattern: str | None) -> list[OutputFile]:
    """Those that a pattern means: by their path, or by a folder above them. None means all. Deleted ones are none."""
    there = [file for file in files if file.kind != "deleted"]
    if pattern is None:
        return there
    wanted = pattern.rstrip("/").split("/")
    return [file for file in there if _matches_above(wanted, file.path.split("/"))]


def _matches_above(pattern: list[str], parts: list[str]) -> bool:
    return any(matches(pattern, parts[:count]) for count in range(len(parts), 0, -1))


def matches(pattern: list[str], parts: list[str]) -> bool:
    """Whether a path is what a pattern describes, both split at "/": * and ? stay within a name, ** is any depth."""
    from fnmatch import fnmatchcase

    reached = {0}  # how far into the pattern the names so far can have come
    for part in [*parts, None]:
        reached = _through_stars(pattern, reached)
        if part is None:
            break
        step = {at for at in reached if at < len(pattern) and pattern[at] == "**"}
        step |= {
            at + 1
            for at in reached
            if at < len(pattern) and pattern[at] != "**" and fnmatchcase(part, pattern[at])
        }
        reached = step
    return len(pattern) in reached


def _through_stars(pattern: list[str], reached: set[int]) -> set[int]:
    """A ``**`` may stand for no name at all."""
    more = set(reached)
    for start in reached:
        end = start
        while end < len(pattern) and pattern[end] == "**":
            end += 1
            more.add(end)
    return more
