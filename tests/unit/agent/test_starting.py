"""An agent that is forked keeps nothing of whoever forked it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mllaunch_agent import starting


def said_by_fork() -> dict[str, Any]:
    def act() -> None:
        found = {
            "environ": dict(os.environ),
            "descriptors": len(list(Path("/proc/self/fd").iterdir())),
            "stdin": str(Path("/proc/self/fd/0").readlink()),
            "session": os.getsid(0) == os.getpid(),
        }
        os.write(1, json.dumps(found).encode())

    reader, writer = os.pipe()
    pid = starting.fork(act, writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        found: dict[str, Any] = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return found


def test_it_has_a_session_and_descriptors_of_its_own() -> None:
    reader, writer = os.pipe()
    found = said_by_fork()
    os.close(reader)
    os.close(writer)
    assert found["session"]
    assert found["stdin"] == os.devnull
    assert found["descriptors"] == 4  # with that of the listing


def test_of_the_environment_it_has_what_every_agent_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.1 1 10.0.0.2 22")
    monkeypatch.setenv("TZ", "UTC")
    found = said_by_fork()["environ"]
    assert found == starting.environment()
    assert found["TZ"] == "UTC"
    assert found["MLLAUNCH_AGENT"] == "1"
    assert os.environ["SSH_CONNECTION"]
