"""mllaunch logs"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mllaunch.domain.run import Run, RunStatus
    from mllaunch.wiring import App

_CHUNK = 1 << 20
_POLL_S = 0.05


@click.command()
@click.argument("run")
@click.option("-f", "--follow", is_flag=True, help="Go on until the run ends.")
@click.option("--rank", default="all", metavar="R|all", help="Only this rank.")
@click.option("--stderr", "only_stderr", is_flag=True, help="Only stderr.")
@click.option("--since", metavar="TIME", help="Only what was printed in the last, such as 10m.")
@click.option("--grep", metavar="RE", help="Only lines that match.")
@click.option(
    "--attempt", type=click.IntRange(1), metavar="N", help="An earlier attempt; default: the newest."
)
@click.option("--raw", is_flag=True, help="The stored bytes of stdout (or stderr) exactly.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON document for each line.")
def command(run: str, **asked: Any) -> int:
    """Show what a run printed: stdout and stderr in the order in which they came."""
    from mllaunch.errors import UsageError
    from mllaunch.wiring import App

    if asked["raw"] and asked["as_json"]:
        raise UsageError("raw", "--raw is the bytes themselves, and --json documents of lines: choose one")
    app = App(os.environ, os.getcwd())
    found, status = app.log.get(run)
    try:
        _show(app, found, status, asked)
    except KeyboardInterrupt:
        sys.stderr.write(f"\nDetached; {found.name} goes on.   end: mllaunch stop {found.name}\n")
        return 130
    return 0


def _show(app: App, run: Run, status: RunStatus, asked: dict[str, Any]) -> None:
    from mllaunch.cli.following import Silences
    from mllaunch.usecases.rounds import Watch, look_once

    follow = asked["follow"] and not asked["raw"]
    silences = Silences(sys.stderr.write)
    status = look_once(app.collector, run, status, is_first=follow)
    attempt = asked["attempt"] or status.attempt
    _check(run, status.attempt, attempt, asked["rank"])
    if asked["raw"]:
        silences.say(status)
        _write_raw(app, run, attempt, asked["rank"], asked["only_stderr"])
        return
    watch = Watch(app.collector, run)
    view = _view(app, run, attempt, asked)
    while True:
        ended = status.state.is_final
        view.show(last=ended or not follow, silent=[silence.node for silence in status.unreachable])
        silences.say(status)
        if ended or not follow:
            return
        time.sleep(_POLL_S)
        status = watch.look(status)


def _check(run: Run, newest: int, attempt: int, rank: str) -> None:
    from mllaunch.cli import ranks
    from mllaunch.errors import NotFound, UsageError

    if attempt > newest:
        raise NotFound(
            "attempt", f"{run.name} has {newest} attempt{'s' if newest > 1 else ''}, not {attempt}"
        )
    if rank == "all":
        return
    if not rank.isdigit():
        raise UsageError("rank", f"--rank {rank}: expected a number or all")
    ranks.check(run, int(rank))


def _write_raw(app: App, run: Run, attempt: int, rank: str, only_stderr: bool) -> None:
    from mllaunch.ports import StreamRef

    number = 0 if rank == "all" else int(rank)
    name = f"{'stderr' if only_stderr else 'stdout'}.{number}"
    ref = StreamRef(run.id, attempt, app.node_of_rank(run, attempt, number), name)
    offset = 0
    while data := app.blobs.read(ref, offset, _CHUNK):
        sys.stdout.buffer.write(data)
        offset += len(data)
    sys.stdout.buffer.flush()


def _view(app: App, run: Run, attempt: int, asked: dict[str, Any]) -> Any:
    import re

    from mllaunch.cli.logview import LogView
    from mllaunch.config.units import parse_duration
    from mllaunch.errors import UsageError

    ranks = range(run.spec.resources.world_size) if asked["rank"] == "all" else [int(asked["rank"])]
    kinds = ["stderr"] if asked["only_stderr"] else ["stdout", "stderr"]
    try:
        pattern = re.compile(asked["grep"]) if asked["grep"] else None
    except re.error as e:
        raise UsageError("grep", f"--grep {asked['grep']}: {e}") from e
    try:
        since_s = parse_duration(asked["since"]) if asked["since"] else None
    except ValueError as e:
        raise UsageError("since", f"--since {asked['since']}: {e}") from e
    return LogView(app, run, attempt, list(ranks), kinds, pattern, since_s, as_json=asked["as_json"])
