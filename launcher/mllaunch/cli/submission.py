"""`submit` and `run`: the way from what was asked on the command line to a started run, and to its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from mllaunch.cli import request
from mllaunch.cli.submitted import Placement, Steps, Submitted, document, placement
from mllaunch.domain.job import LOCAL, SSH
from mllaunch.domain.placement import wish
from mllaunch.errors import MllaunchError

if TYPE_CHECKING:
    from mllaunch.config import Config
    from mllaunch.domain.job import JobSpec
    from mllaunch.domain.run import Parent, Run
    from mllaunch.domain.snapshot import Snapshot
    from mllaunch.ports import Scheduler
    from mllaunch.usecases.plan import Plan
    from mllaunch.usecases.runtime import Choice
    from mllaunch.wiring import App
    from mllaunch_agent.protocol import Checkpoint


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
    return run._replace(name=request.valid_name(name) if name else run.name, parent=what.parent)


def launch(app: App, what: Launchable, run: Run, asked: dict[str, Any]) -> Submitted | None:
    """Make what the run needs, record it, start it; None after --dry-run."""
    from mllaunch.usecases import submit as usecase

    job, snapshot, config, engine = what.job, what.snapshot, what.config, what.choice.engine
    if job.backend == SSH and job.data:
        app.ssh.chosen.check_data([os.path.join(snapshot.repository, path) for path in job.data])
    if asked["dry_run"]:
        _show_plan(app, what, run, as_json=asked["as_json"])
        return None
    say = Steps(asked["as_json"])
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


def _after_start(app: App, run: Run, say: Steps) -> Placement:
    """See to it that the run is found again, and say where it is."""
    from mllaunch.capture import snapshot as snapshots
    from mllaunch.usecases import submit as usecase

    try:
        if run.snapshot.git_dir != app.code.path:  # whose commits are kept there anyway
            snapshots.pin(run.snapshot)
        found = placement(app, run)
        say.placed(run, found)
        app.follow_detached()  # last: its start would take the processor from the task's
    except KeyboardInterrupt as error:
        app.follow_detached()
        raise usecase.interrupted(run, "was submitted and goes on") from error
    return found


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
    config = app.config(found.root, request.flags(asked))
    request.check_backend(asked, config)
    look = Look(os.path.lexists, app.which, os.path.isdir)
    # Before anybody is asked for anything: a typing error is no reason to wait for a node that is away.
    check_script(tuple(asked["words"]), asked["is_command"], found.root, app.cwd, look)
    wanted = wish(asked["node"], config.nodes)
    resources = request.resources(asked, config, wanted)
    scheduler = app.choose(config.backend, config, wanted, own_python=not config.python_is_typed)
    scheduler.check(resources, config.runtime)
    choice = choose(
        config.runtime,
        in_place=asked["in_place"],
        python=(app.ssh.chosen.python if config.backend == SSH else None) or config.python,
        image=asked["image"],
        ask=lambda: app.engine_where(config.backend),
    )
    request.check_network(config, choice, resources)
    if config.backend == SSH and not app.ssh.chosen.needs_python:
        config = config._replace(python=None)  # nobody uses it
    wished = request.request(asked, config, choice, resources, found.root, app.cwd)
    planned = plan(wished, found.root, app.cwd, app.environ, look)
    allow_dirty = asked["allow_dirty"] or config.dirty == "snapshot"
    snapshot = snapshots.decide(found, allow_dirty=allow_dirty, now=app.clock.now())
    return _Prepared(snapshot, planned, config, choice)


def _submitter(app: App) -> Any:
    from mllaunch.usecases.submit import Submitter

    return Submitter(app.user, os.uname().nodename)
