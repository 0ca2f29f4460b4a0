"""The image of a submission: found or made, with a line on the terminal that says which."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Thread

    from mllaunch.capture.contents import Contents
    from mllaunch.config import Config
    from mllaunch.domain.image import Image
    from mllaunch.domain.job import JobSpec
    from mllaunch.domain.snapshot import Snapshot
    from mllaunch.wiring import App
    from mllaunch_containers.spec import ImageSpec

_SHORT_DIGEST = 19  # "sha256:" and 12 digits
_EVERY_S = 0.1
_STEPS = ("step ", "pulling ", "code: ", "the engine ", "sending ", "reading ")


def specification(
    app: App,
    config: Config,
    snapshot: Snapshot,
    project: str,
    workdir: str,
    unknown: Callable[[], None] = lambda: None,
) -> ImageSpec:
    """What the image of this commit is made of. workdir: where dependencies are looked for first. unknown: called
    before a commit is read of which nothing is known yet, and which most likely has no image."""
    from mllaunch import __version__
    from mllaunch.images.dependencies import of_commit
    from mllaunch.usecases.plan import IMAGE_PYTHON
    from mllaunch_containers.spec import Code, Environment, ImageSpec

    wanted = config.image
    finished = wanted.reference is not None

    def commit() -> Contents:
        from mllaunch.capture.contents import Contents

        unknown()
        return Contents(snapshot)

    found = of_commit(
        snapshot.commit, commit, workdir, wanted.dependencies, wanted.dockerfile, finished, app.cache
    )
    environment = Environment(
        wanted.base,
        wanted.system,
        found.dependencies,
        IMAGE_PYTHON,
        wanted.reference,
        found.dockerfile,
        app.c_layer if config.c_layer == "on" else None,
    )
    code = Code(snapshot.commit, snapshot.tree, found.committed_at, snapshot.remote)
    return ImageSpec(project, environment, code, __version__)


def ensure(app: App, config: Config, snapshot: Snapshot, project: str, workdir: str, *, quiet: bool) -> Image:
    """The image, made if it is not there; says so on stderr unless quiet."""
    tree = _Tree(app, snapshot)
    spec = specification(app, config, snapshot, project, workdir, tree.start)
    builder = app.images(config.image.registry, config.container.network)
    image = builder.find(spec)
    cached = image is not None
    if image is None:
        with Progress(quiet) as progress:
            image = builder.build(spec, tree.path, progress.say)
    if not quiet:
        _say(app, spec, image, cached)
    return image


def bring(app: App, image: Image, *, quiet: bool) -> str | None:
    """See to it that every node has the image. One that is in a registry they fetch from there themselves, for which
    they need what is returned: the user's credentials there, as the X-Registry-Auth header; None where there are none.
    """
    lacking = app.ssh.chosen.lacking(image.id)
    if not lacking:
        return None
    if "@" in image.reference:
        return app.registry_login(image)
    with Progress(quiet) as progress:
        sent = app.send_image(image, lacking, progress.say)
    if not quiet:
        from mllaunch.cli import terminal

        mark = terminal.green("✓", sys.stderr)
        sys.stderr.write(f"{mark} image  sent to {', '.join(lacking)} ({sent / 1e6:.1f} MB)\n")
    return None


class _Tree:
    """The folder with the code's files, made in the background while the engine and git are asked other things."""

    def __init__(self, app: App, snapshot: Snapshot) -> None:
        self._app = app
        self._snapshot = snapshot
        self._thread: Thread | None = None
        self._path: str | None = None
        self._error: BaseException | None = None

    def start(self) -> None:
        from threading import Thread

        self._thread = Thread(target=self._make, daemon=True)
        self._thread.start()

    def path(self) -> str:
        """Its path, once it is there. Raises what its making raises."""
        if self._thread is None:
            self._make()
        else:
            self._thread.join()
        if self._error is not None:
            raise self._error
        assert self._path is not None
        return self._path

    def _make(self) -> None:
        from mllaunch.capture import trees

        try:
            self._path = trees.ensure(self._app.trees, self._snapshot)
        except BaseException as error:  # noqa: BLE001  raised again where the tree is needed
            self._error = error


def _say(app: App, spec: ImageSpec, image: Image, cached: bool) -> None:
    from mllaunch.cli import terminal
    from mllaunch.domain.render import escape

    short = terminal.is_terminal(sys.stderr)
    digest = f"{image.digest[:_SHORT_DIGEST]}…" if short else image.digest
    how = "cached" if cached else "new"
    line = f"{digest} ({how}), {packages(spec, image)}, by {app.engine_answer.title}"
    sys.stderr.write(f"{terminal.green('✓', sys.stderr)} image  {escape(line)}\n")
    if not cached:
        for note in spec.environment.dependencies.notes:
            sys.stderr.write(f"{terminal.yellow('!', sys.stderr)} image  {escape(note)}\n")


def packages(spec: ImageSpec, image: Image | None) -> str:
    """Where the packages of an image come from, in words."""
    wanted = spec.environment
    if wanted.reference is not None:
        return f"on {wanted.reference}"
    if wanted.dockerfile is not None:
        return f"built by {wanted.dockerfile[0]}"
    if wanted.dependencies.path is None:
        return f"on {wanted.base} alone"
    resolved = image is not None and image.lock is not None and image.lock.resolved
    return f"packages of {wanted.dependencies.path}" + (", resolved once" if resolved else "")


def planned(app: App, config: Config, snapshot: Snapshot, job: JobSpec) -> dict[str, Any]:
    """What would be built, and nothing is."""
    from mllaunch.images.builder import explained
    from mllaunch_containers import dockerfile
    from mllaunch_containers.spec import ImageError

    spec = specification(app, config, snapshot, job.project, job.workdir)
    found = app.images(config.image.registry, config.container.network).find(spec)
    asked = spec.environment.dependencies
    try:
        text = dockerfile.whole(spec, app.engine_answer.platform)
    except ImageError as error:
        raise explained(error) from error
    return {
        "state": "is there" if found else "would be built",
        "reference": found.reference if found else None,
        "digest": found.digest if found else None,
        "base": spec.environment.reference or spec.environment.base,
        "dependencies": {
            "kind": asked.kind,
            "path": asked.path,
            "pinned": asked.pinned,
            "lock_digest": asked.lock_digest,
            "notes": list(asked.notes),
        },
        "dockerfile": text,
    }


class Progress:
    """What is said while something takes long: the last line on a terminal, steps alone elsewhere. A context manager.

    what: the word that each line begins with.
    """

    def __init__(self, quiet: bool, what: str = "image") -> None:
        from mllaunch.cli import terminal

        self._quiet = quiet
        self._what = f"{what:<6}"
        self._width = terminal.width(sys.stderr)
        self._next_s = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._width is not None and not self._quiet:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def say(self, line: str) -> None:
        from mllaunch.domain.render import escape

        if self._quiet:
            return
        if self._width is None:
            if line.lower().startswith(_STEPS):
                sys.stderr.write(f"… {self._what} {escape(line)}\n")
            return
        now_s = time.monotonic()
        if now_s >= self._next_s:
            self._next_s = now_s + _EVERY_S
            # One column is left free: a full line would wrap, and could not be erased.
            sys.stderr.write(f"\r\x1b[K{f'… {self._what} {escape(line)}'[: self._width - 1]}")
            sys.stderr.flush()
