"""Python programs on a node, in whatever Python is there."""

from __future__ import annotations

import shlex

from mllaunch.schedulers.ssh.links import Link, Pipe


def start(link: Link, python: str | None, program: str) -> Pipe:
    """Start a program whose text needs not be there; what it reads from its input is what comes after. OSError."""
    # Nothing in it needs a quote that a shell of another kind would read differently.
    command = f"exec {_quoted(python or 'python3')} -u -c 'exec(open(0,\"rb\",0,closefd=False).readline())'"
    pipe = link.run(command)
    pipe.stdin.write(f"exec({program!r})\n".encode())
    pipe.stdin.flush()
    return pipe


def _quoted(python: str) -> str:
    # A tilde is the shell's to expand.
    return "~/" + shlex.quote(python[2:]) if python.startswith("~/") else shlex.quote(python)
