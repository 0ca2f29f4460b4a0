"""The attempts of one user on this node, by run and number: what a launcher can ask for and have done."""

from __future__ import annotations

import os
import re
import time
from typing import Dict, List, Optional, Tuple

from mllaunch_agent import node, protocol, starting, system

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}\Z")
_REVIVE_PAUSE_S = 2.0  # an agent that was started a moment ago may not have taken the lock yet


class Attempts:
    """home: the folder that holds everything mllaunch keeps for this user on this node."""

    def __init__(self, home: str) -> None:
        self.home = home
        self._revived_s: Dict[str, float] = {}

    def folder(self, run_id: str, number: int) -> str:
        """ValueError if the names would lead elsewhere."""
        if not _ID.match(run_id):
            raise ValueError("not a run: %r" % run_id[:80])
        return os.path.join(self.home, "runs", run_id, str(int(number)))

    def find(self, run_id: str, number: int) -> Optional[node.AttemptFolder]:
        """None if nothing of it has begun here."""
        folder = self.folder(run_id, number)
        return node.AttemptFolder(folder) if os.path.isdir(os.path.join(folder, "streams")) else None

    def following(self, run_id: str, failed: int) -> Optional[protocol.TaskSpec]:
        """What the attempt after a failed one is to be told; None if it has started already.

        FileNotFoundError if nothing is left of the failed one.
        """
        spec = node.AttemptFolder(self.folder(run_id, failed)).spec()
        if spec is None:
            raise FileNotFoundError("nothing is left of attempt %d" % failed)
        folder = self.folder(run_id, failed + 1)
        if os.path.exists(os.path.join(folder, "spec.json")):
            return None
        os.makedirs(folder, mode=0o700, exist_ok=True)
        stop = node.AttemptFolder(self.folder(run_id, failed)).stop_request()
        if stop is not None:  # it came too late for the failed one, and is to end the run all the same
            node.AttemptFolder(folder).request_stop(stop)
        return {**spec, "attempt": failed + 1, "folder": folder}

    def has_begun(self, run_id: str, number: int) -> bool:
        """Whether an agent has taken it, or is about to."""
        folder = self.folder(run_id, number)
        return os.path.exists(os.path.join(folder, "spec.json")) or node.AttemptFolder(folder).is_alive()

    def revive(self, run_id: str, number: int) -> None:
        """Make sure that an agent looks after an unsealed attempt whose agent has died."""
        folder = self.folder(run_id, number)
        now_s = time.monotonic()
        if now_s - self._revived_s.get(folder, -_REVIVE_PAUSE_S) >= _REVIVE_PAUSE_S:
            self._revived_s[folder] = now_s
            starting.adopt(folder)

    def abandon(self, run_id: str, number: int) -> bool:
        """Rule out that a submission which broke off can still start; False if somebody is at it or it has started."""
        folder = self.folder(run_id, number)
        if system.is_locked(os.path.join(folder, "submit.lock")):
            return False
        return self.withdraw(run_id, number)

    def withdraw(self, run_id: str, number: int) -> bool:
        """Likewise, by the one who is at it."""
        return node.AttemptFolder(self.folder(run_id, number)).fence()

    def kept(self) -> List[str]:
        """Ids of the runs of which something lies here."""
        try:
            return sorted(os.listdir(os.path.join(self.home, "runs")))
        except FileNotFoundError:
            return []

    def held_bytes(self, run_id: str, number: int) -> Optional[Tuple[int, int]]:
        """How much disk an attempt takes: (our copies of its streams, what its tasks wrote); None: nothing is left."""
        return node.held_bytes(self.folder(run_id, number))

    def release_streams(self, run_id: str, number: int) -> None:
        """Free our copies of a sealed attempt's streams; repeatable. OSError while somebody is at it."""
        node.release_streams(self.folder(run_id, number))
        self._leave_no_empty_folder(run_id, number)

    def discard(self, run_id: str, number: int) -> None:
        """Remove all that lies here of an attempt; repeatable. OSError while somebody is at it."""
        node.discard(self.folder(run_id, number))
        self._leave_no_empty_folder(run_id, number)

    def _leave_no_empty_folder(self, run_id: str, number: int) -> None:
        try:
            os.rmdir(os.path.dirname(self.folder(run_id, number)))
        except OSError:
            pass  # other attempts lie there
