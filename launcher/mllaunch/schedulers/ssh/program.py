"""Python programs on a node, in whatever Python is there."""

from __future__ import annotations

import shlex

from mllaunch.schedulers.ssh.links import Link, Pipe


def start(link: Link, python: str | None, program: str, *words: str) -> Pipe:
    """Start a program whose text needs not be there; what it reads from sys.stdin.buffer is what comes after. OSError.

    words: arguments, plain ones; they tell who looks at the node's processes what this is.
    """
    # Nothing in it needs a quote that a shell of another kind would read differently; nor do all of them set variables
    # alike. The mark is to be there from the first moment: processes are told by what they were started with.
    begin = "import sys; exec(sys.stdin.buffer.readline())"
    command = ["exec env MLLAUNCH_AGENT=1", _quoted(python or "python3"), f"-I -S -c '{begin}'", *words]
    pipe = link.run(" ".join(command))
    pipe.stdin.write(f"exec({program!r})\n".encode())
    pipe.stdin.flush()
    return pipe


def _quoted(python: str) -> str:
    # A tilde is the shell's to expand.
    return "~/" + shlex.quote(python[2:]) if python.startswith("~/") else shlex.quote(python)
