"""mllaunch provenance"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mllaunch.domain.run import Run, RunStatus
    from mllaunch.wiring import App

_BLOCK = 1 << 20


@click.command()
@click.argument("what", metavar="RUN|FILE|DIGEST")
@click.option("--diff", is_flag=True, help="The changes to the code, as a patch.")
@click.option("--dot", is_flag=True, help="What it came from and what came from it, as a graph for Graphviz.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(what: str, diff: bool, dot: bool, as_json: bool) -> int:
    """Show how a result came to be: the code, data, machine and command behind a run, or behind a file.

    A FILE is recognised by its content, whatever it is called now; so is a DIGEST such as sha256:9f31...
    """
    from mllaunch.domain.artifact import parse_digest
    from mllaunch.errors import NotFound, UsageError
    from mllaunch.wiring import App

    if diff + dot + as_json > 1:
        raise UsageError("formats", "--diff, --dot and --json exclude each other")
    app = App(os.environ, os.getcwd())
    digest = parse_digest(what)
    if digest is not None:
        return _file(app, digest, None, as_json, diff or dot)
    try:
        run, status = _run(app, what)
    except NotFound:
        if not os.path.lexists(what):
            raise
        sha256, size_bytes = _hashed(what)
        return _file(app, sha256, size_bytes, as_json, diff or dot)
    if diff:
        return _diff(app, run)
    _show(app, run, status, as_json, dot)
    return 0


def _run(app: App, reference: str) -> tuple[Run, RunStatus]:
    from mllaunch.cli.settling import settled

    return settled(app, reference)


def _show(app: App, run: Run, status: RunStatus, as_json: bool, dot: bool) -> None:
    from mllaunch.domain.provenance import document
    from mllaunch.usecases.provenance import gather

    found = document(gather(app.log, app.blobs, run, status))
    if as_json:
        import json

        sys.stdout.write(json.dumps(found) + "\n")
    elif dot:
        from mllaunch.domain.dot import graph

        sys.stdout.write(graph(found))
    else:
        from mllaunch.cli.provenance_text import render

        sys.stdout.write(render(found, app.clock.now(), sys.stdout))


def _diff(app: App, run: Run) -> int:
    """The uncommitted changes that were part of the run's code; changes during the run are not recorded yet."""
    from mllaunch.capture import codestore
    from mllaunch.cli.patch import write

    sys.stderr.write(f"{run.name}: changes during the run are not recorded by this version\n")
    if not run.snapshot.dirty:
        sys.stderr.write(f"{run.name}: the code was committed; there were no uncommitted changes\n")
        return 0
    app.code.preserve(run.snapshot)  # done at the end of a run; one that still goes on may be asked for too
    write(codestore.uncommitted(app.code.path, run.snapshot.commit), app.environ, run.name)
    return 0


def _file(app: App, sha256: str, size_bytes: int | None, as_json: bool, other_form: bool) -> int:
    from mllaunch.errors import UsageError
    from mllaunch.usecases.provenance import origin

    if other_form:
        raise UsageError("formats", "--diff and --dot are for runs", hint="name the run that wrote the file")
    app.collector.collect_unsettled(events_only=False)
    found = origin(app.log, sha256, size_bytes)
    if as_json:
        import json

        sys.stdout.write(json.dumps(found) + "\n")
    else:
        from mllaunch.cli.origin_text import render

        sys.stdout.write(render(found, app.clock.now(), sys.stdout))
    return 0


def _hashed(path: str) -> tuple[str, int]:
    """Digest and size of a file's bytes. UsageError if it is no regular file or cannot be read."""
    from hashlib import sha256
    from stat import S_ISREG

    from mllaunch.errors import UsageError

    digest = sha256()
    size_bytes = 0
    try:
        # A pipe with nobody at its other end must not make us wait.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:
            if not S_ISREG(os.fstat(fd).st_mode):
                raise UsageError(
                    "not_a_file", f"{path} is no regular file", hint="name a file, a run, or a digest"
                )
            while block := file.read(_BLOCK):
                digest.update(block)
                size_bytes += len(block)
    except OSError as error:
        raise UsageError("unreadable", f"{path} cannot be read: {error.strerror}") from error
    return digest.hexdigest(), size_bytes
