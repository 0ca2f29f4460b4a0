"""`resume`: from a run that was to a new one that starts from its checkpoint."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from mllaunch.cli.imaging import Progress
from mllaunch.cli.request import check_network
from mllaunch.cli.submission import Launchable, launch, make_run
from mllaunch.cli.submitted import Submitted
from mllaunch.domain.job import SSH
from mllaunch.domain.placement import Wish, wish
from mllaunch.errors import MllaunchError, NotFound, UsageError
from mllaunch.usecases import resume as rules

if TYPE_CHECKING:
    from mllaunch.config import Config
    from mllaunch.domain.job import Resources
    from mllaunch.domain.run import Parent, Run, RunStatus
    from mllaunch.domain.snapshot import Snapshot
    from mllaunch.usecases.runtime import Choice
    from mllaunch.wiring import App
    from mllaunch_agent.protocol import Checkpoint

_LISTED = 20


def resume(app: App, reference: str, asked: dict[str, Any]) -> Submitted | None:
    """From the command line to a started run; None after --dry-run."""
    from mllaunch.cli.settling import settled
    from mllaunch.usecases.submit import secret_values
    from mllaunch_agent.redaction import mask_argv

    parent, status = settled(app, reference)
    kind = rules.kind_of(asked["from_weights"])
    rules.check_may_resume(parent, status, kind)
    wishes = _wishes(asked)
    _check_data(parent)
    is_same = (asked["code"] or ("current" if asked["from_weights"] else "same")) == "same"
    document = _document(app, parent, status)
    candidates = rules.candidates(document["outputs"])
    rules.check_has(parent, candidates, asked["step"])
    snapshot, root = _same_code(app, parent) if is_same else _current_code(app, parent, asked)
    spec = parent.spec
    config = app.config(root, {"runtime": spec.runtime, "project": spec.project, "backend": spec.backend})
    here = app.config(app.root, {})
    if here.nodes:  # as they are now, and not when the code was committed
        config = config._replace(nodes=here.nodes, ssh=here.ssh)
    named = _interpreter(parent)
    own_python = named in (
        None,
        config.interpreter(parent.snapshot.repository),
    )  # else it went before those of nodes
    config = config._replace(python=named, origins={**config.origins, "python": parent.name})
    resources = _place(app, parent, status, config, asked, own_python)
    with Progress(asked["as_json"], "from") as progress:
        found, passed = rules.choose(
            parent, candidates, asked["step"], lambda candidate: _verified(app, parent, candidate, progress)
        )
    run_id = app.ids.run_id()
    checkpoint = _checkpoint(app, run_id, parent, found, kind)
    template = config.weights_args if asked["from_weights"] else config.resume_args
    args, own = rules.arguments(parent, template, checkpoint["path"], asked["extra"])
    environment = rules.environment_of(parent, _variables(asked["env"]), app.environ)
    choice = _runtime(app, parent)
    check_network(config, choice, resources)
    job = rules.job_of(parent, args, environment, runtime_why=choice.why, resources=resources, **wishes)
    # As they are recorded and shown: with secrets masked.
    extra = mask_argv(asked["extra"], secret_values(job, app.environ))
    params = rules.params_of(parent, own, extra)
    edge = rules.parent_of(
        parent,
        kind,
        found.candidate,
        own,
        rules.differences(parent, params, own),
        () if is_same else _changed_files(app, parent, snapshot),
    )
    python = job.argv[0] if job.script is not None else None
    bring = partial(_bring, app, parent, found, asked["as_json"]) if found.remote is not None else None
    what = Launchable(job, snapshot, config, choice, python, edge, checkpoint, bring)
    run = make_run(app, what, asked["name"])._replace(id=run_id, params=params)
    if not asked["as_json"]:
        _say(edge, passed, document, rules.resized(parent, resources))
    return launch(app, what, run, asked)


def _place(
    app: App, parent: Run, status: RunStatus, config: Config, asked: dict[str, Any], own_python: bool
) -> Resources:
    """Choose where it goes, first of all to the nodes of the parent; and what it asks for there. own_python: as for
    App.choose."""
    resources = parent.spec.resources
    if asked["gpus"] is not None:
        resources = resources._replace(gpus=asked["gpus"])
    if parent.spec.backend != SSH:
        if asked["node"]:
            raise UsageError("node", f"--node {asked['node'][0]}: {parent.name} ran on this machine")
        wanted = Wish()
    else:
        before = tuple(app.nodes_of(parent, status.attempt))
        wanted = wish(asked["node"], config.nodes)._replace(preferred=before)
        if wanted.exactly:
            resources = resources._replace(nodes=len(wanted.names))
    app.choose(parent.spec.backend, config, wanted, own_python=own_python).check(resources, config.runtime)
    return resources


def _check_data(parent: Run) -> None:
    """Its data are where they were, as when it was submitted."""
    for path in parent.spec.data:
        place = os.path.join(parent.snapshot.repository, path)
        if not os.path.exists(place):
            raise NotFound(
                "data",
                f"the data of {parent.name} are not there any more: {place}",
                hint="put them there again, or a symbolic link to them",
            )


def _document(app: App, run: Run, status: RunStatus) -> dict[str, Any]:
    from mllaunch.domain.provenance import document
    from mllaunch.usecases.provenance import gather

    return document(gather(app.log, app.blobs, run, status))


# --- the checkpoint ---------------------------------------------------------------------------------------------


def _verified(app: App, run: Run, candidate: rules.Candidate, progress: Progress) -> rules.Found | str:
    """Where the checkpoint lies, once all of it was read; or what is wrong with it."""
    from mllaunch.ports import AttemptRef
    from mllaunch_agent import checkpoint

    assert candidate.sha256 is not None
    attempt = AttemptRef(run.id, candidate.attempt)
    if run.spec.backend == SSH:
        progress.say(f"reading {candidate.path} on {candidate.node}")
        original = app.ssh.examine_checkpoint(
            attempt, candidate.node, candidate.path, candidate.sha256, candidate.size_bytes
        )
        if isinstance(original, str):
            return original
        return rules.Found(candidate, original.place, original.keys, original)
    own = os.path.join(app.scheduler.folder(attempt), "work")
    work = run.snapshot.repository if run.spec.in_place else own
    place = os.path.join(work, candidate.path)  # one that was written elsewhere has an absolute path
    problem, keys = checkpoint.examine(place, candidate.sha256, candidate.size_bytes)
    return rules.Found(candidate, place, keys) if problem is None else problem


def _bring(app: App, parent: Run, found: rules.Found, quiet: bool) -> None:
    """To the nodes that have not got it."""
    from mllaunch.ports import AttemptRef

    candidate = found.candidate
    assert candidate.sha256 is not None
    attempt = AttemptRef(parent.id, candidate.attempt)
    begun: set[str] = set()
    with Progress(quiet, "from") as progress:

        def say(node: str, came: int, whole: int) -> None:
            if node not in begun:
                begun.add(node)
                progress.say(f"sending it to {node}")
            progress.say(f"{node} has {came >> 20} of {whole >> 20} MiB")

        app.ssh.bring_checkpoint(
            attempt, candidate.node, found.remote, candidate.sha256, rules.name_of(candidate), say
        )


def _checkpoint(app: App, run_id: str, parent: Run, found: rules.Found, kind: str) -> Checkpoint:
    from mllaunch.ports import AttemptRef
    from mllaunch.usecases.runtime import DOCKER
    from mllaunch_agent.container import CHECKPOINT

    name = rules.name_of(found.candidate)
    if parent.spec.runtime == DOCKER or parent.spec.backend == SSH:
        path = f"{CHECKPOINT}/{name}"  # on a node, its agent knows what stands for it there
    else:
        path = os.path.join(app.scheduler.folder(AttemptRef(run_id, 1)), "checkpoint", name)
    return {
        "kind": kind,
        "name": name,
        "source": found.place,
        "path": path,
        "sha256": found.candidate.sha256 or "",
        "verified": found.verified,
    }


# --- the code ---------------------------------------------------------------------------------------------------


def _same_code(app: App, parent: Run) -> tuple[Snapshot, str | None]:
    """The parent's snapshot, from the user's repository or else from the run log; and the folder of its files."""
    from mllaunch.capture import codestore, trees
    from mllaunch.capture.git import Git, GitFailed

    snapshot = parent.snapshot
    if parent.spec.in_place:
        raise MllaunchError(
            "in_place",
            f"{parent.name} worked in the working tree itself, so its code may have been another than its commit",
            hint="mllaunch resume --code current",
        )
    try:
        # Its files may be at hand when the repository is gone, which is to keep the commit for the new run, too.
        Git(snapshot.git_dir, git_dir=snapshot.git_dir).run("cat-file", "-e", f"{snapshot.commit}^{{tree}}")
        return snapshot, trees.ensure(app.trees, snapshot)
    except (MllaunchError, GitFailed, OSError):
        kept = snapshot._replace(git_dir=codestore.repository(app.code.path, snapshot.commit).cwd)
    if codestore.has_submodules(app.code.path, snapshot.commit):
        raise MllaunchError(
            "submodules",
            f"the repository {snapshot.repository} is gone, and the code of {parent.name} has submodules",
            hint=f"mllaunch checkout {parent.name} DIR   gives the code; commit it and submit it anew",
        )
    return kept, trees.ensure(app.trees, kept)


def _current_code(app: App, parent: Run, asked: dict[str, Any]) -> tuple[Snapshot, str]:
    """A new snapshot of the parent's repository as it is now."""
    from mllaunch.capture import snapshot as snapshots

    repository = parent.snapshot.repository
    if not os.path.isdir(repository):
        raise NotFound(
            "no_repository", f"the repository {repository} is not there any more", hint="--code same"
        )
    found = snapshots.begin(repository).inspection.finish()
    config = app.config(found.root, {})
    allow_dirty = asked["allow_dirty"] or config.dirty == "snapshot"
    snapshot = snapshots.decide(found, allow_dirty=allow_dirty, now=app.clock.now())
    script = parent.spec.script
    if script is not None and not os.path.lexists(os.path.join(found.root, script)):
        raise NotFound(
            "script", f"there is no {script} in {found.root} any more", hint="--code same, or submit it anew"
        )
    return snapshot, found.root


