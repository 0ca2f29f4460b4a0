"""Submit a run: everything is decided first, as values; then it is written down; then it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from mllaunch.domain.image import Image
from mllaunch.domain.job import Container, JobSpec, Resources
from mllaunch.domain.params import from_args
from mllaunch.domain.run import Run, RunStatus
from mllaunch.domain.snapshot import Snapshot
from mllaunch.domain.state import State
from mllaunch.errors import Interrupted, MllaunchError, NameTaken, NotFound
from mllaunch.ports import AttemptRef, Clock, Ids, RunLog, Scheduler
from mllaunch_agent import PROTOCOL_VERSION, redaction

if TYPE_CHECKING:
    from mllaunch_agent.protocol import Checkpoint, ContainerSpec, DataLink, TaskSpec

_NAME_TRIES = 20
_PATIENCE_S = 3.0  # of whoever has pressed Ctrl-C; a node that answers takes less


class Submitter(NamedTuple):
    """Who submits, and the names that are recorded of her."""

    user: str
    host: str


class Place(NamedTuple):
    """Where the agent of the one node works. import_path: where it finds psutil and nvidia-ml-py."""

    node: str
    folder: str
    cache: str
    lease_dir: str | None
    import_path: Sequence[str]


def make_run(
    job: JobSpec, snapshot: Snapshot, submitter: Submitter, environ: Mapping[str, str], ids: Ids, clock: Clock
) -> Run:
    """The run as it is recorded: secrets masked in everything that the user typed."""
    secrets = secret_values(job, environ)
    args = tuple(redaction.mask_argv(job.args, secrets))
    recorded = job._replace(
        argv=tuple(redaction.mask_argv(job.argv, secrets)),
        args=args,
        environment=tuple(
            (k, "*" * 8 if redaction.looks_secret(k) else redaction.mask_text(v, secrets))
            for k, v in job.environment
        ),
        note=redaction.mask_text(job.note, secrets) if job.note is not None else None,
    )
    return Run(
        id=ids.run_id(),
        name=ids.run_name(),
        spec=recorded,
        snapshot=snapshot,
        params=from_args(args),
        submitted_at=clock.now(),
        submitted_by_user=submitter.user,
        submitted_by_host=submitter.host,
    )


def secret_values(job: JobSpec, environ: Mapping[str, str]) -> list[str]:
    """Values that must never be shown: of every variable in the task's environment whose name says so."""
    everything = {**environ, **dict(job.environment)}
    return sorted({value for name, value in everything.items() if value and redaction.looks_secret(name)})


def container_spec(
    wanted: Container, image: Image, socket: str, resources: Resources, credentials: str | None = None
) -> ContainerSpec:
    """What the containers of a run are made from. socket: the engine's, which has the image, or can fetch it with the
    credentials."""
    from mllaunch_containers.spec import WORKSPACE

    in_registry = "@" in image.reference
    return {
        "engine": socket,
        "image": image.id,
        "reference": image.reference if in_registry else None,
        "credentials": credentials,
        "environment": image.environment,
        "workspace": WORKSPACE,
        "network": wanted.network,
        "mounts": [{"source": s, "target": t, "writable": w} for s, t, w in wanted.mounts],
        "shm_bytes": wanted.shm_size_bytes,
        "memory_bytes": resources.memory_bytes,
        "cpus": resources.cpus,
    }


def task_spec(
    run: Run,
    job: JobSpec,
    tree: str | None,
    place: Place,
    environ: Mapping[str, str],
    python: str | None,
    container: ContainerSpec | None = None,
    checkpoint: Checkpoint | None = None,
) -> TaskSpec:
    """What the node's agent is told. job is the request as typed, with nothing masked."""
    tasks = job.resources.tasks_per_node
    root = run.snapshot.repository
    # A container starts from its image's environment: this machine's paths mean nothing in there.
    environment = {**({} if container else environ), **dict(job.environment)}
    return {
        "protocol": PROTOCOL_VERSION,
        "run_id": run.id,
        "run_name": run.name,
        "attempt": 1,
        "node": place.node,
        "node_rank": 0,
        "nodes": job.resources.nodes,
        "folder": place.folder,
        "argv": list(job.argv),
        "workdir": job.workdir,
        "tree": tree,
        "in_place": root if job.in_place else None,
        "data": [_link(root, path) for path in job.data],
        "output": job.output,
        "environment": environment,
        "secrets": secret_values(job, environ),
        "named": [name for name, _ in job.environment],
        "tasks": [{"rank": rank, "local_rank": rank} for rank in range(tasks)],
        "world_size": job.resources.world_size,
        "gpus": job.resources.gpus,
        "timeout_s": job.timeout_s,
        "grace_s": job.grace_s,
        "python": python,
        "import_path": list(place.import_path),
        "master_addr": "127.0.0.1",
        "user": run.submitted_by_user,
        "cache": place.cache,
        "lease_dir": place.lease_dir,
        "container": container,
        "checkpoint": checkpoint,
        "c_layer": job.c_layer,
        "meeting": None,
    }


