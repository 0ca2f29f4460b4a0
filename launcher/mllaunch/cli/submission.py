"""`submit` and `run`: the way from what was asked on the command line to a started run, and to its end.

Without click: a submission that gives no options (``submit train.py --lr 3``) needs no option parser.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from mllaunch.domain.job import LOCAL, SSH
from mllaunch.domain.placement import Wish, wish
from mllaunch.errors import MllaunchError, UsageError

if TYPE_CHECKING:
    from mllaunch.config import Config
    from mllaunch.domain.job import JobSpec, Resources
    from mllaunch.domain.run import Parent, Run
    from mllaunch.domain.snapshot import Snapshot
    from mllaunch.ports import Scheduler
    from mllaunch.usecases.plan import Plan
    from mllaunch.usecases.runtime import Choice
    from mllaunch.wiring import App
    from mllaunch_agent.protocol import Checkpoint

_PLACEMENT_S = 1.0
# The options by what they hold when they are not given.
_WITH_VALUE = (
    *("gpus", "nodes", "procs_per_node", "cpus", "memory", "backend", "runtime", "image", "python", "output"),
    *("name", "note", "project", "timeout", "grace"),
)
_REPEATED = ("env", "data", "tags", "node")
_FLAGS = ("allow_dirty", "in_place", "dry_run", "as_json")


class Place(NamedTuple):
    """What a run has on one node. gpus, indices: those it leased there: UUIDs, and their numbers on the node."""

    node: str
    ranks: tuple[int, ...]
    gpus: tuple[str, ...] = ()
    indices: tuple[int, ...] = ()


class Placement(NamedTuple):
    """Where a run is, or why it waits."""

    places: tuple[Place, ...]
    waiting: str | None = None


class Submitted(NamedTuple):
    run: Run
    placement: Placement


def is_plain(arguments: list[str]) -> bool:
    """Whether the arguments of `submit` or `run` are a script and what belongs to it, without any option."""
    return bool(arguments) and not arguments[0].startswith("-")


def plain(words: list[str]) -> dict[str, Any]:
    """What is asked when no option is given: the same as the option parser makes of it."""
    asked: dict[str, Any] = dict.fromkeys(_WITH_VALUE)
    asked.update(dict.fromkeys(_REPEATED, ()))
    asked.update(dict.fromkeys(_FLAGS, False))
    asked.update(max_retries=0, words=tuple(words), is_command=False)
    return asked


def submit_and_return(early: Any, asked: dict[str, Any], *, wait: bool = False, follow: bool = False) -> int:
    """The command `submit`; its exit code."""
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd(), early.agent if early else None)
    submitted = submit(app, early, asked)
    return 0 if submitted is None else announce(app, submitted, asked, wait=wait, follow=follow)


def announce(app: App, submitted: Submitted, asked: dict[str, Any], *, wait: bool, follow: bool) -> int:
    """Say that it has started, and follow it if that was asked for; the exit code."""
    if asked["as_json"]:
        _print_document(submitted)
    else:
        print(f"Run {submitted.run.name}   follow: mllaunch logs -f {submitted.run.name}", flush=True)
    if not (wait or follow):
        return 0
    from mllaunch.cli.following import follow_run

    return follow_run(app, submitted.run.id, show=follow)


def submit_and_follow(early: Any, asked: dict[str, Any]) -> int:
    """The command `run`; its exit code."""
    from mllaunch.cli.following import follow_run
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd(), early.agent if early else None)
    submitted = submit(app, early, asked)
    if submitted is None:
        return 0
    if asked["as_json"]:
        _print_document(submitted)
    else:
        sys.stderr.write(f"Run {submitted.run.name}\n")
    return follow_run(app, submitted.run.id, show=not asked["as_json"])


def _print_document(submitted: Submitted) -> None:
    import json

    print(json.dumps(document(submitted)), flush=True)


class Launchable(NamedTuple):
    """Everything that was decided about a run that is to be started. job: as typed, with nothing masked.

    python: the interpreter, where the run is a Python script. parent, checkpoint: what it starts from, if anything.
    bring: brings that to the nodes that it is needed on.
    """

    job: JobSpec
    snapshot: Snapshot
    config: Config
    choice: Choice
    python: str | None
    parent: Parent | None = None
    checkpoint: Checkpoint | None = None
    bring: Callable[[], None] | None = None


def submit(app: App, early: Any, asked: dict[str, Any]) -> Submitted | None:
    """From the command line to a started run; None after --dry-run."""
    prepared = _prepare(app, early, asked)
    plan = prepared.plan
    what = Launchable(plan.job, prepared.snapshot, prepared.config, prepared.choice, plan.python)
    return launch(app, what, make_run(app, what, asked["name"]), asked)


def make_run(app: App, what: Launchable, name: str | None) -> Run:
    """The run as it will be recorded."""
    from mllaunch.usecases import submit as usecase

    run = usecase.make_run(what.job, what.snapshot, _submitter(app), app.environ, app.ids, app.clock)
    return run._replace(name=_valid_name(name) if name else run.name, parent=what.parent)


def launch(app: App, what: Launchable, run: Run, asked: dict[str, Any]) -> Submitted | None:
    """Make what the run needs, record it, start it; None after --dry-run."""
    from mllaunch.usecases import submit as usecase

    job, snapshot, config, engine = what.job, what.snapshot, what.config, what.choice.engine
    if job.backend == SSH and job.data:
        app.ssh.chosen.check_data([os.path.join(snapshot.repository, path) for path in job.data])
    if asked["dry_run"]:
        _show_plan(app, what, run, as_json=asked["as_json"])
        return None
    say = _Progress(asked["as_json"])
    say.code(snapshot, job.in_place)
    attempt = usecase.attempt(run)
    tree = container = None
    if engine is not None:
        from mllaunch.cli import imaging

        with _faults_of(app.home), app.building_for(job.backend):
            made = imaging.ensure(app, config, snapshot, job.project, job.workdir, quiet=asked["as_json"])
            credentials = imaging.bring(app, made, quiet=asked["as_json"]) if job.backend == SSH else None
        run = run._replace(image=made)
        container = usecase.container_spec(config.container, made, engine.socket, job.resources, credentials)
    else:
        say.process(what.choice.why, job.backend)
        with _faults_of(app.home):
            tree = _kept_tree(app, snapshot, job.in_place)
        if job.backend == SSH:
            from mllaunch.cli import environments

            run = run._replace(lock=environments.ensure(app, what, quiet=asked["as_json"]))
            if what.python is not None:
                origin = config.origins["python"] if config.python is not None else None
                app.ssh.chosen.find_interpreters(what.python, origin)
    if what.bring is not None:
        what.bring()
    # Locked before others can see the run, and take it for an abandoned one.
    scheduler = app.scheduler_of(run)
    with _faults_of(app.home), scheduler.submitting(attempt), _given_up(app, scheduler, run.id):
        run = usecase.add(app.log, run, app.ids, asked["name"])
        # What another machine has in place of this is for its own agent to fill in.
        place = usecase.Place(
            app.node, app.scheduler.folder(attempt), app.cache, app.lease_dir, app.import_path
        )
        environ = app.environ if job.backend == LOCAL else {}
        spec = usecase.task_spec(run, job, tree, place, environ, what.python, container, what.checkpoint)
        try:
            usecase.start(app.log, scheduler, app.clock, run, spec)
        except MllaunchError:
            app.follow_detached()  # which finds out what became of it
            raise
    return Submitted(run, _after_start(app, run, say))


def _after_start(app: App, run: Run, say: _Progress) -> Placement:
    """See to it that the run is found again, and say where it is."""
    from mllaunch.capture import snapshot as snapshots
    from mllaunch.usecases import submit as usecase

    try:
        if run.snapshot.git_dir != app.code.path:  # whose commits are kept there anyway
            snapshots.pin(run.snapshot)
        placement = _placement(app, run)
        say.placed(run, placement)
        app.follow_detached()  # last: its start would take the processor from the task's
    except KeyboardInterrupt as error:
        app.follow_detached()
        raise usecase.interrupted(run, "was submitted and goes on") from error
    return placement


@contextmanager
def _given_up(app: App, scheduler: Scheduler, run_id: str) -> Iterator[None]:
    """Ctrl-C gives the start up as far as it can be, and hides no run that is on record."""
    from mllaunch.usecases import submit as usecase

    try:
        yield
    except KeyboardInterrupt as error:
        said = usecase.give_up(app.log, scheduler, app.clock, run_id)
        if said is None:
            raise
        app.follow_detached()
        raise said from error


def _show_plan(app: App, what: Launchable, run: Run, *, as_json: bool) -> None:
    """What --dry-run prints."""
    from mllaunch.cli import dryrun

    job = what.job
    image = None
    if what.choice.engine is not None:
        from mllaunch.cli import imaging

        with app.building_for(job.backend):
            image = imaging.planned(app, what.config, what.snapshot, job)
    nodes = app.ssh.chosen.nodes if job.backend == SSH else [run.submitted_by_host]
    dryrun.show(run, job, nodes, image, as_json=as_json)


def _kept_tree(app: App, snapshot: Snapshot, in_place: bool) -> str | None:
    """The folder of the commit's files. A run in place is only compared with it, and does without where it must."""
    from mllaunch.capture import trees

    try:
        return trees.ensure(app.trees, snapshot)
    except MllaunchError:
        if not in_place:
            raise
        return None


