"""How failures look on the terminal, and the exit code each leads to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mllaunch.errors import MllaunchError


def guarded(command: Callable[[], object]) -> int:
    """Run a command; its exit code. Every failure is printed on stderr, without a traceback unless asked for."""
    from mllaunch.errors import MllaunchError

    try:
        result = command()
    except MllaunchError as e:
        _debug()
        print_error(e)
        return e.exit_code
    except KeyboardInterrupt:
        _line("")
        return 130
    except BrokenPipeError:
        return reader_gone()
    except Exception as e:  # noqa: BLE001  the last resort, which says so
        code = _from_click(e)
        if code is not None:
            return code
        _debug()
        _line(f"error[internal]: mllaunch itself failed: {type(e).__name__}: {_safe(str(e))}")
        _line("hint: run it again with --debug before the command for the traceback, and report it")
        return 125
    return result if isinstance(result, int) else 0


def reader_gone() -> int:
    """The reader of stdout (head, less) has seen enough: nothing more to say to it, nor at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


def _from_click(error: Exception) -> int | None:
    """The exit code of what click raises on purpose, said in our way; None for anything else."""
    if "click" not in sys.modules:
        return None
    import click

    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.Abort):
        _line("")
        return 130
    if isinstance(error, click.ClickException):
        _line(f"error[usage]: {_safe(error.format_message())}")
        context = error.ctx if isinstance(error, click.UsageError) else None
        if context is not None:
            _line(f"hint: {context.command_path} --help")
        return 2
    return None


def print_error(error: MllaunchError) -> None:
    """``error[code]: cause``, the evidence, the hint; what Ctrl-C led to is one line below the ``^C``."""
    from mllaunch.cli import terminal
    from mllaunch.errors import Interrupted

    if isinstance(error, Interrupted):
        _line(f"\n{_safe(error.message)}")
        return
    _line(terminal.red(f"error[{error.code}]:", sys.stderr) + f" {_safe(error.message)}")
    for line in error.evidence:
        _line(f"  {_safe(line)}")
    if error.hint:
        _line(f"hint: {_safe(error.hint)}")


def _debug() -> None:
    if os.environ.get("MLLAUNCH_DEBUG"):
        import traceback

        traceback.print_exc()


def _safe(text: str) -> str:
    """Text that may hold anything (file names, other programs' messages) without control over the terminal."""
    from mllaunch.domain.render import escape

    return escape(text)


def _line(text: str) -> None:
    try:
        sys.stderr.write(text + "\n")
    except UnicodeEncodeError:
        sys.stderr.write(text.encode("ascii", "backslashreplace").decode() + "\n")
