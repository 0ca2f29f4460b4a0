"""mllaunch image"""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mllaunch.wiring import App


@click.group()
def command() -> None:
    """Build, show and remove the container images of runs."""


@command.command()
@click.option("--allow-dirty", is_flag=True, help="Take uncommitted changes too, as a commit of their own.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def build(allow_dirty: bool, as_json: bool) -> None:
    """Make the image that a submission from here would run in, and print its digest."""
    import json

    from mllaunch.capture import snapshot as snapshots
    from mllaunch.cli import imaging

    app = _app()
    found = snapshots.begin(app.cwd).inspection.finish()
    config = app.config(found.root, {})
    snapshot = snapshots.decide(
        found, allow_dirty=allow_dirty or config.dirty == "snapshot", now=app.clock.now()
    )
    workdir = os.path.relpath(app.cwd, found.root)
    project = config.project or os.path.basename(found.root)
    image = imaging.ensure(app, config, snapshot, project, "" if workdir == "." else workdir, quiet=as_json)
    snapshots.pin(snapshot)
    if as_json:
        lock = image.lock and image.lock._asdict()
        print(json.dumps({**image._asdict(), "lock": lock, "commit": snapshot.commit}))
    else:
        print(image.digest)


_NODE = click.option("--node", metavar="NODE", help="In the engine of this node, not of this machine.")


@command.command()
@click.argument("run", required=False)
@_NODE
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def show(run: str | None, node: str | None, as_json: bool) -> None:
    """Show the image of RUN, or list the images in an engine that mllaunch has made."""
    from mllaunch.errors import UsageError

    app = _app()
    if run is None:
        with _engine(app, node):
            _list(app, as_json)
    elif node is not None:
        raise UsageError("node", "--node lists what a node has; a run's image is the same everywhere")
    else:
        _show(app, run, as_json)


def _engine(app: App, node: str | None) -> AbstractContextManager[None]:
    return nullcontext() if node is None else app.engine_on(node)


def _show(app: App, reference: str, as_json: bool) -> None:
    import json

    from mllaunch.cli.sheet import Sheet
    from mllaunch.errors import NotFound

    run, _ = app.log.get(reference)
    if run.image is None:
        raise NotFound("no_image", f"{run.name} ran as a process: {run.spec.runtime_why}")
    image = run.image
    document = {
        "run": {"id": run.id, "name": run.name},
        "commit": run.snapshot.commit,
        **image._asdict(),
        "lock": image.lock and {**image.lock._asdict(), "file": _kept(app, image.environment)},
    }
    if as_json:
        print(json.dumps(document))
        return
    sheet = Sheet(sys.stdout)
    sheet.row("image", image.reference)
    sheet.row("digest", image.digest, None if image.id == image.digest else f"{image.id} in the engine")
    sheet.row("code", f"{run.snapshot.commit} of {run.snapshot.remote or run.snapshot.repository}")
    sheet.row("base", image.base)
    if image.lock:
        file = _kept(app, image.environment)
        sheet.row("lock", f"{image.lock.path}  {image.lock.digest}", f"resolved: {file}" if file else None)
    sys.stdout.write(sheet.text())


def _kept(app: App, environment: str) -> str | None:
    path = app.locks.path(environment)
    return path if os.path.exists(path) else None


def _list(app: App, as_json: bool) -> None:
    import json

    from mllaunch.cli import terminal, times
    from mllaunch.cli.table import table

    images = app.made_images()
    if as_json:
        print(json.dumps([image._asdict() for image in images]))
        return
    rows = [
        (image.name, image.kind, image.commit[:12] if image.commit else "-", times.bytes(image.size_bytes))
        for image in images
    ]
    headers = ("IMAGE", "KIND", "COMMIT", "SIZE")
    sys.stdout.write(table(rows, headers, terminal.width(sys.stdout)))


@command.command()
@click.option("--environments", is_flag=True, help="Also what the code runs in: dear to build again.")
@click.option("--everybodys", is_flag=True, help="Also those that no run of this home is known to have used.")
@_NODE
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def prune(environments: bool, everybodys: bool, node: str | None, dry_run: bool, as_json: bool) -> None:
    """Remove the images of your runs that have ended, from an engine. A registry is left as it is.

    Each is made again from the commit when it is needed; with the same environment it gets the same digest.
    """
    import json

    from mllaunch.usecases.images import known, removable

    app = _app()
    removed: list[dict[str, Any]] = []
    app.collector.collect_unsettled(events_only=True)
    with _engine(app, node):
        images = app.made_images()
        if not everybodys:
            images = known(images, lambda image: app.knows_image(image.id))
        for image in removable(images, _used(app), environments=environments):
            if not dry_run:
                app.remove_image(image)
            removed.append(image._asdict())
            if not as_json:
                print(f"{'would remove' if dry_run else 'removed'} {image.name}")
    if as_json:
        print(json.dumps(removed))
    elif not removed:
        sys.stderr.write("nothing to remove\n")


def _used(app: App) -> set[str]:
    """The images of runs that have not ended, of this home."""
    from mllaunch.ports import RunQuery

    rows = app.log.rows(RunQuery(limit=-1, unsettled=True))
    images = [app.log.get(row.id)[0].image for row in rows]
    return {image.id for image in images if image is not None}


def _app() -> App:
    from mllaunch.wiring import App

    return App(os.environ, os.getcwd())
