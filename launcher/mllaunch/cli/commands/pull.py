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
    from mllaunch.usecases.outputs import OutputFile
    from mllaunch.usecases.pull import Outcome

_QUIET_S = 1.0  # what is done by then needs no progress


@click.command()
@click.argument("run")
@click.argument("places", nargs=-1, required=True, metavar="[GLOB] DEST")
@click.option(
    "--attempt", type=click.IntRange(1), metavar="N", help="An earlier attempt; default: the newest."
)
@click.option("--force", is_flag=True, help="Replace other files that are in DEST already.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(run: str, places: tuple[str, ...], attempt: int | None, force: bool, as_json: bool) -> int:
    """Copy what a run wrote into the folder DEST, and check every file against its digest on record.

    GLOB selects by path, as `files` shows it: 'outputs/*.pt', '**/*.json', or a folder. Quote it.
    """
    from mllaunch.cli.commands.files import look, say_faults
    from mllaunch.errors import UsageError
    from mllaunch.wiring import App

    if len(places) > 2:
        raise UsageError(
            "too_many",
            f"expected RUN [GLOB] DEST, but {len(places) + 1} words came",
            hint="put the GLOB in quotes, so that your shell does not expand it",
        )
    app = App(os.environ, os.getcwd())
    found, status, listing = look(app, run, attempt)
    files = _chosen(found, listing.files, places[0] if len(places) == 2 else None)
    folders = app.outputs(found, listing.attempt)
    outcomes = _pull(files, folders, places[-1], force)
    if as_json:
        import json

        sys.stdout.write(json.dumps(_document(found, listing.attempt, places[-1], outcomes)) + "\n")
    else:
        say_faults(found, status, listing)
        _say(outcomes, places[-1])
    return 1 if any(outcome.problem for outcome in outcomes) else 0


def _chosen(run: Run, files: tuple[OutputFile, ...], pattern: str | None) -> list[OutputFile]:
    from mllaunch.errors import NotFound
    from mllaunch.usecases.outputs import chosen

    found = chosen(files, pattern)
    if found:
        return found
    if pattern is None or not chosen(files, None):
        raise NotFound("no_files", f"{run.name} wrote no files")
    deep = f"mllaunch pull {run.name} '**/{pattern}' DEST" if chosen(files, f"**/{pattern}") else None
    raise NotFound(
        "no_match",
        f"nothing that {run.name} wrote is called {pattern}",
        hint=deep or f"mllaunch files {run.name}",
    )


def _pull(files: Sequence[OutputFile], folders: Any, dest: str, force: bool) -> list[Outcome]:
    from mllaunch.errors import MllaunchError, UsageError
    from mllaunch.usecases.pull import pull

    if os.path.lexists(dest) and not os.path.isdir(dest):
        raise UsageError("not_a_folder", f"{dest} exists and is not a folder", hint="name a folder for DEST")
    try:
        return pull(files, folders, dest, force=force, progress=_progress(files))
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


def _progress(files: Sequence[OutputFile]) -> Callable[[int, int], None]:
    from mllaunch.cli import terminal, times

    if not terminal.is_terminal(sys.stderr):
        return lambda count, size: None
    total = times.bytes(sum(file.size_bytes or 0 for file in files))
    next_at = time.monotonic() + _QUIET_S

    def show(count: int, size: int) -> None:
        nonlocal next_at
        now = time.monotonic()
        if now >= next_at:
            next_at = now + 0.1
            sys.stderr.write(f"\r\x1b[K{count}/{len(files)} files, {times.bytes(size)} of {total}")
            sys.stderr.flush()

    return show


def _say(outcomes: Sequence[Outcome], dest: str) -> None:
    from mllaunch.cli import terminal, times
    from mllaunch.domain.render import escape

    problems = [outcome for outcome in outcomes if outcome.problem]
    for outcome in problems:
        what = terminal.red("not copied:", sys.stderr)
        sys.stderr.write(f"{what} {escape(outcome.file.path)}: {escape(outcome.problem or '')}\n")
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


def _document(run: Run, attempt: int, dest: str, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "run": {"id": run.id, "name": run.name},
        "attempt": attempt,
        "dest": os.path.abspath(dest),
        "files": [
            {
                "path": outcome.file.path,
                "size_bytes": outcome.file.size_bytes,
                "sha256": outcome.file.sha256,
                "copied": outcome.problem is None and not outcome.was_there,
                "problem": outcome.problem,
            }
            for outcome in outcomes
        ],
    }
