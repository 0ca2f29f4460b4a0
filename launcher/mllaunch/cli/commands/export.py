"""mllaunch export"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mllaunch.domain.run import Run, RunStatus
    from mllaunch.wiring import App


@click.command()
@click.argument("run")
@click.argument("dest", metavar="DIR")
@click.option(
    "--partial", is_flag=True, help="Although some outputs are gone or changed; run_info.txt lists them."
)
def command(run: str, dest: str, partial: bool) -> int:
    """Write a finished run as a folder: config.yaml, notes.txt, run_info.txt, provenance.json, outputs and logs.

    DIR must not exist, or be empty. Outputs are copied and checked against their digests on record. Where nodes wrote
    different contents to one path, each has a folder of its own in outputs.
    """
    from mllaunch.cli import documents
    from mllaunch.cli.settling import settled
    from mllaunch.errors import UsageError
    from mllaunch.usecases.export import Export, export
    from mllaunch.usecases.outputs import listing
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd())
    found, status = settled(app, run)
    if status.seal is None:
        raise UsageError(
            "not_over",
            f"{found.name} is {status.state.value}; what it writes is known when it has ended",
            hint=f"follow it: mllaunch logs -f {found.name}   or take what is there: mllaunch pull {found.name} DEST",
        )
    folders = app.outputs(found, status.attempt)
    files = listing(app.log, app.blobs, folders, found, status.attempt)
    note, tags = app.log.notes(found.id)
    what = Export(
        run=found,
        note=note,
        tags=tags,
        provenance=documents.provenance(app, found, status),
        files=files.files,
        folders=folders,
        run_info=_run_info(app, found, status, [*files.faults, *files.silent.values()]),
    )
    left_out = export(what, app.blobs, dest, partial=partial)
    _say(found, dest, left_out)
    return 0


def _run_info(
    app: App, run: Run, status: RunStatus, faults: list[str]
) -> Callable[[list[str], Sequence[str]], str]:
    from mllaunch.cli.show_text import render
    from mllaunch.domain.render import escape
    from mllaunch.usecases.layout import words
    from mllaunch.usecases.show import document

    shown = render(document(app.log, app.blobs, run, status), app.clock.now(), None)

    def text(left_out: list[str], contested: Sequence[str]) -> str:
        missing = [*faults, *left_out]
        parts = [shown]
        if contested:
            parts.append(f"\n{escape(words(contested))}: outputs/NODE, work/NODE\n")
        if missing:
            parts += ["\nNot in this folder:\n", *(f"  {escape(line)}\n" for line in missing)]
        return "".join(parts)

    return text


def _say(run: Run, dest: str, left_out: list[Any]) -> None:
    from mllaunch.domain.render import escape

    for outcome in left_out:
        sys.stderr.write(f"not copied: {escape(outcome.place)}: {escape(outcome.problem)}\n")
    sys.stderr.write(f"{run.name} is in {escape(dest)}\n")
