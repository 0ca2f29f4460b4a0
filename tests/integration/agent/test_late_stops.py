"""A stop that comes too late for an attempt that failed, and before the one that follows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mllaunch.schedulers.agent_process import AgentProcess
from mllaunch_agent import protocol
from mllaunch_agent.attempts import Attempts
from mllaunch_agent.node import AttemptFolder
from tests.e2e.harness import until
from tests.unit.agent_core.specs import spec

RUN = "01a1fda8-4fdf-7b40-87d1-8265aab3f1cc"


def sealed(attempts: Attempts, number: int) -> tuple[list[str], protocol.Seal]:
    """The kinds of an attempt's events, and its seal."""
    folder = AttemptFolder(attempts.folder(RUN, number))
    seal = until(folder.seal, f"attempt {number} to be sealed")
    events = Path(folder.path("streams/events")).read_bytes().splitlines()
    return [json.loads(line)["kind"] for line in events], seal


@pytest.mark.parametrize("is_stopped", [True, False])
def test_a_stop_of_an_attempt_that_had_failed_ends_the_one_after_it_before_its_tasks_begin(
    tmp_path: Path, is_stopped: bool
) -> None:
    attempts = Attempts(str(tmp_path))
    first = spec(
        run_id=RUN,
        folder=attempts.folder(RUN, 1),
        tree=None,
        in_place=str(tmp_path),
        argv=["/bin/false"],
        cache=str(tmp_path / "cache"),
    )
    Path(first["folder"]).mkdir(parents=True)
    AgentProcess().give(first)
    assert sealed(attempts, 1)[1]["state"] == "failed"
    if is_stopped:
        request: protocol.StopRequest = {"by": "ann", "at": "2026-11-29T09:00:00.000Z", "now": False}
        AttemptFolder(first["folder"]).request_stop(request)
    second = attempts.following(RUN, 1)
    assert second is not None
    AgentProcess().give(second)
    kinds, seal = sealed(attempts, 2)
    assert (protocol.TASK_STARTED in kinds) is not is_stopped
    assert seal["state"] == ("cancelled" if is_stopped else "failed")
