"""mllaunch ssh"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NoReturn

import click

if TYPE_CHECKING:
    from mllaunch.domain.run import Run, RunStatus


@click.command()
@click.argument("run")
@click.option(
    "--rank", type=click.IntRange(0), default=0, metavar="R", help="Where this rank runs; default: 0."
)
@click.argument("words", nargs=-1, metavar="[-- COMMAND ARGS...]")
def command(run: str, rank: int, words: tuple[str, ...]) -> NoReturn:
    """Open a shell where a run's task runs: on its node, in its folder (and container), with its environment.

    With a command: run it there, without a terminal, and exit with its code.
    """
    from mllaunch.cli import ranks
    from mllaunch.ports import AttemptRef
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd())
    found, status = app.log.get(run)
    status = app.collector.collect(found, status, events_only=True)
    ranks.check(found, rank)
    attempt = AttemptRef(found.id, status.attempt)
    node = app.node_of_rank(found, status.attempt, rank)
    terminal = not words and sys.stdin.isatty()
    way = app.host_of(found).way_to(attempt, node, rank, words, terminal=terminal)
    _check(found, status, node, rank, way.state)
    _become(way.argv)


def _check(run: Run, status: RunStatus, node: str, rank: int, state: str) -> None:
    """Raise where there is nowhere to go; say so where the task is not there any more."""
    from mllaunch.domain.render import escape
    from mllaunch.errors import MllaunchError, NotFound

    if state == "gone":
        raise NotFound("gone", f"nothing is left of {run.name} on {node}", hint=f"mllaunch files {run.name}")
    if state == "waiting":
        why = status.waiting or f"it is {status.state.value}"
        raise MllaunchError(
            "not_started", f"{run.name} has not started: {why}", hint=f"mllaunch show {run.name}"
        )
    if state == "ended":
        who = escape(f"rank {rank} of {run.name}")
        sys.stderr.write(f"{who} has ended: this is its work folder, without its environment\n")


def _become(argv: list[str]) -> NoReturn:
    import shutil
    import signal

    from mllaunch.errors import NotFound

    program = shutil.which(argv[0])
    if program is None:
        hint = "install OpenSSH's client; on Debian: sudo apt install openssh-client"
        raise NotFound("no_program", f"there is no {argv[0]} on your PATH", hint=hint)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, which is not meant for what follows
    os.execv(program, argv)
