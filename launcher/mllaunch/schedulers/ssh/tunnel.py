"""A node's container engine as a unix socket of this machine: who speaks to engines needs to know nothing of SSH."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from mllaunch.schedulers.ssh import program
from mllaunch.schedulers.ssh.links import Link, Pipe

__all__ = ["tunnel"]

_PART_BYTES = 1 << 16
_FOLDER_BYTES = 64
# Runs on the node; ends with whichever side ends first, as HTTP without keep-alive does.
_RELAY = """\
import os, socket, sys, threading
engine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
engine.connect({path!r})
def there():
    while True:
        data = sys.stdin.buffer.read1({size})
        if not data:
            os._exit(0)
        engine.sendall(data)
threading.Thread(target=there, daemon=True).start()
while True:
    data = engine.recv({size})
    if not data:
        os._exit(0)
    while data:
        data = data[os.write(1, data):]
"""


@contextmanager
def tunnel(link: Link, python: str | None, path: str) -> Iterator[str]:
    """While it lasts, the engine that listens at ``path`` on the node listens here, too; at the path that is given."""
    # A folder which nobody else may enter; the path of a socket has room for 107 bytes.
    short = len(tempfile.gettempdir()) <= _FOLDER_BYTES
    folder = tempfile.mkdtemp(prefix="mllaunch-", dir=None if short else "/tmp")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            here = os.path.join(folder, "engine.sock")
            listening.bind(here)
            listening.listen()
            carrier = _Carrier(link, python, _RELAY.format(path=path, size=_PART_BYTES))
            threading.Thread(target=carrier.accept, args=(listening,), daemon=True).start()
            try:
                yield here
            finally:
                _end(listening)
                carrier.end()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Carrier:
    def __init__(self, link: Link, python: str | None, relay: str) -> None:
        self._link = link
        self._python = python
        self._relay = relay
        self._open: set[socket.socket] = set()

    def accept(self, listening: socket.socket) -> None:
        """Carry every connection that comes, until nobody listens any more."""
        while True:
            try:
                asking, _ = listening.accept()
            except OSError:
                return
            self._open.add(asking)
            threading.Thread(target=self._carry, args=(asking,), daemon=True).start()

    def end(self) -> None:
        """End those that are kept open for more to be asked."""
        for asking in list(self._open):
            _end(asking)

    def _carry(self, asking: socket.socket) -> None:
        """One connection, until one of its sides ends it."""
        with asking:
            try:
                pipe = program.start(self._link, self._python, self._relay)
            except OSError:
                self._open.discard(asking)
                return  # closed without an answer: who asked says that the engine is gone
            pipe.set_patience(None)
            there = (asking.recv, pipe.send, pipe)
            threading.Thread(target=_pump, args=there, daemon=True).start()
            _pump(pipe.receive, asking.sendall, pipe)
            _end(asking)
            self._open.discard(asking)


def _pump(take: Callable[[int], bytes], give: Callable[[bytes], None], pipe: Pipe) -> None:
    """One direction, until either side ends; with it the pipe, and so the other direction."""
    try:
        while data := take(_PART_BYTES):
            give(data)
    except OSError:
        pass
    finally:
        pipe.close()


def _end(one: socket.socket) -> None:
    """Close it also for a thread that waits for something to come from there: close alone would wait for that."""
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass
