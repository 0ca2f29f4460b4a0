"""The code in the checkout of an attempt whose tasks are processes: what of it is not as it was committed."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Dict, List, Optional

from mllaunch_agent import codewatch, hashing, protocol, tracing, workdir
from mllaunch_agent.blobs import BlobLog
from mllaunch_agent.runtimes import Say
from mllaunch_agent.tracing.places import Places

if TYPE_CHECKING:
    from mllaunch_agent.supervisor import Supervisor

_NEW_FILES = 100  # that many added source files are told of one by one


class ProcessCode:
    """root: the checkout, or the working tree itself of a run in place."""

    def __init__(self, supervisor: "Supervisor", root: str) -> None:
        self._supervisor = supervisor
        self._spec = supervisor.spec
        self._root = root
        self._committed: Dict[str, Optional[str]] = {}

    def places(self) -> Places:
        spec = self._spec
        # Beneath an overlay a file keeps its inode when the checkout is cut down to what was written.
        mounts = [] if spec["in_place"] else [(self._root, os.path.join(spec["folder"], "upper"))]
        output = "/".join(part for part in (spec["workdir"], spec["output"]) if part)
        data = [link["path"] for link in spec["data"]]
        return Places(self._root, mounts, lambda path: path, self._committed_blob, data, output)

    def _committed_blob(self, path: str) -> Optional[str]:
        """The file of the commit, as git's id, from the kept tree, which holds nothing else."""
        if path not in self._committed:
            tree = self._spec["tree"]
            self._committed[path] = codewatch.blob_id(os.path.join(tree, path)) if tree else None
        return self._committed[path]

    def watch(self, say: Say, blobs: BlobLog, ending: threading.Event) -> None:
        tree = self._spec["tree"]
        if tree is None:
            say(
                protocol.NOT_CAPTURED,
                what="code.nodes: whether the code is the commit's",
                why="no tree is kept of it",
            )
            return
        if not self._spec["in_place"] and not workdir.is_there(self._spec["folder"]):
            say(
                protocol.NOT_CAPTURED,
                what="code.changes: what was changed shortly before the node went down",
                why="the checkout went with it",
            )
            return
        cached = os.path.join(self._spec["cache"], "listing-" + os.path.basename(tree))
        listed = codewatch.listing(tree, cached)
        past = [e for e in self._supervisor.events.past if e["kind"] == protocol.CODE_CHANGED]
        watch = codewatch.CodeWatch(listed, {e["path"]: e["after"] for e in past})
        codewatch.follow(watch, self._root, say, blobs, ending, tracing.began_ns(self._spec["folder"]))

    def say_added(self) -> None:
        """Tell of source files that were added to the checkout, of which the commit knows nothing; after the end."""
        output = self.places().is_output
        found: List[str] = []
        for entry in hashing.walk(os.fsencode(self._root)):
            path = os.fsdecode(entry.path)
            is_new = path.endswith(codewatch.SUFFIXES) and not self._committed_blob(path)
            if is_new and not output(os.path.join(self._root, path)):
                found.append(path)
        past = [e["path"] for e in self._supervisor.events.past if e["kind"] == protocol.CODE_CHANGED]
        for path in found[:_NEW_FILES]:
            blob = codewatch.blob_id(os.path.join(self._root, path))
            if blob is not None and path not in past:
                self._supervisor.blobs.keep_file(blob, os.path.join(self._root, path))
                self._supervisor.events.write(
                    protocol.CODE_CHANGED, rank=None, path=path, before=None, after=blob
                )
        if len(found) > _NEW_FILES:
            what = "code.changes: %d of the source files that were added" % (len(found) - _NEW_FILES)
            why = "there are too many, such as those of an environment; mllaunch files lists them"
            self._supervisor.events.write(protocol.NOT_CAPTURED, what=what, why=why)