@contextmanager
def _faults_of(home: str) -> Iterator[None]:
    """What the system refuses in the home (no space, no permission, no folder), said so that a person can act on it."""
    try:
        yield
    except OSError as error:
        from mllaunch.runlog.faults import os_fault

        raise os_fault(error, home) from error


class _Prepared(NamedTuple):
    snapshot: Snapshot
    plan: Plan
    config: Config
    choice: Choice


def _prepare(app: App, early: Any, asked: dict[str, Any]) -> _Prepared:
    """Configuration, runtime, code and plan; raises before anything is written."""
    from mllaunch.capture import snapshot as snapshots
    from mllaunch.usecases.plan import Look, check_script, plan
    from mllaunch.usecases.runtime import choose

    pending = early.pending() if early else snapshots.begin(app.cwd)
    found = pending.inspection.finish()
    config = app.config(found.root, _flags(asked))
    _check_backend(asked, config)
    look = Look(os.path.lexists, app.which, os.path.isdir)
    # Before anybody is asked for anything: a typing error is no reason to wait for a node that is away.
    check_script(tuple(asked["words"]), asked["is_command"], found.root, app.cwd, look)
    wanted = wish(asked["node"], config.nodes)
    resources = _resources(asked, config, wanted)
    scheduler = app.choose(config.backend, config, wanted, own_python=not config.python_is_typed)
    scheduler.check(resources, config.runtime)
    choice = choose(
        config.runtime,
        in_place=asked["in_place"],
        python=(app.ssh.chosen.python if config.backend == SSH else None) or config.python,
        image=asked["image"],
        ask=lambda: app.engine_where(config.backend),
    )
    check_network(config, choice, resources)
    if config.backend == SSH and not app.ssh.chosen.needs_python:
        config = config._replace(python=None)  # nobody uses it
    request = _request(asked, config, choice, resources, found.root, app.cwd)
    planned = plan(request, found.root, app.cwd, app.environ, look)
    allow_dirty = asked["allow_dirty"] or config.dirty == "snapshot"
    snapshot = snapshots.decide(found, allow_dirty=allow_dirty, now=app.clock.now())
    return _Prepared(snapshot, planned, config, choice)


