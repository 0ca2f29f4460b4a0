"""The code in the containers of an attempt: what of it changes while they run, and what they leave behind in it."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Set

from mllaunch_agent import codewatch, container, container_files, protocol, tracing
from mllaunch_agent.engine import Engine, EngineError
from mllaunch_agent.probes.container import TREE
from mllaunch_agent.runtimes import Say
from mllaunch_agent.tracing.places import Places

if TYPE_CHECKING:
    from mllaunch_agent.blobs import BlobLog
    from mllaunch_agent.supervisor import Supervisor

_CODE_LOOK_S = 2.0
_CODE_ASK_S = 10.0  # where the engine must be asked, which goes through all that a container wrote
_NEW_FILES = 100  # that many added source files are told of one by one


class ContainerCode:
    def __init__(self, supervisor: "Supervisor", spec: protocol.ContainerSpec, engine: Engine) -> None:
        self._supervisor = supervisor
        self._spec = supervisor.spec
        self._container = spec
        self._engine = engine
        self._watches: Dict[int, codewatch.CodeWatch] = {}
        self._verified: Set[int] = set()
        self._lock = threading.Lock()  # the last look may still be under way when the end has come

    def places(self) -> Places:
        """What lies on no mount is found through the kernel, as long as the container runs."""
        rank = self._spec["tasks"][0]["rank"]
        mounts = container.mounts(self._spec, self._container, rank, container.FILES)
        workspace = self._container["workspace"]
        output = "/".join(part for part in (self._spec["workdir"], self._spec["output"]) if part)
        data = [link["path"] for link in self._spec["data"]]
        pairs = [(mount["Target"], mount["Source"]) for mount in mounts]
        return Places(workspace, pairs, self._through_kernel, self._committed, data, output)

    def _through_kernel(self, path: str) -> Optional[str]:
        for record in list(self._supervisor.tasks.values()):
            if record["pid"]:
                place = "/proc/%d/root%s" % (record["pid"], path)
                if os.path.lexists(place):
                    return place
        return None

    def _committed(self, path: str) -> Optional[str]:
        for rank, record in list(self._supervisor.tasks.items()):
            try:
                with self._lock:
                    return self._watch_of(rank, record).listed(path)
            except OSError:
                continue
        return None

    def watch(self, say: Say, blobs: "BlobLog", ending: threading.Event) -> None:
        """Look at every container's code again and again, through the kernel where that is allowed."""
        while not ending.is_set():
            pause_s = _CODE_LOOK_S
            for rank, record in list(self._supervisor.tasks.items()):
                root = "/proc/%d/root%s" % (record["pid"], self._container["workspace"])
                try:
                    with self._lock:
                        watch = self._watch_of(rank, record)
                        codewatch.look(watch, root, rank, say, blobs)
                        if watch.is_verified and rank not in self._verified:
                            self._verified.add(rank)
                            began_ns = tracing.began_ns(self._spec["folder"])
                            codewatch.say_verified(watch, root, rank, say, began_ns)
                except PermissionError:
                    pause_s = _CODE_ASK_S
                    self._ask_for_changes(say, rank, record)
                except OSError:
                    pass  # it has just ended: what it changed is found then
            ending.wait(pause_s)

    def _watch_of(self, rank: int, record: protocol.TaskRecord) -> codewatch.CodeWatch:
        """As last seen, also by a supervisor before this one."""
        if rank not in self._watches:
            assert record["container"] is not None
            listed = codewatch.parse_tree(self._file(record["container"], TREE) or b"")
            past = [e for e in self._supervisor.events.past if e["kind"] == protocol.CODE_CHANGED]
            seen = {e["path"]: e["after"] for e in past if e["rank"] == rank}
            self._watches[rank] = codewatch.CodeWatch(listed, seen)
        return self._watches[rank]

    def _file(self, container_id: str, path: str) -> Optional[bytes]:
        """The content of a file in the container, running or not, or where a link leads; None if there is none."""
        try:
            with container_files.archive(self._engine, container_id, path) as tar:
                for member in tar:
                    if member.issym():
                        return os.fsencode(member.linkname)
                    content = tar.extractfile(member) if member.isfile() else None
                    return content.read() if content else None
        except EngineError as e:
            if e.status != 404:
                raise
        return None

    def _ask_for_changes(self, say: Say, rank: int, record: protocol.TaskRecord) -> None:
        try:
            assert record["container"] is not None
            workspace = self._container["workspace"]
            changes = self._engine.changes(record["container"])
            found = container_files.plan(changes, workspace, self._mounted(rank))
            with self._lock:
                watch = self._watch_of(rank, record)
                for path in watch.known(found.deleted + found.changed + found.added):
                    content = self._file(record["container"], "%s/%s" % (workspace, path))
                    blob = None if content is None else codewatch.blob_id_of(content)
                    if blob is not None and content is not None:
                        self._supervisor.blobs.keep(blob, content)
                    self._say_changes(say, rank, watch.note(path, blob))
        except OSError:
            pass  # the engine is away, or the container: asked again soon, and at the end

    def _say_changes(self, say: Say, rank: int, changes: Sequence[Dict[str, Any]]) -> None:
        for change in changes:
            say(protocol.CODE_CHANGED, rank=rank, **change)

    def bring_out(self, rank: int, record: protocol.TaskRecord, work: str) -> List[str]:
        """Copy what a task wrote outside of the output folder into ``work``, and tell of all that changed in the code;
        the paths that are gone, relative to ``work``. EngineGone, EngineError, OSError."""
        if record["container"] is None or self._engine.inspect(record["container"]) is None:
            raise EngineError(404, "the container was removed")
        # Ranks have a copy each of the code, and may have written different things under one name.
        target = work if rank == self._spec["tasks"][0]["rank"] else os.path.join(work, "rank-%d" % rank)
        workspace = self._container["workspace"]
        mounted = self._mounted(rank)
        found = container_files.bring_out(self._engine, record["container"], workspace, mounted, target)
        with self._lock:
            watch = self._watch_of(rank, record)
            known = watch.known(found.deleted + found.changed + found.added)
            below = container_files.files_below(target, found.added)
            new = [path for path in below if path.endswith(codewatch.SUFFIXES)]
            if len(new) > _NEW_FILES:
                what = "code.changes: %d of the source files that rank %d added" % (
                    len(new) - _NEW_FILES,
                    rank,
                )
                why = "there are too many, such as those of an environment; mllaunch files lists them"
                self._supervisor.events.write(protocol.NOT_CAPTURED, what=what, why=why)
            for path in [*known, *new[:_NEW_FILES]]:
                if path not in found.missing:
                    blob = codewatch.blob_id(os.path.join(target, path))
                    if blob is not None:
                        self._supervisor.blobs.keep_file(blob, os.path.join(target, path))
                    self._say_changes(self._supervisor.events.write, rank, watch.note(path, blob))
        if found.missing:
            count, first = len(found.missing), found.missing[0]
            what = "%d of the files that rank %d wrote, such as %s" % (count, rank, first)
            why = "the container engine lists them and does not give them"
            self._supervisor.events.write(protocol.NOT_CAPTURED, what=what, why=why)
        return [os.path.relpath(os.path.join(target, path), work) for path in found.deleted]

    def _mounted(self, rank: int) -> List[str]:
        mounts = container.mounts(self._spec, self._container, rank, container.FILES)
        return [mount["Target"] for mount in mounts]
