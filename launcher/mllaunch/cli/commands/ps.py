"""mllaunch ps"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mllaunch.ports import RunQuery
    from mllaunch.wiring import App

_HEADERS = ("RUN", "STATE", "SUBMITTED", "TOOK", "COMMAND", "NOTE")
_WATCH_S = 1.0


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Every run, not only the newest 20.")
@click.option("-w", "--watch", is_flag=True, help="Show it again every second.")
@click.option("--unfinished", is_flag=True, help="Only runs that have not ended.")
@click.option("--project", metavar="NAME", help="Only runs of this project.")
@click.option("--tag", metavar="TAG", help="Only runs with this tag.")
@click.option("--param", "params", multiple=True, metavar="NAME=VALUE", help="Only runs with this argument.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(everything: bool, watch: bool, as_json: bool, **conditions: Any) -> int:
    """List runs, newest first, with how each stands and why it waits."""
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd())
    query = _query(everything, conditions)
    if not watch:
        _show(app, query, as_json)
        return 0
    import time

    while True:
        if sys.stdout.isatty():
            sys.stdout.write("\x1b[H\x1b[J")
        _show(app, query, as_json)
        time.sleep(_WATCH_S)


def _query(everything: bool, conditions: dict[str, Any]) -> RunQuery:
    from mllaunch.errors import UsageError
    from mllaunch.ports import RunQuery

    params = []
    for text in conditions["params"]:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise UsageError("param", f"--param {text}: expected NAME=VALUE, such as lr=3e-4")
        params.append((name, value))
    return RunQuery(
        limit=-1 if everything else 20,
        unsettled=conditions["unfinished"],
        project=conditions["project"],
        tag=conditions["tag"],
        params=tuple(params),
    )


def _show(app: App, query: RunQuery, as_json: bool) -> None:
    from mllaunch.ports import RunQuery

    if app.log.rows(RunQuery(limit=1, unsettled=True)):  # most of the time there are none, and nothing to import
        app.collector.collect_unsettled(events_only=True)
    rows = app.log.rows(query)
    if query.unsettled:
        rows = [row for row in rows if not row.status.state.is_final]  # a run that ended may still be sealing
    if as_json:
        import json

        sys.stdout.write(json.dumps([_document(row) for row in rows]) + "\n")
        return
    if not rows:
        sys.stderr.write("no runs\n")
        return
    from mllaunch.cli import table, terminal, times

    now = app.clock.now()
    on_terminal = terminal.is_terminal(sys.stdout)
    lines = []
    for row in rows:
        status = row.status
        end = status.ended_at or (now if status.started_at else None)
        took = times.duration(times.seconds_between(status.started_at, end))
        note = status.waiting or _why(row) or row.note or ""
        at = times.when(row.submitted_at, now, terminal=on_terminal)
        lines.append((row.name, status.state.value, at, took, row.command, note))

    def paint(column: int, text: str) -> str:
        return terminal.state(text, sys.stdout) if _HEADERS[column] == "STATE" else text

    sys.stdout.write(table.table(lines, _HEADERS, terminal.width(sys.stdout), paint))


def _why(row: Any) -> str | None:
    reason = row.status.reason
    if reason is None or row.status.state.value == "cancelled":
        return None
    return str(reason.message)


def _document(row: Any) -> dict[str, Any]:
    status = row.status
    return {
        "id": row.id,
        "name": row.name,
        "project": row.project,
        "command": row.command,
        "state": status.state.value,
        "reason": status.reason._asdict() if status.reason else None,
        "exit_code": status.exit_code,
        "attempt": status.attempt,
        "waiting": status.waiting,
        "seal": status.seal,
        "submitted_at": row.submitted_at,
        "started_at": status.started_at,
        "ended_at": status.ended_at,
        "tags": list(row.tags),
        "note": row.note,
    }
