"""mllaunch run"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from mllaunch.cli import submission


@click.command(cls=submission.SubmitCommand, context_settings={"allow_interspersed_args": False})
@submission.options
@click.pass_context
def command(ctx: click.Context, /, **asked: Any) -> int:
    """Start a run as `submit` does, show what it prints, and exit with its code.

    Ctrl-C stops showing; the run goes on.
    """
    from mllaunch.cli.following import follow_run
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
        sys.stderr.write(f"Run {submitted.run.name}\n")
    return follow_run(app, submitted.run.id, show=not asked["as_json"])