def _link(root: str, path: str) -> DataLink:
    return {"path": path, "source": f"{root}/{path}"}


def add(log: RunLog, run: Run, ids: Ids, chosen: str | None) -> Run:
    """Append the run to the run log before anything starts; a name that is taken is replaced unless it was chosen."""
    for _ in range(_NAME_TRIES):
        try:
            log.add(run, RunStatus(State.PACKAGING))
            if run.image is not None:
                from mllaunch.domain.artifact import of_image

                log.add_artifacts(of_image(run))
        except NameTaken:
            if chosen is not None:
                raise
            run = run._replace(name=ids.run_name())
        else:
            return run
    raise MllaunchError("names", "no free name was found for the run", hint="give one with --name")


def start(log: RunLog, scheduler: Scheduler, clock: Clock, run: Run, spec: TaskSpec) -> None:
    """Hand the run to the scheduler. What goes wrong here is on record as the run's end, unless it may have started all
    the same: then it is for the collector to find out."""
    from mllaunch.domain.state import Reason

    try:
        scheduler.start(spec)
    except MllaunchError as e:
        if not scheduler.withdraw(attempt(run)):
            raise type(e)(
                e.code,
                f"{e.message}; {run.name} may have started all the same",
                evidence=e.evidence,
                hint=f"mllaunch show {run.name}   tells, once its node answers",
            ) from e
        reason = Reason(e.code, e.message, "launcher")
        log.set_status(run.id, RunStatus(State.FAILED, reason, ended_at=clock.now(), seal="unsealed"))
        evidence = (*e.evidence, f"{run.name} is on record as failed")
        raise type(e)(e.code, e.message, evidence=evidence, hint=e.hint) from e
    try:
        log.note_started(run.id)
    except MllaunchError:
        pass  # it has started all the same, and whoever collects from it first notes more than this


def give_up(log: RunLog, scheduler: Scheduler, clock: Clock, run_id: str) -> Interrupted | None:
    """After Ctrl-C in the midst of ``add`` and ``start``: have nothing start, if that can still be had, and return what
    is to be said. None if the run never came to be on record.
    """
    from mllaunch.domain.state import Reason

    try:
        run, _ = log.get(run_id)
    except NotFound:
        return None
    if not _is_withdrawn(scheduler, attempt(run)):
        return interrupted(run, "was submitted and goes on, or is given up by itself")
    reason = Reason("interrupted", "interrupted before the start", "user")
    log.set_status(run.id, RunStatus(State.CANCELLED, reason, ended_at=clock.now(), seal="unsealed"))
    return Interrupted(f"Interrupted; {run.name} was withdrawn, and nothing was started")


def _is_withdrawn(scheduler: Scheduler, attempt: AttemptRef) -> bool:
    """False also if nodes do not say so in time, or the user does not wait for it."""
    from threading import Thread

    found = []

    def ask() -> None:
        try:
            found.append(scheduler.withdraw(attempt))
        except MllaunchError:
            pass

    asking = Thread(target=ask, daemon=True)
    try:
        asking.start()
        asking.join(_PATIENCE_S)
    except KeyboardInterrupt:
        return False
    return found == [True]


def interrupted(run: Run, what: str) -> Interrupted:
    """What is to be said of a run after Ctrl-C. what: became of it."""
    return Interrupted(
        f"Interrupted; {run.name} {what}.   look: mllaunch show {run.name}   end: mllaunch stop {run.name}"
    )


def attempt(run: Run) -> AttemptRef:
    return AttemptRef(run.id, 1)
