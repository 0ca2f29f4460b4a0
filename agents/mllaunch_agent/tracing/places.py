"""Where the tasks' files are: as the tasks name them, as the record names them, and where this node has them."""

from __future__ import annotations

import os
from typing import Callable, Optional, Sequence, Tuple

__all__ = ["Places"]


class Places:
    """root: the checkout, as the tasks see it. mounts: (path as the tasks see it, the node's own path), the longest
    first; what lies under none is at ``beyond(path)``, or cannot be reached (None). committed: git's id of a file of
    the commit, by its path relative to the root; None if there is none."""

    def __init__(
        self,
        root: str,
        mounts: Sequence[Tuple[str, str]],
        beyond: Callable[[str], Optional[str]],
        committed: Callable[[str], Optional[str]],
        data: Sequence[str],
        output: str,
    ) -> None:
        self.root = root
        self._mounts = sorted(mounts, key=lambda pair: len(pair[0]), reverse=True)
        self._beyond = beyond
        self.committed = committed
        self._data = list(data)
        self._output = output

    def shown(self, path: str) -> str:
        """A path as the record names it: relative to the root of the checkout where it lies there."""
        return path[len(self.root) + 1 :] if path.startswith(self.root + "/") else path

    def is_inside(self, path: str) -> bool:
        return path.startswith(self.root + "/")

    def is_output(self, path: str) -> bool:
        """Whether a path lies in the output folder."""
        return self.shown(path).startswith(self._output + "/")

    def data_of(self, path: str) -> Optional[str]:
        """The data path (as the run names it) that a path belongs to."""
        shown = self.shown(path)
        for data in self._data:
            if shown == data or shown.startswith(data + "/"):
                return data
        return None

    def on_node(self, path: str) -> Optional[str]:
        """Where this node has it, or where it would be; None if it cannot be reached from here."""
        for seen, real in self._mounts:
            if path == seen or path.startswith(seen + "/"):
                place = real + path[len(seen) :]
                if os.path.lexists(place):
                    return place
        return self._beyond(path)