def _flags(asked: dict[str, Any]) -> dict[str, object]:
    """Flags in the configuration's own words; what was not given is left out."""
    names = {
        "project": "project",
        "backend": "backend",
        "runtime": "runtime",
        "image.reference": "image",
        "python": "python",
        "output": "output",
        "resources.gpus": "gpus",
        "resources.cpus": "cpus",
        "resources.memory": "memory",
        "resources.nodes": "nodes",
        "resources.procs_per_node": "procs_per_node",
    }
    flags: dict[str, object] = {
        key: asked[option] for key, option in names.items() if asked[option] is not None
    }
    for key in ("env", "data"):
        if asked[key]:
            flags[key] = list(asked[key])
    return flags


def _resources(asked: dict[str, Any], config: Config, wanted: Wish) -> Resources:
    from mllaunch.domain.job import Resources

    given = config.resources
    return Resources(
        given.gpus,
        given.cpus,
        given.memory_bytes,
        # Who names three nodes wants three.
        len(wanted.names) if wanted.exactly and asked["nodes"] is None else given.nodes,
        given.procs_per_node,
    )


def _request(
    asked: dict[str, Any], config: Config, choice: Choice, resources: Resources, root: str, cwd: str
) -> Any:
    from mllaunch.config.units import parse_duration
    from mllaunch.domain.job import GRACE_S
    from mllaunch.usecases.plan import Request

    if asked["tags"] or asked["note"]:
        from mllaunch.domain.annotations import check_note, check_tags

        check_tags(asked["tags"])
        check_note(asked["note"] or "")

    def duration_s(option: str) -> float | None:
        try:
            return parse_duration(asked[option]) if asked[option] else None
        except ValueError as e:
            raise UsageError(option, f"--{option} {asked[option]}: {e}") from e

    def base(option: str) -> str:
        """Paths on the command line start where it was typed, those in a configuration at the root."""
        return cwd if asked[option] else root

    python = config.python
    if python and os.sep in python:
        python = os.path.join(base("python"), python)
    grace_s = duration_s("grace")
    return Request(
        words=tuple(asked["words"]),
        is_command=asked["is_command"],
        resources=resources,
        project=config.project,
        backend=config.backend,
        runtime=choice.runtime,
        runtime_why=choice.why,
        in_place=asked["in_place"],
        python=python,
        environment=tuple(config.env),
        data=tuple(os.path.join(base("data"), path) for path in config.data),
        output=config.output,
        note=asked["note"],
        tags=tuple(asked["tags"]),
        max_retries=asked["max_retries"],
        timeout_s=duration_s("timeout"),
        grace_s=GRACE_S if grace_s is None else grace_s,
        c_layer=config.c_layer == "on",
    )


