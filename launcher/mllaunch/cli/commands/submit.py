"""mllaunch submit"""

from __future__ import annotations

from typing import Any

import click

from mllaunch.cli import options, submission


@click.command(cls=options.SubmitCommand, context_settings={"allow_interspersed_args": False})
@click.option("--wait", is_flag=True, help="Return when it has ended, with its exit code.")
@click.option("-f", "--follow", is_flag=True, help="Show what it prints, and return as --wait does.")
@options.options
@click.pass_context
def command(ctx: click.Context, /, wait: bool, follow: bool, **asked: Any) -> int:
    """Start a run of SCRIPT.py, or of any command after `--`, from the committed code, and return.

    Everything after SCRIPT.py belongs to the script.
    """
    return submission.submit_and_return(ctx.obj, asked, wait=wait, follow=follow)
