"""What an attempt used, where a supervisor was replaced on the way: nothing is stated that was not seen."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from mllaunch_agent import node, protocol, system, watching
from mllaunch_agent.blobs import BlobLog
from mllaunch_agent.follower import Follower
from mllaunch_agent.probes import NotCaptured
from mllaunch_agent.streams import EventLog
from mllaunch_agent.tracing.places import Places
from mllaunch_agent.watching import Watcher
from tests.unit.agent_core.specs import spec


class NoTasks:
    """A runtime, as far as a watcher asks it."""

    def python(self) -> tuple[dict[str, Any], list[NotCaptured]]:
        return {}, []

    def watch_code(self, say: Any, blobs: Any, ending: Any) -> None:
        pass

    def places(self) -> Places:
        return Places("/work", (), lambda path: path, lambda path: None, (), "outputs")

    def living(self) -> list[int]:
        return []


SUMS = ("read_bytes", "written_bytes")


def stated(folder: Path, *past: dict[str, Any], boot_id: str | None = None) -> list[dict[str, Any]]:
    """The events of a life after ``past`` that has watched a task to its end."""
    (folder / "streams").mkdir()
    if past:
        events = EventLog(str(folder))
        events.write(protocol.ATTEMPT_STARTED, boot_id=system.boot_id() if boot_id is None else boot_id)
        for fields in past:
            events.write(**fields)
        events.stream.close()
    events = EventLog(str(folder))
    follower = Follower(str(folder), node.make_masker([]))
    runtime: Any = NoTasks()
    watcher = Watcher(spec(folder=str(folder)), str(folder), follower, (), runtime, BlobLog(str(folder)))
    watcher.add_task(os.getpid())
    watcher.finish(events, [], 20.0)
    lines = (folder / "streams" / "events").read_bytes().splitlines()
    return list(map(json.loads, lines[len(events.past) :]))


def usage(events: list[dict[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """The usage, and of whose absence the events speak."""
    (found,) = [event for event in events if event["kind"] == protocol.USAGE]
    missing = [event["what"] for event in events if event["kind"] == protocol.NOT_CAPTURED]
    return found, [what for what in missing if what.startswith("usage")]


def test_a_replaced_supervisor_states_the_whole_time_and_no_sum_that_began_before_it(tmp_path: Path) -> None:
    past = {"kind": protocol.TASK_STARTED, "rank": 0, "pid": 1}
    began_s = system.boot_s() - 1000
    found, missing = usage(stated(tmp_path, dict(past, boot_s=began_s), past))
    assert 1000 <= found["wall_s"] < 1100
    assert [found[name] for name in SUMS] == [None, None]
    assert found["cpu_s"] > 0
    assert found["max_rss_bytes"] > 0
    assert missing == ["usage before the supervisor was replaced"]


def test_after_a_reboot_nobody_knows_how_long_it_was(tmp_path: Path) -> None:
    past = {"kind": protocol.TASK_STARTED, "rank": 0, "pid": 1}
    found, missing = usage(stated(tmp_path, past, boot_id="another"))
    assert found["wall_s"] is None
    assert missing == ["usage before the supervisor was replaced"]


def test_a_supervisor_that_was_replaced_before_any_task_took_no_usage_along(tmp_path: Path) -> None:
    past = {"kind": protocol.WAITING, "boot_s": system.boot_s() - 1000}
    found, missing = usage(stated(tmp_path, past, {"kind": protocol.RESTARTED}))
    assert found["wall_s"] < 100
    assert None not in [found[name] for name in SUMS]
    assert missing == []


def test_the_energy_of_half_a_run_is_not_stated() -> None:
    gpu = {"mean_utilisation": 0.5, "max_memory_bytes": 3, "energy_j": 9.0}
    amounts = {"cpu_s": 1.0, "max_rss_bytes": 2, "read_bytes": 3, "written_bytes": 4, "gpu": gpu}
    found = watching._without_sums(amounts)
    assert found["gpu"] == {"mean_utilisation": 0.5, "max_memory_bytes": 3, "energy_j": None}
    assert (found["cpu_s"], found["max_rss_bytes"]) == (1.0, 2)