def _wish(asked: dict[str, Any], config: Config) -> Wish:
    from mllaunch.domain.placement import wish

    return wish(asked["node"], config.nodes)


def _check_backend(asked: dict[str, Any], config: Config) -> None:
    """What is accepted by the configuration's format but not by this version, or not together."""
    if config.backend not in (LOCAL, SSH):
        raise UsageError(
            "backend", f"backend {config.backend} is not in this version", hint="--backend local or ssh"
        )
    if config.server is not None:
        raise UsageError(
            "server",
            f"server {config.server}: servers are not in this version, so the record would stay here",
            hint="mllaunch config --show-origin   says where that is set; leave it out",
        )
    if config.backend == LOCAL and asked["node"]:
        raise UsageError(
            "node", f"--node {asked['node'][0]}: the local backend has no nodes", hint="--backend ssh"
        )
    if config.backend == SSH and asked["in_place"]:
        raise UsageError("in_place", "--in-place is for this machine, not for nodes", hint="--backend local")


def check_network(config: Config, choice: Choice, resources: Resources) -> None:
    """Tasks in containers find each other on their nodes' network alone."""
    if choice.engine is not None and resources.world_size > 1 and config.container.network != "host":
        raise UsageError(
            "network",
            f"several tasks find each other on the host's network, not on {config.container.network}",
            hint="container: {network: host}, or one task that starts the others, such as torchrun",
        )


