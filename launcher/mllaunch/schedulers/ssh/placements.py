"""Where attempts are, and on what terms: HOME/placements/RUN/ATTEMPT.json, written before anything starts.

Beside it lies RUN/freed.json, the nodes that have freed their copies of the run's streams.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Mapping
from typing import Any

from mllaunch.errors import MllaunchError, NotFound
from mllaunch.ports import AttemptRef
from mllaunch.schedulers.ssh.transport import Address
from mllaunch_agent import system

__all__ = ["Placements"]


class Placements:
    """home: the folder that holds everything mllaunch keeps for this user."""

    def __init__(self, home: str) -> None:
        self._root = os.path.join(home, "placements")
        self._turn = threading.Lock()

    def folder(self, run_id: str) -> str:
        return os.path.join(self._root, run_id)

    def runs(self) -> list[str]:
        """Ids of the runs that were ever placed, and are not forgotten; in order."""
        try:
            return sorted(os.listdir(self._root))
        except FileNotFoundError:
            return []

    def attempts(self, run_id: str) -> list[AttemptRef]:
        """Those that were placed."""
        try:
            names = [name.removesuffix(".json") for name in os.listdir(self.folder(run_id))]
        except FileNotFoundError:
            return []
        return [
            AttemptRef(run_id, number) for number in sorted(int(name) for name in names if name.isdigit())
        ]

    def record(self, attempt: AttemptRef, document: Mapping[str, Any]) -> None:
        with self._turn:
            system.write_atomic(self._path(attempt), json.dumps(document).encode(), durable=True)

    def read(self, attempt: AttemptRef) -> dict[str, Any]:
        """NotFound if it was placed nowhere, MllaunchError if what was recorded cannot be read."""
        data = system.read_file(self._path(attempt))
        if data is None:
            raise NotFound("placement", f"attempt {attempt.number} was placed on no node")
        try:
            return dict(json.loads(data))
        except ValueError as error:
            raise self._unreadable(attempt) from error

    def nodes(self, attempt: AttemptRef) -> list[Address]:
        """In the order of ranks. NotFound if it was placed nowhere."""
        try:
            return [Address(**fields) for fields in self.read(attempt)["nodes"]]
        except (KeyError, TypeError) as error:
            raise self._unreadable(attempt) from error

    def _unreadable(self, attempt: AttemptRef) -> MllaunchError:
        path = self._path(attempt)
        return MllaunchError(
            "placement", f"{path} cannot be read: damaged, or of a newer mllaunch", hint="upgrade mllaunch"
        )

    def freed(self, run_id: str) -> list[str]:
        data = system.read_file(self._freed_path(run_id))
        return [] if data is None else list(json.loads(data))

    def note_freed(self, run_id: str, node: str) -> None:
        with self._turn:
            nodes = {*self.freed(run_id), node}
            system.write_atomic(self._freed_path(run_id), json.dumps(sorted(nodes)).encode())

    def forget(self, run_id: str) -> None:
        shutil.rmtree(self.folder(run_id), ignore_errors=True)

    def _path(self, attempt: AttemptRef) -> str:
        return os.path.join(self.folder(attempt.run_id), f"{attempt.number}.json")

    def _freed_path(self, run_id: str) -> str:
        return os.path.join(self.folder(run_id), "freed.json")
