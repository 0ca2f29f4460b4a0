"""The options of `submit` and `run`, for the option parser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

NODES = "NAME|GROUP|LABEL=VALUE"
ON_NODES = "On this node, or any of this group or with this label; may be repeated."

_OPTIONS = (
    click.option("--gpus", metavar="N", help="GPUs per node; more than the machine has is refused."),
    click.option("--nodes", metavar="N", help="Nodes."),
    click.option("--procs-per-node", metavar="N|auto", help="Tasks per node; auto: one per GPU."),
    click.option("--cpus", metavar="N", help="CPUs per node."),
    click.option("--memory", metavar="SIZE", help="Memory per node, such as 16GiB."),
    click.option("--backend", metavar="NAME", help="Where it runs: local or ssh."),
    click.option(
        "--node",
        "node",
        multiple=True,
        metavar=NODES,
        help=ON_NODES,
    ),
    click.option("--runtime", metavar="NAME", help="How it runs: auto, docker or process."),
    click.option("--image", metavar="REF", help="A finished image to put the code on."),
    click.option("--python", metavar="PATH", help="Interpreter of the script; default: the one on PATH."),
    click.option("--env", "env", multiple=True, metavar="NAME[=VALUE]", help="Record, or set, a variable."),
    click.option(
        "--data", multiple=True, metavar="PATH", help="Data outside the commit; linked and fingerprinted."
    ),
    click.option("--output", metavar="DIR", help="Where the script writes; MLLAUNCH_OUTPUT_DIR."),
    click.option("--name", metavar="NAME", help="A name of your choice."),
    click.option("--note", metavar="TEXT", help="A note."),
    click.option("--tag", "tags", multiple=True, metavar="TAG", help="A tag; may be repeated."),
    click.option("--project", metavar="NAME", help="Project; default: the repository's folder name."),
    click.option("--allow-dirty", is_flag=True, help="Run uncommitted changes, as a commit of their own."),
    click.option("--in-place", is_flag=True, help="Run in the working tree itself: later edits will show."),
    click.option(
        "--max-retries", type=click.IntRange(0, 1000), default=0, metavar="N", help="Further attempts."
    ),
    click.option("--timeout", metavar="TIME", help="Stop it after, such as 4h or 90s."),
    click.option(
        "--grace", metavar="TIME", help="Between SIGTERM and SIGKILL when it is stopped; default: 30s."
    ),
    click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON document."),
)


class SubmitCommand(click.Command):
    """Options end at the script; everything after it is the script's. A ``--`` before it makes it a command."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        typed = list(args)
        rest = super().parse_args(ctx, args)
        words = ctx.params.get("words") or ()
        before = len(typed) - len(words) - 1
        ctx.params["is_command"] = before >= 0 and typed[before] == "--"
        return rest


def options(function: F) -> F:
    """Declare what can be asked of a submission."""
    decorated: Any = click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="SCRIPT.py [ARGS]...")(
        function
    )
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    result: F = decorated
    return result