def _submitter(app: App) -> Any:
    from mllaunch.usecases.submit import Submitter

    return Submitter(app.user, os.uname().nodename)


def _valid_name(name: str) -> str:
    import re

    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", name):
        raise UsageError(
            "name",
            f"{name[:80]!r} cannot name a run",
            hint="up to 63 small letters, digits, '.', '_' and '-', beginning with a letter or digit",
        )
    return name


class _Progress:
    """The lines that a submission prints on stderr; none with --json."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def code(self, snapshot: Snapshot, in_place: bool) -> None:
        how = f"{len(snapshot.uncommitted)} uncommitted files, as a commit" if snapshot.dirty else "clean"
        branch = snapshot.branch or "detached HEAD"
        self._ok("code", f"{snapshot.commit[:7]} {branch} ({how})" + (", run in place" if in_place else ""))

    def process(self, why: str, backend: str) -> None:
        """Said where something else was possible, or expected."""
        if why != "it was asked for":
            where = "this machine" if backend == LOCAL else "the node"
            self._line("-", "image", f"none, a process of {where}: {why}")

    def placed(self, run: Run, placement: Placement) -> None:
        nodes = ", ".join(
            place.node + (":" + _ranges(place.indices) if place.indices else "") for place in placement.places
        )
        if placement.waiting:
            self._line("…", "queued", f"{nodes} via {run.spec.backend}: {placement.waiting}")
            return
        has_gpus = any(place.indices for place in placement.places)
        self._ok("placed", f"{nodes} via {run.spec.backend}" + ("" if has_gpus else " (no GPU)"))

    def _ok(self, what: str, text: str) -> None:
        from mllaunch.cli import terminal

        self._line(terminal.green("✓", sys.stderr), what, text)

    def _line(self, mark: str, what: str, text: str) -> None:
        if self._quiet:
            return
        from mllaunch.domain.render import escape

        sys.stderr.write(f"{mark} {what:<6} {escape(text)}\n")


def _placement(app: App, run: Run) -> Placement:
    """Where the run went. One that needs GPUs is looked at for a moment: it gets them, or it can say why it waits."""
    from mllaunch.ports import AttemptRef

    per_node = run.spec.resources.tasks_per_node
    deadline_s = time.monotonic() + _PLACEMENT_S
    while True:
        _, status = app.log.get(run.id)
        if run.spec.resources.gpus:
            status = app.collector.collect(run, status, events_only=True)
        places = []
        for number, node in enumerate(app.nodes_of(run, status.attempt)):
            view, _ = app.log.view(AttemptRef(run.id, status.attempt), node)
            ranks = tuple(range(number * per_node, (number + 1) * per_node))
            gpus, indices = tuple(view.get("gpus", ())), tuple(view.get("gpu_indices", ()))
            places.append(Place(node, ranks, gpus, indices))
        if not run.spec.resources.gpus or all(place.gpus for place in places):
            return Placement(tuple(places))
        if status.waiting or time.monotonic() > deadline_s:
            return Placement(tuple(places), status.waiting or "waits for GPUs")
        time.sleep(0.02)


def _ranges(numbers: Sequence[int]) -> str:
    """Numbers in order, runs of them as first-last: 0-3,6."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def document(submitted: Submitted) -> dict[str, Any]:
    """What `submit --json` prints."""
    run, placement = submitted
    places = [
        {"node": place.node, "ranks": list(place.ranks), "gpus": list(place.gpus)}
        for place in placement.places
    ]
    return {
        "run": {"id": run.id, "name": run.name, "state": "queued"},
        "snapshot": {"commit": run.snapshot.commit, "dirty": run.snapshot.dirty},
        "runtime": {"name": run.spec.runtime, "why": run.spec.runtime_why},
        "image": run.image and {"reference": run.image.reference, "digest": run.image.digest},
        "placement": None if placement.waiting else places,
    }