def _changed_files(app: App, parent: Run, snapshot: Snapshot) -> list[str]:
    """What of the code is not the parent's, each with how many lines: ``train.py +3 -1``."""
    from mllaunch.capture import codestore

    app.code.preserve(parent.snapshot)
    app.code.preserve(snapshot)
    return codestore.changed(app.code.path, parent.snapshot.commit, snapshot.commit)


# --- the rest ---------------------------------------------------------------------------------------------------


def _variables(given: tuple[str, ...]) -> list[tuple[str, str | None]]:
    pairs = [entry.partition("=") for entry in given]
    return [(name, value if equals else None) for name, equals, value in pairs]


def _wishes(asked: dict[str, Any]) -> dict[str, Any]:
    """What of the job is to be other than the parent's."""
    from mllaunch.config.units import parse_duration
    from mllaunch.domain.annotations import check_note, check_tags

    check_tags(asked["tags"])
    check_note(asked["note"] or "")
    wishes: dict[str, Any] = {"note": asked["note"], "tags": tuple(asked["tags"]), "in_place": False}
    if asked["timeout"]:
        try:
            wishes["timeout_s"] = parse_duration(asked["timeout"])
        except ValueError as e:
            raise UsageError("timeout", f"--timeout {asked['timeout']}: {e}") from e
    return wishes


