"""Follows the attempt's streams as they grow: notes when bytes arrived, and digests them."""

from __future__ import annotations

import os
import threading
from typing import Any, Dict, List, Optional

from mllaunch_agent import node, protocol, system
from mllaunch_agent.redaction import Masker
from mllaunch_agent.streams import Stream

_PIECE = 128 << 10
_DIGEST_SHARE = 64 << 20  # bytes of one stream digested per turn, so that a flood does not hold up the others


class Follower:
    """tick() belongs to the main loop and costs microseconds; digest() to a thread of low priority."""

    def __init__(self, folder: str, masker: Masker) -> None:
        self._folder = folder
        self._masker = masker
        self._marks = Stream(folder, protocol.MARKS)
        self._sizes: Dict[str, int] = {}
        self._digests: Dict[str, node.StreamDigest] = {}
        self._lock = threading.Lock()  # a digest that is slow may still be under way when the seal is made

    @property
    def dropped(self) -> int:
        return self._marks.dropped

    def tick(self) -> None:
        """Note which output streams have grown. Called at least every 100 ms, which bounds how far two
        streams can be shown out of order."""
        at_ms = int(system.boot_s() * 1000)
        for name, size in node.stream_sizes(self._folder):
            if node.is_output(name) and size > self._sizes.get(name, 0):
                self._sizes[name] = size
                self._marks.write(b"%d %s %d\n" % (at_ms, name.encode(), size))

    def digest(self) -> None:
        """Take in what the tasks have printed so far."""
        for name, size in node.stream_sizes(self._folder):
            if node.is_output(name):
                digest = self._digest_of(name)
                end = min(size, digest.offset + _DIGEST_SHARE)
                # In pieces: masking holds the interpreter, which the main loop needs to keep a full disk from the job.
                while digest.offset < end and self._advance(digest, size):
                    pass

    def _advance(self, digest: node.StreamDigest, size: int) -> int:
        with self._lock:
            return digest.advance(size, False, _PIECE)

    def seal(self, gaps: Dict[str, List[Dict[str, Any]]]) -> Dict[str, protocol.StreamSeal]:
        """The final statement about every stream. Nothing may be written to any of them afterwards."""
        self._marks.close()
        seals: Dict[str, protocol.StreamSeal] = {}
        for name, size in node.stream_sizes(self._folder):
            digest = self._digest_of(name)
            with self._lock:
                digest.advance(size, True)
            seals[name] = digest.seal(gaps.get(name, []))
        return seals

    def _digest_of(self, name: str) -> node.StreamDigest:
        if name not in self._digests:
            masker: Optional[Masker] = self._masker if node.is_output(name) else None
            self._digests[name] = node.StreamDigest(os.path.join(self._folder, "streams", name), masker)
        return self._digests[name]
