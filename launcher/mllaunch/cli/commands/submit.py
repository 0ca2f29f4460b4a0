"""mllaunch submit"""

from __future__ import annotations

import os
from typing import Any

import click

from mllaunch.cli import submission


@click.command(cls=submission.SubmitCommand, context_settings={"allow_interspersed_args": False})
@click.option("--wait", is_flag=True, help="Return when it has ended, with its exit code.")
@click.option("-f", "--follow", is_flag=True, help="Show what it prints, and return as --wait does.")
@submission.options
@click.pass_context
def command(ctx: click.Context, /, wait: bool, follow: bool, **asked: Any) -> int:
    """Start a run of SCRIPT.py, or of any command after `--`, from the committed code, and return.

    Everything after SCRIPT.py belongs to the script.
    """
    from mllaunch.wiring import App

    early = ctx.obj
    app = App(os.environ, os.getcwd(), early.agent if early else None)
    submitted = submission.submit(app, early, asked)
    if submitted is None:
        return 0
    if asked["as_json"]:
        import json

        print(json.dumps(submission.document(submitted)), flush=True)
    else:
        print(f"Run {submitted.run.name}   follow: mllaunch logs -f {submitted.run.name}", flush=True)
    if not (wait or follow):
        return 0
    from mllaunch.cli.following import follow_run

    return follow_run(app, submitted.run.id, show=follow)
