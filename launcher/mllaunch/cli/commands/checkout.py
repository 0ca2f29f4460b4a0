"""mllaunch checkout"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mllaunch.domain.run import Run
    from mllaunch.wiring import App


@click.command()
@click.argument("run")
@click.argument("folder", metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(run: str, folder: str, as_json: bool) -> None:
    """Write the exact code of a run into DIR, which must be absent or empty.

    It comes from the run log's own copy, so it works when the repository has moved on or is gone.
    """
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd())
    found, _ = app.log.get(run)
    target = os.path.abspath(folder)
    _check_out(app, found, target)
    _say(found, target, as_json)


def _check_out(app: App, run: Run, target: str) -> None:
    from mllaunch.capture import codestore
    from mllaunch.errors import MllaunchError, NotFound

    commit = run.snapshot.commit
    # Under another name until it is whole; a folder that is there keeps its owner and mode, and its inode, which
    # may be somebody's current folder.
    existed = os.path.lexists(target)
    place = target if existed else f"{target}.{os.urandom(4).hex()}.part"
    if existed and (os.path.islink(target) or not os.path.isdir(target) or os.listdir(target)):
        codestore.checkout(app.code.path, commit, target)  # says what is wrong
    try:
        try:
            codestore.checkout(app.code.path, commit, place)
        except NotFound:
            _preserve(app, run)
            codestore.checkout(app.code.path, commit, place)
        if not existed:
            os.rename(place, target)
    except BaseException as error:
        _remove(place, keep_folder=existed)
        if isinstance(error, OSError):
            raise MllaunchError(
                "cannot_write",
                "the code could not be written",
                evidence=(str(error),),
                hint="name another DIR",
            ) from error
        raise


def _preserve(app: App, run: Run) -> None:
    """What the background copy has not done yet."""
    from mllaunch.errors import MllaunchError, NotFound

    try:
        app.code.preserve(run.snapshot)
    except (MllaunchError, OSError) as error:
        raise NotFound(
            "no_such_code",
            f"the code of {run.name} was not copied into the run log yet, and {run.snapshot.repository} "
            f"cannot give it any more",
            evidence=(f"commit {run.snapshot.commit}", getattr(error, "message", str(error))),
            hint="put the repository back where it was, then try again",
        ) from error


def _remove(place: str, *, keep_folder: bool) -> None:
    """Leave nothing half-made."""
    import shutil

    if not keep_folder:
        shutil.rmtree(place, ignore_errors=True)
        return
    for entry in list(os.scandir(place)):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)


def _say(run: Run, target: str, as_json: bool) -> None:
    from mllaunch.domain.render import escape

    snapshot = run.snapshot
    pointers = _pointers(target)
    if as_json:
        import json

        document: dict[str, Any] = {
            "run": {"id": run.id, "name": run.name},
            "path": target,
            "commit": snapshot.commit,
            "base_commit": snapshot.base_commit,
            "dirty": snapshot.dirty,
            "uncommitted": list(snapshot.uncommitted),
            "lfs_pointers": pointers,
        }
        sys.stdout.write(json.dumps(document) + "\n")
        return
    sys.stdout.write(f"{snapshot.commit} {escape(target)}\n")
    if snapshot.dirty:
        count = len(snapshot.uncommitted)
        sys.stderr.write(
            f"includes the uncommitted changes that {escape(run.name)} ran with: {count} "
            f"file{'s' if count != 1 else ''} beyond commit {snapshot.base_commit[:12]}\n"
        )
    if pointers:
        sys.stderr.write(
            f"{len(pointers)} LFS file{'s are' if len(pointers) > 1 else ' is'} here as pointers only: the run log "
            "keeps no LFS content\n"
        )


def _pointers(root: str) -> list[str]:
    """What are LFS pointers in a checkout, relative and sorted."""
    from mllaunch.capture import lfs

    found = []
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            if os.path.islink(path) or os.path.getsize(path) >= lfs.MAX_POINTER_BYTES:
                continue
            with open(path, "rb") as file:
                if lfs.parse(file.read()):
                    found.append(os.path.relpath(path, root))
    return sorted(found)
