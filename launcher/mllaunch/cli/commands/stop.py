"""mllaunch stop"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mllaunch_agent.protocol import StopRequest

_CONFIRM_S = 3.0  # a program that ends on SIGTERM has done so by then; another has its grace period


@click.command()
@click.argument("run")
@click.option("--now", is_flag=True, help="SIGKILL at once, without the grace period.")
def command(run: str, now: bool) -> int:
    """End a run: SIGTERM, its grace period (30 seconds, or that of submit --grace), then SIGKILL for all of it."""
    from mllaunch.domain.render import escape
    from mllaunch.errors import MllaunchError
    from mllaunch.ports import AttemptRef
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd())
    found, status = app.log.get(run)
    status = app.collector.collect(found, status)
    if status.state.is_final and not status.is_lost:
        raise MllaunchError("ended", f"{found.name} has ended already: {status.state.value}")
    request: StopRequest = {"by": app.user, "at": app.clock.now(), "now": now}
    scheduler, attempt = app.scheduler_of(found), AttemptRef(found.id, status.attempt)
    scheduler.stop(attempt, request)
    app.follow_detached()
    deadline = time.monotonic() + _CONFIRM_S
    while not status.state.is_final and time.monotonic() < deadline:
        time.sleep(0.05)
        status = app.collector.collect(found, status)
        if (
            status.attempt != attempt.number
        ):  # it failed in the moment of asking, and another attempt had begun
            attempt = AttemptRef(found.id, status.attempt)
            scheduler.stop(attempt, request)
    missing = scheduler.not_told(attempt)
    if status.state.is_final and not status.is_lost:
        sys.stderr.write(f"{found.name} {status.state.value}\n")
    elif missing:
        nodes = escape(", ".join(missing))
        sys.stderr.write(
            f"{found.name} is to stop; {nodes} cannot be reached, and will be told as soon as possible\n"
        )
    else:
        who = escape(found.name)
        sys.stderr.write(
            f"{who} was asked to stop and has {found.spec.grace_s:g} s to end; at once: mllaunch stop {who} --now\n"
        )
    return 0
