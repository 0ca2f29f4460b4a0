"""Nodes of an attempt, as collecting asks them; a clock that is set by hand."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, cast

from mllaunch.domain.snapshot import Snapshot
from mllaunch.errors import MllaunchError, Unreachable
from mllaunch.ports import AttemptRef
from mllaunch_agent import PROTOCOL_VERSION
from mllaunch_agent.protocol import Seal

AT = "2026-11-21T09:00:00.000Z"


class Clock:
    def __init__(self) -> None:
        self.minute = 0

    def now(self) -> str:
        return f"2026-11-21T{9 + self.minute // 60:02}:{self.minute % 60:02}:00.000Z"


class Code:
    """A CodeStore that has everything."""

    def preserve(self, snapshot: Snapshot) -> None:
        pass


class Node:
    """What one node holds. is_silent: it does not answer. is_gone: nothing of the attempt is left. events: the bytes of
    that stream.
    """

    def __init__(self) -> None:
        self.is_silent = False
        self.is_gone = False
        self.is_alive_now = True
        self.events = b""
        self._seal: dict[str, Any] | None = None

    def tell(self, kind: str, at: str = AT, **fields: Any) -> None:
        """One event more."""
        number = self.events.count(b"\n") + 1
        line = {"seq": number, "at": at, "boot_s": 1.0, "kind": kind, **fields}
        self.events += json.dumps(line).encode() + b"\n"

    def start(self) -> None:
        self.tell("attempt_started", node="n", hostname="n", boot_id="b", pid=1)
        self.tell("task_started", rank=0, pid=10)

    def end(self, state: str, at: str = AT, reason: dict[str, Any] | None = None, code: int = 0) -> None:
        self.tell("attempt_ended", at, state=state, exit_code=code, reason=reason)

    def seal_it(self, state: str, exit_code: int | None = 0, protocol: int = PROTOCOL_VERSION) -> None:
        digest = hashlib.sha256(self.events).hexdigest()
        stream = {"size_bytes": len(self.events), "sha256": digest, "gaps": []}
        self._seal = {
            "protocol": protocol,
            "state": state,
            "exit_code": exit_code,
            "at": AT,
            "streams": {"events": stream},
        }

    # --- NodeFiles

    def lengths(self) -> dict[str, int]:
        return {"events": len(self.events)}

    def read(self, stream: str, offset: int, limit: int) -> bytes:
        return self.events[offset : offset + limit]

    def seal(self) -> Seal | None:
        if self.is_silent:
            raise Unreachable("unreachable", "silent")
        return cast("Seal | None", self._seal)

    def is_alive(self) -> bool:
        return self.is_alive_now


class Nodes:
    """The part of a scheduler that collecting asks."""

    def __init__(self, *names: str, lease_s: float = 1800.0) -> None:
        self.by_name = {name: Node() for name in names}
        self.asked: list[str | None] = []
        self.retried: list[int] = []
        self.retry_fails: MllaunchError = Unreachable("unreachable", "not now")
        self.revived: list[str] = []
        self._lease_s = lease_s

    def __getitem__(self, name: str) -> Node:
        return self.by_name[name]

    def files(self, attempt: AttemptRef, node: str | None = None) -> Mapping[str, Node | None]:
        self.asked.append(node)
        return {
            name: None if found.is_gone else found
            for name, found in self.by_name.items()
            if node in (None, name)
        }

    def nodes_of(self, attempt: AttemptRef) -> list[str]:
        return list(self.by_name)

    def lease_s(self, attempt: AttemptRef) -> float:
        return self._lease_s

    def abandon(self, attempt: AttemptRef) -> bool:
        return False

    def retry(self, failed: AttemptRef) -> None:
        self.retried.append(failed.number)
        raise self.retry_fails

    def revive(self, attempt: AttemptRef, node: str) -> None:
        self.revived.append(node)
