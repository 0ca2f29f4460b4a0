"""The command line: a table of commands, each imported when it is called."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import click

COMMANDS = {
    "init": "Write a configuration, or a ready example.",
    "submit": "Start a run and return.",
    "run": "Start a run, follow it, and exit with its code.",
    "stop": "End a run.",
    "ps": "List runs.",
    "show": "Show one run.",
    "logs": "Show what a run printed.",
    "provenance": "Show how a result came to be.",
    "checkout": "Get the exact code of a run.",
    "files": "List what a run wrote.",
    "pull": "Copy what a run wrote.",
    "export": "Write a run as a folder: config, notes, run_info, outputs.",
    "note": "Replace a run's note.",
    "tag": "Add tags to a run.",
    "doctor": "Check what runs need, and say how to mend what is missing.",
    "config": "Show the configuration and where each value came from.",
    "prune": "Free what runs keep on this machine.",
    "completion": "Print a shell's completion script.",
}
_HIDDEN = ("collect-detached",)


def main() -> None:
    """Entry point of the console script; never returns."""
    arguments = sys.argv[1:]
    early = None
    if arguments[:1] in (["submit"], ["run"]) and "--help" not in arguments and "-h" not in arguments:
        from mllaunch.cli.early import Early

        early = Early()
    from mllaunch.cli.errors import guarded

    sys.exit(
        guarded(lambda: _group()(args=arguments, prog_name="mllaunch", standalone_mode=False, obj=early))
    )


def _group() -> click.Group:
    import click

    class Lazy(click.Group):
        def list_commands(self, ctx: click.Context) -> list[str]:
            return list(COMMANDS)

        def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
            if name not in COMMANDS and name not in _HIDDEN:
                return None
            command: click.Command = import_module(f"mllaunch.cli.commands.{name.replace('-', '_')}").command
            return command

        def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
            # The table knows each line, so that --help imports no command.
            with formatter.section("Commands"):
                formatter.write_dl(list(COMMANDS.items()))

    @click.group(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
    @click.version_option(package_name=None, version=_version(), prog_name="mllaunch")
    @click.option(
        "--debug", is_flag=True, envvar="MLLAUNCH_DEBUG", help="Show a traceback when something fails."
    )
    def group(debug: bool) -> None:
        """Launch machine-learning runs from committed code, and know afterwards where every result came from."""
        if debug:
            os.environ["MLLAUNCH_DEBUG"] = "1"

    return group


def _version() -> str:
    from mllaunch import __version__

    return __version__
