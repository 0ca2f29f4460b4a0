"""Answers a launcher at the other end of a pipe, mostly one that came by SSH: docs/protocol.md, "Calls".

A call is one JSON line ``{"call": NAME, "with": {...}, "bytes": N}`` and N bytes; an answer is one JSON line, either
``{"value": ..., "bytes": N}`` and N bytes, or ``{"error": CODE, "message": ...}``. One call at a time; at the end of
its input the process ends. What it starts lives on.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any, BinaryIO, Dict

from mllaunch_agent import system
from mllaunch_agent.calls import AT_MOST_BYTES, Calls, Data
from mllaunch_agent.codekeeping import Damaged

__all__ = ["serve"]

_IDLE_S = 600
_THREADED = ("offer", "check")


def serve(home: str, calls: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the input ends. home: the folder that holds everything mllaunch keeps for this user here."""
    os.makedirs(home, mode=0o700, exist_ok=True)
    served = Calls(home)
    while True:
        signal.alarm(_IDLE_S)  # ends us: a launcher that lost its network never says that it has gone
        line = calls.readline()
        if not line.endswith(b"\n"):
            return
        call = json.loads(line)
        size = int(call.get("bytes", 0))
        content = calls.read(size) if 0 < size <= AT_MOST_BYTES else b""
        if len(content) != size:
            return  # the launcher has gone in mid-sentence
        signal.alarm(0)  # what is asked for may take longer: to read a large checkpoint, for one
        answer = (_answer_apart if call.get("call") in _THREADED else _answer)(served, call, content)
        signal.alarm(_IDLE_S)
        answers.write(answer)
        answers.flush()
        _reap()


def _answer(served: Calls, call: Dict[str, Any], content: bytes) -> bytes:
    try:
        act = getattr(served, "do_" + call["call"], None)
        if act is None:
            raise ValueError("no such call: %r" % call["call"])
        given = dict(call.get("with", {}))
        if content or call.get("takes_bytes"):
            given["content"] = content
        found = act(**given)
    except Damaged as error:
        return _line({"error": "damaged", "message": str(error)})
    except FileNotFoundError as error:
        return _line({"error": "not_found", "message": _words(error)})
    except OSError as error:
        code = "disk_full" if system.is_full(error) else "os"
        return _line({"error": code, "message": _words(error)})
    except Exception as error:  # noqa: BLE001  the launcher is to hear of it, whatever it is
        return _line({"error": "internal", "message": "%s: %s" % (type(error).__name__, error)})
    if isinstance(found, Data):
        return _line({"value": found.value, "bytes": len(found.content)}) + found.content
    return _line({"value": found})


def _answer_apart(served: Calls, call: Dict[str, Any], content: bytes) -> bytes:
    """Likewise, by a fork of this process: threads that may hang in a driver, and what they have in memory, must not be
    in that which is forked for an attempt."""
    # What an attempt's agent will need, too, is better imported once.
    from mllaunch_agent import leases  # noqa: F401
    from mllaunch_agent.probes import gpu  # noqa: F401

    reader, writer = os.pipe()
    if os.fork() == 0:
        try:
            system.write_all(writer, _answer(served, call, content))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.readline()
    return answer or _line({"error": "internal", "message": "who was to answer was killed"})


def _reap() -> None:
    """Let go of the children that have ended. Between two calls nothing waits for one."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _line(document: Dict[str, Any]) -> bytes:
    return json.dumps(document).encode("ascii") + b"\n"


def _words(error: OSError) -> str:
    words = error.strerror or str(error)
    return "%s: %s" % (error.filename, words) if error.filename else words
