"""The environment of a submission on nodes: found or made there, with a line on the terminal that says which."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mllaunch.cli.submission import Launchable
    from mllaunch.domain.image import Lock
    from mllaunch.wiring import App
    from mllaunch_containers.spec import Dependencies


def ensure(app: App, what: Launchable, *, quiet: bool) -> Lock | None:
    """Have the chosen nodes make the environment that the commit's lock asks for, each that has no interpreter.

    The lock, if every node then has it. Raises MllaunchError if a node cannot make it. Says so on stderr unless quiet.
    """
    from mllaunch.cli.imaging import Progress
    from mllaunch.domain.image import Lock
    from mllaunch_agent.environments import KINDS

    if what.config.python is not None or not app.ssh.chosen.needs_python:
        return None
    asked = _asked(app, what)
    if asked.path is None or asked.lock_digest is None or asked.kind not in KINDS:
        if asked.path is not None and not quiet:
            _say_unserved(asked)
        return None
    with Progress(quiet, "env") as progress:
        made = app.ssh.chosen.install(asked, lambda node, line: progress.say(f"{line} [{node}]"))
    if not quiet:
        _say(asked, made)
    return (
        Lock(asked.path, asked.lock_digest, resolved=False)
        if len(made) == len(app.ssh.chosen.nodes)
        else None
    )


def _asked(app: App, what: Launchable) -> Dependencies:
    from mllaunch.capture.contents import Contents
    from mllaunch.images.dependencies import of_commit

    chosen = what.config.image.dependencies
    found = of_commit(
        what.snapshot.commit,
        lambda: Contents(what.snapshot),
        what.job.workdir,
        chosen,
        None,
        finished=False,
        cache=app.cache,
    )
    return found.dependencies


def _say_unserved(asked: Dependencies) -> None:
    from mllaunch_agent.environments import KINDS

    if asked.kind in KINDS:
        why = f"{asked.path} does not pin every version"
    else:
        why = f"{asked.path} is not installed on nodes, where locks of uv and poetry, pylock.toml and requirements are"
    _line("!", f"{why}: the node's python3 is used as it is")


def _say(asked: Dependencies, made: list[tuple[str, bool]]) -> None:
    from mllaunch.cli import terminal

    new = ", ".join(node for node, is_new in made if is_new)
    words = f"packages of {asked.path} ({f'new on {new}' if new else 'cached'})"
    if any("left out" in note for note in asked.notes):
        words += ", without what installs the repository itself"
    _line(terminal.green("✓", sys.stderr), words)


def _line(mark: str, text: str) -> None:
    from mllaunch.domain.render import escape

    sys.stderr.write(f"{mark} env    {escape(text)}\n")
