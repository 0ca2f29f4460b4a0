"""mllaunch run"""

from __future__ import annotations

from typing import Any

import click

from mllaunch.cli import options, submission


@click.command(cls=options.SubmitCommand, context_settings={"allow_interspersed_args": False})
@options.options
@click.pass_context
def command(ctx: click.Context, /, **asked: Any) -> int:
    """Start a run as `submit` does, show what it prints, and exit with its code.

    Ctrl-C stops showing; the run goes on.
    """
    return submission.submit_and_follow(ctx.obj, asked)
