"""The task's own checkout of the frozen code: made before the start, cut down to their outputs after the end.

In the attempt's folder:

    work/         the checkout; after release(), what the tasks wrote or changed
    upper/        with an overlay: where the kernel puts what the tasks write, until release()
    overlay/      with an overlay: the kernel's own scratch folder
    index         with a copy: what was made, until release()
    workdir.json  {"method", "tree", "links", "plan"?, "result"?}: how far we are; replaced atomically.
                  method is null while the checkout is being made

The kept tree is shared by all runs and is never written to. Its files should keep the modes of a checkout,
0644 and 0755: an overlay shows them as they are, so a tree of read-only files gets copied instead.
"""

from __future__ import annotations

import errno
import json
import os
from typing import Any, Dict, List, Optional, Sequence

from mllaunch_agent import overlay, treecopy
from mllaunch_agent.protocol import DataLink
from mllaunch_agent.treecopy import WorkdirError

__all__ = [
    "WorkdirError",
    "discard",
    "is_mounted",
    "is_there",
    "link_data",
    "make",
    "release",
]

OVERLAY = "overlay"

State = Dict[str, Any]


def make(tree: str, folder: str) -> str:
    """Make ``folder``/work, a writable checkout of ``tree``; returns "overlay", "reflink" or "copy".

    Repeating it does nothing once the checkout is there, and starts over after a crash in the midst of it.
    Raises WorkdirError or OSError; nothing of a half-made checkout is ever taken for a whole one.
    """
    state = _read(folder)
    if state is not None and state["method"] is not None:
        if state["method"] == OVERLAY and not is_mounted(folder):
            raise WorkdirError("the checkout in %r is no longer mounted: its attempt is over" % folder)
        return str(state["method"])
    discard(folder)
    _write(folder, {"method": None, "tree": tree, "links": []}, durable=False)
    work, upper, scratch = (os.path.join(folder, name) for name in ("work", "upper", "overlay"))
    for path in (work, upper, scratch):
        os.mkdir(path)
    if overlay.mount(tree, upper, scratch, work):
        method = OVERLAY
    else:
        os.rmdir(upper)
        os.rmdir(scratch)
        method = treecopy.copy(tree, work, os.path.join(folder, "index"))
    _write(folder, {"method": method, "tree": tree, "links": []}, durable=False)
    return method


def is_mounted(folder: str) -> bool:
    return overlay.is_mount_point(os.path.join(folder, "work"))


def is_there(folder: str) -> bool:
    """Whether the checkout is as the tasks see it: an overlay goes with the node, and none is mounted anew."""
    state = _read(folder)
    return state is not None and (state["method"] != OVERLAY or is_mounted(folder))


def link_data(work: str, links: Sequence[DataLink]) -> None:
    """Make every data link appear in the checkout. Safe to repeat. Raises WorkdirError."""
    folder = os.path.dirname(os.path.abspath(work))
    state = _read(folder)
    if state is None:
        raise WorkdirError("there is no checkout in %r" % folder)
    wanted = [link for link in links if _is_needed(work, link)]
    state["links"] += [dict(link) for link in wanted if dict(link) not in state["links"]]
    _write(folder, state, durable=False)  # before the links: so release() knows all that could be there
    for link in wanted:
        place = os.path.join(work, link["path"])
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.symlink(link["source"], place)


def _is_needed(work: str, link: DataLink) -> bool:
    parts = link["path"].split("/")
    if not all(part not in ("", ".", "..") for part in parts) or "\0" in link["path"]:
        raise WorkdirError("data can't be placed at %r: not a plain relative path" % link["path"])
    place = work
    for part in parts[:-1]:
        place = os.path.join(place, part)
        if os.path.lexists(place) and (os.path.islink(place) or not os.path.isdir(place)):
            raise WorkdirError(
                "data can't be placed at %r: the snapshot has a file or link at %r, where a folder is needed"
                % (link["path"], os.path.relpath(place, work))
            )
    place = os.path.join(place, parts[-1])
    if not os.path.lexists(place):
        return True
    if os.path.islink(place) and os.readlink(place) == link["source"]:
        return False
    kind = "a link" if os.path.islink(place) else "a folder" if os.path.isdir(place) else "a file"
    raise WorkdirError("data can't be placed at %r: the snapshot already has %s there" % (link["path"], kind))


# ---- the end


