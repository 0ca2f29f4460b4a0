"""Where files of several nodes go in one folder: nothing may come in the place of what another node wrote."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mllaunch.usecases.outputs import OutputFile, stays_inside


class Wanted(NamedTuple):
    """One file to be copied. place: where to, below DEST. holders: the same content, on each of several nodes."""

    place: str
    holders: tuple[OutputFile, ...]


class Layout(NamedTuple):
    """contested: the paths because of which each node has a folder of its own in DEST; () where none is needed."""

    contested: tuple[str, ...]
    wanted: tuple[Wanted, ...]


def layout(files: Sequence[OutputFile]) -> Layout:
    """Where files go, none of them deleted: to DEST/PATH, or all of them to DEST/NODE/PATH where nodes differ at any
    path. So what a node wrote stays together: a checkpoint's files of which only one differs are of use in one folder.
    """
    found = contested(files)
    if found:
        return Layout(found, tuple(Wanted(f"{file.node}/{file.path}", (file,)) for file in files))
    groups: dict[tuple[str, str, str | None], list[OutputFile]] = {}
    for file in files:
        groups.setdefault((file.path, file.kind, file.target), []).append(file)
    return Layout((), tuple(Wanted(group[0].path, tuple(group)) for group in groups.values()))


def contested(files: Sequence[OutputFile]) -> tuple[str, ...]:
    """The paths, sorted, that cannot hold what every node has there: contents differ, or are not known to be the same,
    or one node has a folder where another has a file."""
    copied = [file for file in files if _is_copied(file)]
    if len({file.node for file in copied}) < 2:
        return ()
    first: dict[str, OutputFile] = {}
    found = set()
    for file in copied:
        other = first.setdefault(file.path, file)
        if other.node != file.node and not _is_same(file, other):
            found.add(file.path)
    for file in copied:
        found.update(above for above in _above(file.path) if above in first)
    return tuple(sorted(found))


def _is_copied(file: OutputFile) -> bool:
    """Whether it can be in anything's way: pipes, and links that lead out, are never copied."""
    if file.kind == "symlink":
        return file.target is not None and stays_inside(file.target, file.path.count("/"))
    return file.kind == "file"


def _is_same(one: OutputFile, other: OutputFile) -> bool:
    if one.kind == "file" and one.sha256 is None:
        return False
    return (one.kind, one.sha256, one.target) == (other.kind, other.sha256, other.target)


def _above(path: str) -> Iterator[str]:
    """The folders that a path is in."""
    end = path.rfind("/")
    while end > 0:
        yield path[:end]
        end = path.rfind("/", 0, end)


def words(contested: Sequence[str]) -> str:
    """Why there is a folder for each node."""
    more = f" and {len(contested) - 1} more" if len(contested) > 1 else ""
    return f"{contested[0]}{more}: not the same on all nodes, so each node's files are in a folder of its own"
