"""mllaunch pull"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mllaunch.domain.run import Run
    from mllaunch.usecases.layout import Layout, Wanted
    from mllaunch.usecases.outputs import Listing, OutputFile
    from mllaunch.usecases.pull import Outcome

_QUIET_S = 1.0  # what is done by then needs no progress


@click.command()
@click.argument("run")
@click.argument("places", nargs=-1, required=True, metavar="[GLOB] DEST")
@click.option(
    "--attempt", type=click.IntRange(1), metavar="N", help="An earlier attempt; default: the newest."
)
@click.option("--node", metavar="NODE", help="What was written on this node alone; to DEST/PATH in any case.")
@click.option("--force", is_flag=True, help="Replace other files that are in DEST already.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(
    run: str, places: tuple[str, ...], attempt: int | None, node: str | None, force: bool, as_json: bool
) -> int:
    """Copy what a run wrote into the folder DEST, and check every file against its digest on record.

    GLOB selects by path, as `files` shows it: 'outputs/*.pt', '**/*.json', or a folder. Quote it.

    Files go to DEST/PATH. Where several nodes wrote different contents to one of the paths that are copied, all go to
    DEST/NODE/PATH.
    """
    from mllaunch.cli.commands.files import look, say_faults
    from mllaunch.errors import UsageError
    from mllaunch.usecases.layout import layout
    from mllaunch.wiring import App

    if len(places) > 2:
        raise UsageError(
            "too_many",
            f"expected RUN [GLOB] DEST, but {len(places) + 1} words came",
            hint="put the GLOB in quotes, so that your shell does not expand it",
        )
    app = App(os.environ, os.getcwd())
    found, status, listing = look(app, run, attempt, node)
    planned = layout(_chosen(found, listing, places[0] if len(places) == 2 else None))
    folders = app.outputs(found, listing.attempt, node)
    outcomes = _pull(planned.wanted, folders, places[-1], force)
    if as_json:
        import json

        document = _document(found, listing, places[-1], planned, outcomes)
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        say_faults(found, status, listing)
        _say(planned, outcomes, places[-1])
        _say_how_to_go_on({**listing.silent, **_silent(outcomes)})
    return 1 if listing.silent or any(outcome.problem for outcome in outcomes) else 0


def _chosen(run: Run, listing: Listing, pattern: str | None) -> list[OutputFile]:
    from mllaunch.errors import NotFound, Unreachable
    from mllaunch.usecases.outputs import chosen

    files = listing.files
    found = chosen(files, pattern)
    if found:
        return found
    if listing.silent:
        raise Unreachable(
            "unreachable",
            f"what {run.name} wrote on {', '.join(listing.silent)} is not known here; nothing else can be copied",
            evidence=tuple(listing.silent.values()),
        )
    if pattern is None or not chosen(files, None):
        raise NotFound("no_files", f"{run.name} wrote no files")
    deep = f"mllaunch pull {run.name} '**/{pattern}' DEST" if chosen(files, f"**/{pattern}") else None
    raise NotFound(
        "no_match",
        f"nothing that {run.name} wrote is called {pattern}",
        hint=deep or f"mllaunch files {run.name}",
    )


def _pull(wanted: Sequence[Wanted], folders: Any, dest: str, force: bool) -> list[Outcome]:
    from mllaunch.errors import MllaunchError, UsageError
    from mllaunch.usecases.pull import pull

    if os.path.lexists(dest) and not os.path.isdir(dest):
        raise UsageError("not_a_folder", f"{dest} exists and is not a folder", hint="name a folder for DEST")
    try:
        return pull(wanted, folders, dest, force=force, progress=_progress(wanted))
    except OSError as error:
        raise MllaunchError(
            "cannot_write",
            f"{dest} cannot be written; what was copied before is whole",
            evidence=(str(error),),
            hint="free some space or name another DEST, and repeat: files that are there are not copied again",
        ) from error
    finally:
        if sys.stderr.isatty():
            sys.stderr.write("\r\x1b[K")


def _progress(wanted: Sequence[Wanted]) -> Callable[[int, int], None]:
    from mllaunch.cli import terminal, times

    if not terminal.is_terminal(sys.stderr):
        return lambda count, size: None
    total = times.bytes(sum(want.holders[0].size_bytes or 0 for want in wanted))
    next_at = time.monotonic() + _QUIET_S

    def show(count: int, size: int) -> None:
        nonlocal next_at
        now = time.monotonic()
        if now >= next_at:
            next_at = now + 0.1
            sys.stderr.write(f"\r\x1b[K{count}/{len(wanted)} files, {times.bytes(size)} of {total}")
            sys.stderr.flush()

    return show


def _silent(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """The nodes from which files could not be copied because they do not answer, and what is said of that."""
    silent: dict[str, str] = {}
    for outcome in outcomes:
        if outcome.is_silent:
            silent.setdefault(outcome.file.node, outcome.problem or "")
    return silent


def _say(planned: Layout, outcomes: Sequence[Outcome], dest: str) -> None:
    from mllaunch.cli import terminal, times
    from mllaunch.domain.render import escape
    from mllaunch.usecases.layout import words

    if planned.contested:
        sys.stderr.write(f"{escape(words(planned.contested))}: {escape(os.path.join(dest, 'NODE'))}\n")
    what = terminal.red("not copied:", sys.stderr)
    problems = [outcome for outcome in outcomes if outcome.problem]
    for outcome in problems:
        if not outcome.is_silent:
            sys.stderr.write(f"{what} {escape(outcome.place)}: {escape(outcome.problem or '')}\n")
    for node, why in _silent(outcomes).items():
        count = sum(outcome.is_silent and outcome.file.node == node for outcome in problems)
        sys.stderr.write(f"{what} {count} file{'s' if count > 1 else ''} of {node}: {escape(why)}\n")
    done = [outcome for outcome in outcomes if not outcome.problem]
    copied = [outcome.file for outcome in done if not outcome.was_there]
    size = times.bytes(sum(file.size_bytes or 0 for file in copied))
    there = len(done) - len(copied)
    rest = f", {there} there already" if there else ""
    rest += f", {len(problems)} not copied" if problems else ""
    unchecked = sum(file.kind == "file" and file.sha256 is None for file in copied)
    if unchecked:
        rest += f"; {unchecked} of them have no digest on record to check against"
    many = "file" if len(copied) == 1 else "files"
    sys.stderr.write(f"{len(copied)} {many} ({size}) copied to {escape(dest)}{rest}\n")


def _say_how_to_go_on(silent: dict[str, str]) -> None:
    if silent:
        nodes = ", ".join(silent)
        sys.stderr.write(f"repeat this when {nodes} can be reached: it goes on\n")


def _document(
    run: Run, listing: Listing, dest: str, planned: Layout, outcomes: Sequence[Outcome]
) -> dict[str, Any]:
    silent = {**listing.silent, **_silent(outcomes)}
    return {
        "run": {"id": run.id, "name": run.name},
        "attempt": listing.attempt,
        "dest": os.path.abspath(dest),
        "by_node": bool(planned.contested),
        "unreachable": [{"node": node, "problem": why} for node, why in silent.items()],
        "files": [
            {
                "path": outcome.file.path,
                "node": outcome.file.node,
                "place": outcome.place,
                "size_bytes": outcome.file.size_bytes,
                "sha256": outcome.file.sha256,
                "copied": outcome.problem is None and not outcome.was_there,
                "problem": outcome.problem,
            }
            for outcome in outcomes
        ],
    }