def release(folder: str) -> Dict[str, Any]:
    """Reduce ``folder``/work to what the tasks wrote or changed; call it when no task lives any more.

    Returns ``{"method", "deleted", "changed", "detached", "beneath"}``: paths of the tree that are gone
    (relative, sorted by bytes); number of files and symlinks left in work; whether processes still used the
    mount; name of the folder with what was written to work while nothing was mounted there, or None.
    Safe to repeat, also after a crash at any point; nothing that a task wrote is ever removed.
    """
    state = _read(folder)
    if state is not None and state["method"] is None:
        discard(folder)  # its making was cut short, so no task ran in it
        state = None
    if state is None:
        return {"method": None, "deleted": [], "changed": 0, "detached": False, "beneath": None}
    if "result" not in state:
        detached = _unmount(folder) if state["method"] == OVERLAY else False
        _refuse_mounts(folder)
        if "plan" not in state:
            state["plan"] = _plan(folder, state)
            state["plan"]["detached"] = detached
            _write(folder, state, durable=True)  # the markers which tell it go next
        beneath = None
        if state["method"] == OVERLAY:
            beneath = _settle_overlay(folder, state)
        else:
            treecopy.strip(state["tree"], os.path.join(folder, "work"), os.path.join(folder, "index"))
        plan = state["plan"]
        state = {"method": state["method"], "tree": state["tree"], "links": []}
        result = {"method": state["method"], "deleted": plan["deleted"], "changed": plan["changed"]}
        result.update(detached=plan["detached"], beneath=beneath)
        state["result"] = result
        _write(folder, state, durable=True)
    _remove_ours(os.path.join(folder, "overlay"))
    _unlink(os.path.join(folder, "index"))
    return dict(state["result"])


def _unmount(folder: str) -> bool:
    detached = False
    while is_mounted(folder):
        detached = overlay.unmount(os.path.join(folder, "work")) or detached
    return detached


def _plan(folder: str, state: State) -> Dict[str, Any]:
    if state["method"] == OVERLAY:
        upper = os.path.join(folder, "upper")
        if not os.path.isdir(upper):  # a task may remove even our own folders
            return {"deleted": [], "moved": [], "changed": 0}
        _unlink_data(upper, state["links"])
        found = overlay.survey(upper, state["tree"])
        return {"deleted": found.deleted, "moved": found.moved, "changed": found.changed}
    work = os.path.join(folder, "work")
    if not os.path.isdir(work):
        os.mkdir(work)
    _unlink_data(work, state["links"])
    deleted: List[str] = []
    changed = 0
    for status in treecopy.compare(state["tree"], work, os.path.join(folder, "index")):
        if status.what == treecopy.DELETED:
            deleted.append(status.path)
        elif status.what != treecopy.SAME:
            changed += 1
    return {"deleted": sorted(deleted, key=os.fsencode), "changed": changed}


def _settle_overlay(folder: str, state: State) -> Optional[str]:
    work, upper = os.path.join(folder, "work"), os.path.join(folder, "upper")
    beneath = None
    if os.path.isdir(upper):
        overlay.settle(upper, state["tree"], state["plan"]["moved"])
        overlay.remove_empty(upper, state["tree"])
        try:
            os.rmdir(work)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            os.rename(work, work + ".beneath")
        os.rename(upper, work)
    if os.path.isdir(work + ".beneath"):
        beneath = "work.beneath"
    return beneath


def _unlink_data(base: str, links: List[DataLink]) -> None:
    for link in links:
        place = os.path.join(base, link["path"])
        if not (os.path.islink(place) and os.readlink(place) == link["source"]):
            continue  # a task put something else there
        if os.path.realpath(os.path.dirname(place)) != os.path.normpath(
            os.path.join(os.path.realpath(base), os.path.dirname(link["path"]))
        ):
            continue  # a task replaced a parent by a link that leads elsewhere
        os.unlink(place)
        while os.path.dirname(place) != base:
            place = os.path.dirname(place)
            try:
                os.rmdir(place)
            except OSError:
                break  # not empty


def discard(folder: str) -> None:
    """Unmount, and remove the checkout and all that the tasks wrote. Enters no other file system."""
    _unmount(folder)
    _refuse_mounts(folder)
    for name in ("work", "work.beneath", "upper", "overlay"):
        _remove_ours(os.path.join(folder, name))
    _unlink(os.path.join(folder, "index"))
    _unlink(os.path.join(folder, "workdir.json"))


def _refuse_mounts(folder: str) -> None:
    """A task may have mounted something and left it: what is in there isn't ours to remove."""
    for name in ("work", "upper"):
        inside = overlay.mounts_in(os.path.join(folder, name))
        if inside:
            raise WorkdirError("another file system is mounted at %r; unmount it first" % inside[0])


def _remove_ours(path: str) -> None:
    """Remove a folder with all that is in it, deepest first."""
    if not os.path.lexists(path):
        return
    folders, todo = [], [path]
    while todo:
        folder = todo.pop()
        if os.lstat(folder).st_mode & 0o700 != 0o700:
            os.chmod(folder, 0o700)
        folders.append(folder)
        with os.scandir(folder) as entries:
            todo.extend(entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
    for folder in reversed(folders):
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


# ---- how far we are


def _read(folder: str) -> Optional[State]:
    try:
        with open(os.path.join(folder, "workdir.json"), encoding="ascii") as file:
            state: State = json.load(file)
            return state
    except FileNotFoundError:
        return None


def _write(folder: str, state: State, durable: bool) -> None:
    path = os.path.join(folder, "workdir.json")
    with open(path + ".part", "w", encoding="ascii") as file:
        json.dump(state, file)
        file.flush()
        if durable:
            os.fsync(file.fileno())
    os.replace(path + ".part", path)
    if durable:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