def _interpreter(parent: Run) -> str | None:
    """The interpreter that was named for the parent; None if none was."""
    from mllaunch.usecases.plan import IMAGE_PYTHON

    first = parent.spec.argv[0]
    return None if parent.spec.script is None or first == IMAGE_PYTHON else first


def _runtime(app: App, parent: Run) -> Choice:
    """The parent's: its command names an interpreter that another runtime has not got."""
    from mllaunch.usecases.runtime import choose

    choice = choose(
        parent.spec.runtime,
        in_place=False,
        python=None,
        image=None,
        ask=lambda: app.engine_where(parent.spec.backend),
    )
    return choice._replace(why=f"as in {parent.name}")


def _say(edge: Parent, passed: list[str], document: dict[str, Any], resized: str | None) -> None:
    """What it starts from, and in what it is not the parent, before it starts."""
    from mllaunch.cli import terminal
    from mllaunch.domain.render import escape

    def line(mark: str, what: str, text: str) -> None:
        sys.stderr.write(f"{mark} {what:<6} {escape(text)}\n")

    step = f" at step {edge.step}" if edge.step is not None else ""
    how = "goes on from" if edge.kind == rules.RESUME else "begins with the weights of"
    line(terminal.green("✓", sys.stderr), "from", f"{how} {edge.run_name}{step}")
    line(" ", "", f"{edge.path}, sha256:{edge.sha256[:12]}, verified")
    for text in passed:
        line("-", "", f"passed over {text}")
    if resized is not None:
        line("!", "tasks", resized)
    for path in dict.fromkeys(c["path"] for c in document["code"]["changes"] if c["in_use"] == "yes"):
        line(
            "!",
            "code",
            f"{path}: an edit took effect while {edge.run_name} ran; the commit has it unedited",
        )
    for text in edge.files[:_LISTED]:
        line("!", "code", f"differs from {edge.run_name}: {text}")
    if len(edge.files) > _LISTED:
        line("!", "code", f"... and {len(edge.files) - _LISTED} more files")
    for name, before, after in edge.differences:
        line(
            "!",
            "params",
            f"{name}: {before if before is not None else '-'} → {after if after is not None else '-'}",
        )
