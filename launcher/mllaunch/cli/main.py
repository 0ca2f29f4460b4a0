"""The command line: a table of commands, each imported when it is called."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import TYPE_CHECKING, NoReturn

from mllaunch.cli import listing

if TYPE_CHECKING:
    import click

COMMANDS = {
    "init": "Write a configuration, or a ready example.",
    "submit": "Start a run and return.",
    "run": "Start a run, follow it, and exit with its code.",
    "resume": "Go on from a run's checkpoint, or begin anew from its weights.",
    "stop": "End a run.",
    "ps": "List runs.",
    "show": "Show one run.",
    "logs": "Show what a run printed.",
    "ssh": "Open a shell where a run's task runs.",
    "provenance": "Show how a result came to be.",
    "checkout": "Get the exact code of a run.",
    "files": "List what a run wrote.",
    "pull": "Copy what a run wrote.",
    "export": "Write a run as a folder: config, notes, run_info, outputs.",
    "note": "Replace a run's note.",
    "tag": "Add tags to a run.",
    "image": "Build, show and remove container images.",
    "nodes": "Show the machines of the ssh backend.",
    "doctor": "Check what runs need, and say how to mend what is missing.",
    "config": "Show the configuration and where each value came from.",
    "prune": "Free what runs keep here and on nodes.",
    "completion": "Print a shell's completion script.",
}
_HELP_FLAGS = frozenset({"-h", "--help"})
_HELP = """\
Usage: mllaunch [--debug] COMMAND [ARGS]...

Launch machine-learning runs from committed code, and know afterwards where every result came from.

Commands:
{commands}
Options:
  --debug     Show a traceback when something fails.
  --version   Print the version.
  -h, --help  Print this, or with a command what it takes.
"""


def main() -> NoReturn:
    """Entry point of the console script."""
    from mllaunch.cli.errors import guarded

    _print_anything()
    _leave(guarded(lambda: _dispatch(sys.argv[1:])))


def _print_anything() -> None:
    """What an output's encoding cannot say is escaped: no character of a task's may end its run's display."""
    for stream in (sys.stdout, sys.stderr):
        # In UTF-8 only what is no text needs an escape, unless Python passes it on as the bytes that it was.
        if isinstance(stream, TextIOWrapper) and (stream.errors == "strict" or stream.encoding != "utf-8"):
            stream.reconfigure(errors="backslashreplace")


def _dispatch(arguments: list[str]) -> object:
    # What needs no option parser does without: importing click takes three times as long as Python's own start.
    completing = "_MLLAUNCH_COMPLETE" in os.environ  # a shell asks, by variables and without arguments
    if not completing and arguments[:1] in ([], ["-h"], ["--help"]):
        sys.stdout.write(_help())
        return 0 if arguments else 2
    if arguments[:1] == ["ps"] and listing.PLAIN_FLAGS.issuperset(arguments[1:]):
        return listing.plain(arguments[1:])
    if arguments == ["collect-detached"]:
        from mllaunch.cli import detached

        return detached.collect()
    early = None
    if arguments[:1] in (["submit"], ["run"]) and not _HELP_FLAGS.intersection(arguments):
        from mllaunch.cli.early import Early

        early = Early(arguments[1:])
        from mllaunch.cli import request

        if request.is_plain(arguments[1:]):
            from mllaunch.cli import submission

            command = (
                submission.submit_and_return if arguments[0] == "submit" else submission.submit_and_follow
            )
            return command(early, request.plain(arguments[1:]))
    return _group()(args=arguments, prog_name="mllaunch", standalone_mode=False, obj=early)


def _help() -> str:
    width = max(map(len, COMMANDS)) + 2
    return _HELP.format(commands="".join(f"  {name:<{width}}{line}\n" for name, line in COMMANDS.items()))


def _leave(code: int) -> NoReturn:
    """End at once: taking the interpreter apart takes milliseconds, and frees nothing that the end does not."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass  # its reader has gone
    os._exit(code)


def _group() -> click.Group:
    import click

    from mllaunch.cli import errors

    class Lazy(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(COMMANDS)

        def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
            if name not in COMMANDS:
                return None
            command: click.Command = import_module(f"mllaunch.cli.commands.{name.replace('-', '_')}").command
            return command

        def invoke(self, ctx: click.Context) -> object:
            try:
                return super().invoke(ctx)
            except BrokenPipeError as e:  # click would make a failure of it
                raise click.exceptions.Exit(errors.reader_gone()) from e

        def get_help(self, ctx: click.Context) -> str:
            return _help().rstrip("\n")

    @click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
    @click.version_option(version=_version(), prog_name="mllaunch", message="%(prog)s %(version)s")
    @click.option("--debug", is_flag=True, envvar="MLLAUNCH_DEBUG")
    def group(debug: bool) -> None:
        if debug:
            os.environ["MLLAUNCH_DEBUG"] = "1"

    return group


def _version() -> str:
    from mllaunch import __version__

    return __version__
