"""Checkpoints that runs on other nodes wrote, brought here for one that goes on from them.

    HOME/checkpoints/<sha256>/NAME      a file or a folder, whole when it came here
    HOME/checkpoints/part-<sha256>/...  one on its way: FILE of one file, FOLDER/... of several

What is on its way is never thrown away when the way breaks: its name says which bytes belong there, so whoever sends
it next goes on where the last one stopped, and two who send it at once write the same.
"""

from __future__ import annotations

import os
import shutil
from typing import Any, Dict, List, Optional

from mllaunch_agent import checkpoint, system
from mllaunch_agent.codekeeping import Damaged

_FILE, _FOLDER = "file", "folder"


class CheckpointKeeping:
    def __init__(self, home: str) -> None:
        self._folder = os.path.join(home, "checkpoints")

    def find(self, sha256: str, name: str) -> Optional[Dict[str, Any]]:
        """{"place", "keys"} of a whole one, which was read; None if it is not here, or not any more what it was."""
        folder = self._of(sha256)
        place = os.path.join(folder, _plain(name))
        if not os.path.lexists(place):
            return None
        keys = checkpoint.keys(place)
        # A task may have written into the file that it was given, which can be a link to this one.
        if checkpoint.digest_of(place) != sha256 or checkpoint.keys(place) != keys:
            shutil.rmtree(folder, ignore_errors=True)
            return None
        os.utime(folder)  # by which the least used is found
        return {"place": place, "keys": keys}

    def held(self, sha256: str, names: List[str]) -> List[int]:
        """How many bytes of each file have come. names: in the checkpoint's folder; "" of one that is a file."""
        return [_size(self._part(sha256, name)) for name in names]

    def keep_part(self, sha256: str, name: str, offset: int, content: bytes) -> None:
        place = self._part(sha256, name)
        os.makedirs(os.path.dirname(place), mode=0o700, exist_ok=True)
        fd = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.lseek(fd, offset, os.SEEK_SET)
            system.write_all(fd, content)
        finally:
            os.close(fd)
        os.utime(self._of(sha256, "part-"))  # it is being sent yet

    def keep_whole(self, sha256: str, name: str) -> Dict[str, Any]:
        """All of it has come; what ``find`` says of it. Damaged, if it is something else: nothing is kept of that."""
        staging = self._of(sha256, "part-")
        final = os.path.join(self._of(sha256), _plain(name))
        if not os.path.lexists(
            final
        ):  # else another who sent it was first, and took what came of ours with it
            came = os.path.join(staging, _FILE)
            if not os.path.exists(came):
                came = os.path.join(staging, _FOLDER)
            os.makedirs(os.path.dirname(final), mode=0o700, exist_ok=True)
            try:
                os.rename(came, final)
            except OSError:
                if not os.path.lexists(final):
                    raise
        shutil.rmtree(staging, ignore_errors=True)
        found = self.find(sha256, name)
        if found is None:
            raise Damaged("the checkpoint was damaged on its way")
        return found

    def _of(self, sha256: str, prefix: str = "") -> str:
        if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
            raise ValueError("not a digest: %r" % sha256[:80])
        return os.path.join(self._folder, prefix + sha256)

    def _part(self, sha256: str, name: str) -> str:
        staging = self._of(sha256, "part-")
        if not name:
            return os.path.join(staging, _FILE)
        return os.path.join(staging, _FOLDER, *[_plain(part) for part in name.split("/")])


def _plain(name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise ValueError("not a plain name: %r" % name[:80])
    return name


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
