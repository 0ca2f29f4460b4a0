"""A node's container engine as a unix socket of this machine: who speaks to engines needs to know nothing of SSH."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mllaunch.schedulers.ssh import program
from mllaunch.schedulers.ssh.transport import Link, Pipe

__all__ = ["tunnel"]

_PART_BYTES = 1 << 16
# Runs on the node; ends with whichever side ends first, as HTTP without keep-alive does.
_RELAY = """\
import os, socket, threading
engine = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
engine.connect({path!r})
def there():
    while True:
        data = os.read(0, {size})
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
    folder = tempfile.mkdtemp(prefix="mllaunch-")  # which nobody else may enter
    here = os.path.join(folder, "engine.sock")
    relay = _RELAY.format(path=path, size=_PART_BYTES)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(here)
        listening.listen()
        threading.Thread(target=_accept, args=(listening, link, python, relay), daemon=True).start()
        try:
            yield here
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            _end(listening)


def _accept(listening: socket.socket, link: Link, python: str | None, relay: str) -> None:
    while True:
        try:
            asking, _ = listening.accept()
        except OSError:
            return
        threading.Thread(target=_carry, args=(asking, link, python, relay), daemon=True).start()


def _carry(asking: socket.socket, link: Link, python: str | None, relay: str) -> None:
    """One connection, until one of its sides ends it."""
    with asking:
        try:
            pipe = program.start(link, python, relay)
        except OSError:
            return  # closed without an answer: who asked says that the engine is gone
        pipe.wait_as_long_as_it_takes()
        threading.Thread(target=_there, args=(asking, pipe), daemon=True).start()
        try:
            while data := pipe.receive(_PART_BYTES):
                asking.sendall(data)
        except OSError:
            pass
        finally:
            pipe.close()
            _end(asking)


def _there(asking: socket.socket, pipe: Pipe) -> None:
    try:
        while data := asking.recv(_PART_BYTES):
            pipe.send(data)
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
