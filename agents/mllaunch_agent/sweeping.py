"""Frees on a node what nothing there uses any more: trees, contents, agents' own folders, environments, and checkpoints
that came from other nodes.

A tree, an environment and a checkpoint are used by every attempt whose streams still lie here, for its launcher may yet
go on with it; a content by every tree that has it; an agent's folder by such attempts, and by processes that were
started from it. What is being sent is safe behind the lock that CodeKeeping holds meanwhile, or by its age.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections import Counter
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Set, Tuple
from typing import Counter as Counted

from mllaunch_agent import codekeeping, environments, node, system

__all__ = ["Unused", "find", "sweep"]

_SAFE_S = 3600.0  # nothing that is being made, or an agent being started, was touched so long ago
_EVERY_S = 3600.0
_HEX = set("0123456789abcdef")


class Unused(NamedTuple):
    """Paths that may go. size_bytes: what that frees of the disk."""

    trees: List[str]
    contents: List[str]
    agents: List[str]
    others: List[str]
    remains: List[str]
    size_bytes: int


def find(home: str, unused_for_s: float) -> Unused:
    """What has been used by nothing for so long."""
    now_s = time.time()
    before_s = now_s - unused_for_s
    trees_in_use, specs = _in_use(home)
    trees = [
        path
        for path in _named(os.path.join(home, "trees"))
        if os.path.basename(path) not in trees_in_use and _modified_s(path) < before_s
    ]
    links, size = _counted(trees)
    contents = []
    for path, info in _contents(home, links):
        if links[info.st_dev, info.st_ino] or info.st_ctime < before_s:
            contents.append(path)
            size += info.st_blocks * 512
    agents = _agents(home, min(before_s, now_s - _SAFE_S), specs)
    others = _others(home, min(before_s, now_s - _SAFE_S), specs)
    remains = _remains(home, now_s - _SAFE_S)
    size += sum(node.disk_bytes(path) for path in (*agents, *others, *remains))
    return Unused(trees, contents, agents, others, remains, size)


def sweep(home: str, unused_for_s: float, seldom: bool = False) -> Optional[Unused]:
    """Free it; what was freed. None if something is being sent now, or seldom is wished and it was done of late."""
    mark = os.path.join(home, "swept")
    if seldom and _modified_s(mark) > time.time() - _EVERY_S:
        return None
    lock = system.try_lock(codekeeping.lock_path(home))
    if lock is None:
        return None
    try:
        found = find(home, unused_for_s)
        for path in (*found.trees, *found.agents):
            # First under another name: what is half removed must not be taken for whole.
            gone = os.path.join(os.path.dirname(path), "tmp-%d-%s" % (os.getpid(), os.urandom(8).hex()))
            os.rename(path, gone)
            shutil.rmtree(gone, ignore_errors=True)
        for path in found.contents:
            os.unlink(path)
        for path in (*found.others, *found.remains):
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)
        system.write_atomic(mark, b"")
        return found
    finally:
        os.close(lock)


def _in_use(home: str) -> Tuple[Set[str], str]:
    """Names of the trees of attempts that are not over for their launchers, which may try again with the same
    specification; and those specifications, as text."""
    trees = set()
    specs = []
    runs = os.path.join(home, "runs")
    for attempt in (path for run in _listed(runs) for path in _listed(run)):
        if not os.path.basename(attempt).isdigit():
            continue  # it is being removed
        spec = system.read_file(os.path.join(attempt, "spec.json"))
        is_sealed = os.path.exists(os.path.join(attempt, "seal.json"))
        if spec is None or (is_sealed and not os.path.isdir(os.path.join(attempt, "streams"))):
            continue
        specs.append(spec.decode(errors="replace"))
        known: Dict[str, Any] = node.read_json(os.path.join(attempt, "spec.json")) or {}
        trees.add(os.path.basename(str(known.get("tree"))))
    return trees, "\n".join(specs)


def _contents(home: str, links: Counted[Tuple[int, int]]) -> Iterator[Tuple[str, os.stat_result]]:
    """Contents that no tree but those to be removed has: links counts theirs."""
    for folder in _listed(os.path.join(home, "contents")):
        seen = {path: _stat(path) for path in _listed(folder)}
        found = {path: info for path, info in seen.items() if info is not None}
        for path, info in found.items():
            # A tree that has it as an executable has a copy; another is made of it, not sent.
            copy = found.get(path + ".x", info)
            if all(i.st_nlink - links[i.st_dev, i.st_ino] == 1 for i in (info, copy)):
                yield path, info


def _agents(home: str, before_s: float, specs: str) -> List[str]:
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    idle = [
        path
        for path in _named(os.path.join(home, "agents"))
        if path != own
        and os.path.basename(path) not in specs
        and max(_modified_s(path), _modified_s(os.path.join(path, "used"))) < before_s
    ]
    return [path for path in idle if not _has_processes(path)] if idle else []


def _others(home: str, before_s: float, specs: str) -> List[str]:
    """Checkpoints; and environments with what lies beside them, but for their locks, which somebody may wait for."""
    found = [
        path
        for path in _listed(os.path.join(home, "checkpoints"))
        if _modified_s(path) < before_s and os.path.basename(path) not in specs
    ]
    folder = os.path.join(home, "environments")
    for key, parts in environments.listed(folder).items():
        place = os.path.join(folder, key)
        marked = environments.mark(place)
        is_used = key in specs or system.is_locked(place + ".lock")
        if not is_used and max(map(_modified_s, (*parts, marked))) < before_s:
            # The mark first: an environment that is half removed must be taken for a broken one.
            found += [path for path in (marked, *parts) if path != place + ".lock" and os.path.lexists(path)]
    return found


def _has_processes(path: str) -> bool:
    """Whether a process was started from there, or is a task that has something preloaded from there."""
    needle = os.path.basename(path).encode()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        for name in ("cmdline", "environ"):
            try:
                with open("/proc/%s/%s" % (pid, name), "rb") as file:
                    if needle in file.read():
                        return True
            except OSError:
                pass  # it has ended, or is not ours
    return False


def _remains(home: str, before_s: float) -> List[str]:
    """What processes that died have left half-made."""
    found = [
        path
        for folder, begins in (("trees", "tmp-"), ("contents", "part-"), ("agents", ""))
        for path in _listed(os.path.join(home, folder))
        if os.path.basename(path).startswith(begins) and not _is_name(path)
    ]
    return [path for path in found if _modified_s(path) < before_s]


def _named(folder: str) -> List[str]:
    return [path for path in _listed(folder) if _is_name(path)]


def _is_name(path: str) -> bool:
    name = os.path.basename(path)
    return len(name) == 64 and not set(name) - _HEX


def _listed(folder: str) -> List[str]:
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _counted(trees: List[str]) -> Tuple[Counted[Tuple[int, int]], int]:
    """How many links to each content are in them, and the bytes that are theirs alone."""
    links: Counted[Tuple[int, int]] = Counter()
    size = 0
    for place, inner, files in (entry for tree in trees for entry in os.walk(tree)):
        size += os.lstat(place).st_blocks * 512
        for name in (*inner, *files):
            info = os.lstat(os.path.join(place, name))
            if stat.S_ISDIR(info.st_mode):
                continue
            if info.st_nlink > 1:
                links[info.st_dev, info.st_ino] += 1
            else:
                size += info.st_blocks * 512
    return links, size


def _stat(path: str) -> Optional[os.stat_result]:
    """None if it is gone: what is sent gets its name only when it is whole."""
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _modified_s(path: str) -> float:
    """0 of what is not there."""
    info = _stat(path)
    return 0.0 if info is None else info.st_mtime
