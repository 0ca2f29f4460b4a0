"""What nodes hold of attempts, asked for over calls; the bytes are read when they are wanted."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, cast

from mllaunch.errors import MllaunchError, NotFound, Unreachable
from mllaunch.ports import AttemptRef
from mllaunch.schedulers.ssh.calls import Calls

if TYPE_CHECKING:
    from mllaunch_agent.protocol import Seal

__all__ = ["RemoteFiles", "RemoteOutput", "RemoteOutputs", "SilentFiles", "SilentOutputs", "of", "silent"]


def of(attempt: AttemptRef) -> dict[str, Any]:
    """An attempt as calls name it."""
    return {"run_id": attempt.run_id, "number": attempt.number}


def silent(error: MllaunchError) -> Unreachable:
    """Whatever keeps a node from being asked: among several it is as good as silent."""
    return Unreachable(error.code, error.message, evidence=error.evidence, hint=error.hint)


class RemoteFiles:
    """What one node held of an attempt when it was asked; the bytes are read when they are wanted."""

    def __init__(self, calls: Calls, attempt: AttemptRef, found: dict[str, Any]) -> None:
        self._calls = calls
        self._attempt = attempt
        self._found = found

    def lengths(self) -> dict[str, int]:
        return dict(self._found["lengths"])

    def read(self, stream: str, offset: int, limit: int) -> bytes:
        return self._calls.fetch("read", **of(self._attempt), stream=stream, offset=offset, limit=limit)

    def seal(self) -> Seal | None:
        return cast("Seal | None", self._found["seal"])

    def is_alive(self) -> bool:
        return bool(self._found["alive"])


class RemoteOutputs:
    """What a node still holds of what an attempt's tasks wrote."""

    def __init__(self, calls: Calls, attempt: AttemptRef) -> None:
        self._calls = calls
        self._attempt = attempt

    def output_now(self) -> list[dict[str, Any]]:
        return self._calls.call("outputs", **of(self._attempt)) or []

    def open_output(self, path: str) -> RemoteOutput:
        opened = RemoteOutput(self._calls, self._attempt, path)
        try:
            opened.stat()
        except NotFound as error:
            raise FileNotFoundError(errno.ENOENT, error.message) from error
        except MllaunchError as error:
            if error.code != "os":
                raise
            raise OSError(errno.EIO, error.message) from error
        return opened


class SilentOutputs:
    """Likewise, of a node that could not be asked."""

    def __init__(self, error: Unreachable) -> None:
        self._error = error

    def output_now(self) -> list[dict[str, Any]]:
        raise self._error.again()

    def open_output(self, path: str) -> RemoteOutput:
        raise self._error.again()


class RemoteOutput:
    """A file that is being copied; the node opens it anew for each part."""

    def __init__(self, calls: Calls, attempt: AttemptRef, path: str) -> None:
        self._calls = calls
        self._given = {**of(attempt), "path": path}

    def stat(self) -> dict[str, int]:
        return dict(self._calls.call("stat_output", **self._given))

    def read(self, offset: int, limit: int) -> bytes:
        return self._calls.fetch("read_output", **self._given, offset=offset, limit=limit)

    def close(self) -> None:
        pass


class SilentFiles:
    """A node that could not be asked. Whatever is wanted of it, that is the answer."""

    def __init__(self, error: Unreachable) -> None:
        self._error = error

    def lengths(self) -> dict[str, int]:
        raise self._error

    def read(self, stream: str, offset: int, limit: int) -> bytes:
        raise self._error

    def seal(self) -> Seal | None:
        raise self._error

    def is_alive(self) -> bool:
        raise self._error
