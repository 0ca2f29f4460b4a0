"""mllaunch provenance"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, NamedTuple

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
@click.option(
    "--against", metavar="COMMIT", help="Whether the code that was executed is that of a commit here."
)
def command(what: str, diff: bool, dot: bool, as_json: bool, against: str | None) -> int:
    """Show how a result came to be: the code, data, machine and command behind a run, or behind a file.

    A FILE is recognised by its content, whatever it is called now; so is a DIGEST such as sha256:9f31...
    """
    from mllaunch.domain.artifact import parse_digest
    from mllaunch.errors import NotFound, UsageError
    from mllaunch.wiring import App

    if diff + dot + as_json > 1 or (against and (diff or dot)):
        raise UsageError(
            "formats", "--diff, --dot and --json exclude each other, as do --against, --diff and --dot"
        )
    app = App(os.environ, os.getcwd())
    form = _Form(as_json, dot, diff)
    digest = parse_digest(what)
    if digest is not None:
        return _origin(app, digest, None, None, form)
    try:
        run, status = _run(app, what)
    except NotFound:
        if not os.path.lexists(what):
            raise
        if os.path.isdir(what):
            return _folder(app, what, form)
        sha256, size_bytes = _hashed(what)
        return _origin(app, sha256, size_bytes, _weights(what), form)
    if against is not None:
        return _against(app, run, against, form)
    if diff:
        return _diff(app, run)
    _show(app, run, status, as_json, dot)
    return 0


class _Form(NamedTuple):
    as_json: bool
    dot: bool
    diff: bool


def _run(app: App, reference: str) -> tuple[Run, RunStatus]:
    from mllaunch.cli.settling import settled

    return settled(app, reference)


def _show(app: App, run: Run, status: RunStatus, as_json: bool, dot: bool) -> None:
    from mllaunch.cli.documents import provenance

    found = provenance(app, run, status)
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
    """The uncommitted changes that the run began with, then those made while it ran, in the order of time."""
    from mllaunch.capture import codestore
    from mllaunch.cli.patch import write
    from mllaunch.domain.codeuse import changes
    from mllaunch.domain.render import escape
    from mllaunch.usecases.changes import keep
    from mllaunch.usecases.provenance import traces

    app.code.preserve(run.snapshot)  # done at the end of a run; one that still goes on may be asked for too
    views = app.log.views(run.id)
    traced = list(traces(app.blobs, run.id, list(views)))
    kept = keep(app.code, app.blobs, run, views, traced)
    parts = [codestore.uncommitted(app.code.path, run.snapshot.commit)]
    seen = set()
    for change in changes(views, traced):
        patch = kept.patches.get((change.at, change.path))
        shown = f"{escape(change.path)} at {change.at} on {change.node}, attempt {change.attempt}"
        if patch is None:
            sys.stderr.write(f"warning: what was changed in {shown} was not captured\n")
        elif patch not in seen:
            seen.add(patch)
            parts.append(f"# {shown}; in use: {change.in_use}\n".encode() + patch)
    if not any(parts):
        sys.stderr.write(f"{run.name}: the code was committed, and nothing of it is known to have changed\n")
        return 0
    write(b"".join(parts), app.environ, run.name)
    return 0


def _origin(app: App, sha256: str, size_bytes: int | None, weights: str | None, form: _Form) -> int:
    from mllaunch.errors import UsageError
    from mllaunch.usecases.origin import origin

    if form.diff:
        raise UsageError("formats", "--diff is for runs", hint="name the run that wrote the file")
    app.collector.collect_unsettled(events_only=False)
    found = origin(app.log, sha256, size_bytes, weights)
    if form.as_json:
        import json

        sys.stdout.write(json.dumps(found) + "\n")
    elif form.dot:
        from mllaunch.domain.dot import origin_graph

        sys.stdout.write(origin_graph(found))
    else:
        from mllaunch.cli.origin_text import render

        sys.stdout.write(render(found, app.clock.now(), sys.stdout))
    return 0


def _folder(app: App, path: str, form: _Form) -> int:
    """A folder: a checkpoint of many files, or data, by the digest of all of them; else each file by itself, and code
    against what the runs that made the others have executed. Exit code 1 if that is not the same."""
    from mllaunch.errors import UsageError
    from mllaunch.usecases import against
    from mllaunch.usecases.folders import digests

    for sha256, size_bytes in digests(path):
        if app.log.artifacts(sha256):
            return _origin(app, sha256, size_bytes, None, form)
    if form.dot or form.diff:
        raise UsageError("formats", "--dot and --diff are for runs and files", hint="name a file in it")
    app.collector.collect_unsettled(events_only=False)
    found = against.folder(app.log, app.blobs, path, against.read_folder(path))
    if form.as_json:
        import json

        sys.stdout.write(json.dumps(found) + "\n")
    else:
        from mllaunch.cli.against_text import render_folder

        sys.stdout.write(render_folder(found, sys.stdout))
    return int(any(compared["differs"] or compared["missing"] for compared in found["code"]))


def _against(app: App, run: Run, revision: str, form: _Form) -> int:
    """The code that a run executed, against a commit of the repository here. Exit code 1 if it is not the same."""
    from mllaunch.capture import snapshot as snapshots
    from mllaunch.usecases.against import against

    commit, files = snapshots.listed(app.cwd, revision)
    found = against(app.log, app.blobs, run, commit, files)
    if form.as_json:
        import json

        sys.stdout.write(json.dumps(found) + "\n")
    else:
        from mllaunch.cli.against_text import render_commit

        sys.stdout.write(render_commit(found, sys.stdout))
    return int(bool(found["differs"] or found["missing"]))


def _weights(path: str) -> str | None:
    """The digest of the weights in a file, which the same weights have in another file."""
    from mllaunch_agent import weights

    try:
        found = weights.read(path)
    except OSError:
        return None
    return found.digest if found else None


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
