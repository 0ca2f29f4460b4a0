"""What a connection to a node is, whoever holds it open."""

from __future__ import annotations

from typing import BinaryIO, Protocol

__all__ = ["ANSWER_S", "CONNECT_S", "Link", "Pipe", "Sink"]

CONNECT_S = 8.0
ANSWER_S = 30.0  # for one answer; most come in milliseconds


class Sink(Protocol):
    """What a command is given. What comes after its end goes nowhere, and is no error."""

    def write(self, data: bytes, /) -> int: ...

    def flush(self) -> None: ...


class Pipe(Protocol):
    """A command that runs on a node: what it is given, what it says, and what it complains about."""

    @property
    def stdin(self) -> Sink: ...

    @property
    def stdout(self) -> BinaryIO: ...

    @property
    def has_ended(self) -> bool: ...

    def set_patience(self, seconds: float | None) -> None:
        """How long to wait for what comes next; None: for as long as the connection lives."""

    def receive(self, limit: int) -> bytes:
        """What has come, as soon as there is something; b"" at the end."""

    def send(self, data: bytes) -> None: ...

    def complaint(self) -> tuple[int | None, str]:
        """Its exit status, and the end of its stderr, once it has ended; (None, "") if it does not end."""

    def close(self) -> None: ...


class Link(Protocol):
    """A connection to a node, or what opens one for each command; any number of them can run over it at once."""

    @property
    def is_open(self) -> bool:
        """Whether it can be used, as far as that is known without trying."""

    def run(self, command: str) -> Pipe:
        """Start a command. OSError if the connection has gone."""

    def close(self) -> None: ...
