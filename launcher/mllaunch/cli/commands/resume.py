"""mllaunch resume"""

from __future__ import annotations

import os
from typing import Any

import click

from mllaunch.cli import options


class _Resume(click.Command):
    """Everything after ``--`` belongs to the script."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        own: list[str] = args
        extra: list[str] = []
        if "--" in args:
            at = args.index("--")
            own, extra = args[:at], args[at + 1 :]
        rest = super().parse_args(ctx, list(own))
        ctx.params["extra"] = tuple(extra)
        return rest


@click.command(
    cls=_Resume, options_metavar="[OPTIONS]", epilog="After -- come further arguments of the script."
)
@click.argument("run", metavar="RUN")
@click.option("--from-weights", is_flag=True, help="Begin anew from its weights, with the current code.")
@click.option("--step", type=click.IntRange(min=0), metavar="N", help="From the checkpoint of this step.")
@click.option(
    "--code", type=click.Choice(["same", "current"]), help="The old code, or that of the working tree."
)
@click.option("--name", metavar="NAME", help="A name of your choice.")
@click.option("--note", metavar="TEXT", help="A note.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag; may be repeated.")
@click.option("--gpus", type=click.IntRange(min=0), metavar="N", help="GPUs per node; default: as before.")
@click.option("--node", multiple=True, metavar=options.NODES, help=options.ON_NODES)
@click.option("--env", "env", multiple=True, metavar="NAME[=VALUE]", help="Record, or set, a variable.")
@click.option("--timeout", metavar="TIME", help="Stop it after, such as 4h or 90s.")
@click.option("--allow-dirty", is_flag=True, help="With --code current: run uncommitted changes.")
@click.option("--wait", is_flag=True, help="Return when it has ended, with its exit code.")
@click.option("-f", "--follow", is_flag=True, help="Show what it prints, and return as --wait does.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(run: str, **asked: Any) -> int:
    """Start a new run from a checkpoint of RUN: its newest whole one, with the same code and arguments.

    The script finds the checkpoint in MLLAUNCH_RESUME_FROM, or with --from-weights in MLLAUNCH_INIT_WEIGHTS;
    `resume_args` and `weights_args` in mllaunch.yaml map them to arguments.
    """
    from mllaunch.cli import resuming, submission
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd())
    submitted = resuming.resume(app, run, asked)
    if submitted is None:
        return 0
    return submission.announce(app, submitted, asked, wait=asked["wait"], follow=asked["follow"])
