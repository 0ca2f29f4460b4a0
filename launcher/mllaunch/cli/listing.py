"""The listing of runs, without the option parser: `ps` alone is called all day, by people and by prompts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mllaunch.domain.run import RunRow
    from mllaunch.ports import RunQuery
    from mllaunch.wiring import App

_HEADERS = ("RUN", "STATE", "SUBMITTED", "TOOK", "COMMAND", "NOTE")
_MIXED = "mixed code"  # its processes executed different versions of one file
NEWEST = 20
PLAIN_FLAGS = frozenset({"-a", "--all", "--json"})


def plain(flags: list[str]) -> int:
    """``ps`` with nothing but plain flags."""
    import os

    from mllaunch.ports import RunQuery
    from mllaunch.wiring import App

    everything = "-a" in flags or "--all" in flags
    show(
        App(os.environ, os.getcwd()), RunQuery(limit=-1 if everything else NEWEST), as_json="--json" in flags
    )
    return 0


def show(app: App, query: RunQuery, *, as_json: bool) -> None:
    """Collect what is behind, then list."""
    from mllaunch.ports import RunQuery

    if app.log.rows(
        RunQuery(limit=1, unsettled=True)
    ):  # most of the time there are none, and nothing to import
        app.collector.collect_unsettled(events_only=True, only_here=True)
        app.follow_detached()  # which looks after those on other machines
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
        silent = [
            f"{silence.node} unreachable {times.since(silence.since, now, terminal=on_terminal)}"
            for silence in status.unreachable
        ]
        notes = (*silent, _MIXED if status.mixed else None, status.waiting or _why(row) or row.note)
        note = "; ".join(filter(None, notes))
        at = times.when(row.submitted_at, now, terminal=on_terminal)
        lines.append((row.name, status.state.value, at, took, row.command, note))

    def paint(column: int, text: str) -> str:
        return terminal.state(text, sys.stdout) if _HEADERS[column] == "STATE" else text

    sys.stdout.write(table.table(lines, _HEADERS, terminal.width(sys.stdout), paint))


def _why(row: RunRow) -> str | None:
    is_told = row.status.state.value == "cancelled" or row.status.is_lost
    return None if is_told else row.why


def _document(row: RunRow) -> dict[str, Any]:
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
        "mixed_code": status.mixed,
        "unreachable": status.shown_unreachable,
        "seal": status.shown_seal,
        "submitted_at": row.submitted_at,
        "started_at": status.started_at,
        "ended_at": status.ended_at,
        "tags": list(row.tags),
        "note": row.note,
    }
