"""mllaunch files"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mllaunch.domain.run import Run, RunStatus
    from mllaunch.usecases.outputs import Listing, OutputFile
    from mllaunch.wiring import App

_HEADERS = ("PATH", "SIZE", "MODIFIED", "SHA256")
_SHORT = 12


@click.command()
@click.argument("run")
@click.option(
    "--attempt", type=click.IntRange(1), metavar="N", help="An earlier attempt; default: the newest."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(run: str, attempt: int | None, as_json: bool) -> int:
    """List what a run wrote, changed or deleted in its checkout, with the digest of each file.

    While the run goes on, this is its output folder at this moment.
    """
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd())
    found, status, listing = look(app, run, attempt)
    if as_json:
        import json

        sys.stdout.write(json.dumps(_document(found, status, listing)) + "\n")
    else:
        _show(app, listing, several=found.spec.resources.nodes > 1)
        say_faults(found, status, listing)
    return 1 if listing.silent else 0


def look(app: App, run: str, attempt: int | None, node: str | None = None) -> tuple[Run, RunStatus, Listing]:
    """The run, how it stands, and what an attempt of it (None: the newest) wrote. node: on this one alone."""
    from mllaunch.errors import NotFound
    from mllaunch.usecases.outputs import listing

    found, status = app.log.get(run)
    if node is not None and node not in (nodes := app.nodes_of(found, status.attempt)):
        raise NotFound("node", f"{found.name} was not on {node}, but on {', '.join(nodes)}")
    status = app.collector.collect(found, status, node=node)
    number = attempt or status.attempt
    if number > status.attempt:
        many = f"{status.attempt} attempt{'s' if status.attempt > 1 else ''}"
        raise NotFound("attempt", f"{found.name} has {many}, not {number}")
    folders = app.outputs(found, number, node)
    return found, status, listing(app.log, app.blobs, folders, found, number, node)


def say_faults(run: Run, status: RunStatus, listing: Listing) -> None:
    """On stderr, why the listing may not be the last word."""
    from mllaunch.domain.render import escape

    if not listing.is_final and status.seal is None:
        state = "has not ended" if not status.state.is_final else "is still being recorded"
        sys.stderr.write(f"{escape(run.name)} {state}: this is its output folder now, and not final\n")
    elif not listing.is_final:
        sys.stderr.write(f"{escape(run.name)} was never sealed: this is what lies in its output folder now\n")
    for fault in listing.faults:
        sys.stderr.write(f"warning: {escape(fault)}\n")
    for why in listing.silent.values():
        sys.stderr.write(f"warning: {escape(why)}; what was written there is not known here\n")


def _show(app: App, listing: Listing, *, several: bool) -> None:
    """several: say of each file which of the run's nodes wrote it."""
    from mllaunch.cli import table, terminal, times

    if not listing.files:
        sys.stderr.write("no files\n")
        return
    on_terminal = terminal.is_terminal(sys.stdout)
    now = app.clock.now()
    lines = []
    for file in listing.files:
        size = times.bytes(file.size_bytes) if on_terminal else str(file.size_bytes or 0)
        is_file = file.kind == "file" and file.size_bytes is not None
        lines.append(
            (
                *([file.node] if several else []),
                file.path + (f" -> {file.target}" if file.kind == "symlink" else ""),
                size if is_file else "-",
                times.when(file.modified_at, now, terminal=on_terminal),
                _digest(file, on_terminal),
            )
        )
    headers = ("NODE", *_HEADERS) if several else _HEADERS
    sys.stdout.write(table.table(lines, headers, terminal.width(sys.stdout)))


def _digest(file: OutputFile, short: bool) -> str:
    if file.sha256:
        return file.sha256[:_SHORT] if short else file.sha256
    return file.problem or ("-" if file.kind == "file" else file.kind)


def _document(run: Run, status: RunStatus, listing: Listing) -> dict[str, Any]:
    return {
        "run": {"id": run.id, "name": run.name, "state": status.state.value},
        "attempt": listing.attempt,
        "final": listing.is_final,
        "faults": list(listing.faults),
        "unreachable": [{"node": node, "problem": why} for node, why in listing.silent.items()],
        "files": [file._asdict() for file in listing.files],
    }
