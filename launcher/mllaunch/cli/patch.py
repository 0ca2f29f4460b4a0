"""A patch on stdout: exact on a pipe, harmless on a terminal, and without secrets on both."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from mllaunch.cli import terminal


def write(patch: bytes, environ: Mapping[str, str], name: str) -> None:
    """Print a patch of a run's code. Says on stderr when secrets had to be masked in it."""
    from mllaunch.domain.render import Renderer
    from mllaunch.usecases.annotate import declared_secrets
    from mllaunch_agent.node import make_masker

    masked, ranges = make_masker(declared_secrets(environ)).mask(patch)
    if ranges:
        count = f"{len(ranges)} secret{'s' if len(ranges) != 1 else ''}"
        sys.stderr.write(f"warning: {count} masked with *, so the patch is not exact\n")
        sys.stderr.write(f"hint: mllaunch checkout {name} DIR gives the exact code\n")
    if not terminal.is_terminal(sys.stdout):
        sys.stdout.flush()
        sys.stdout.buffer.write(masked)
        sys.stdout.buffer.flush()
        return
    renderer = Renderer()
    for line in [*renderer.feed(masked), renderer.finish()]:
        sys.stdout.write(_coloured(line))


def _coloured(line: str) -> str:
    text = line.rstrip("\n")
    end = line[len(text) :]
    if text.startswith("+"):
        return terminal.green(text, sys.stdout) + end
    if text.startswith("-"):
        return terminal.red(text, sys.stdout) + end
    return (terminal.dim(text, sys.stdout) if text.startswith(("@@", "diff ", "index ")) else text) + end
