"""What `prune` would free, and the freeing: runs' folders, kept trees, and all that is known of forgotten runs."""

from __future__ import annotations

import os
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from mllaunch.domain.job import SSH
from mllaunch.errors import MllaunchError, UsageError
from mllaunch.ports import RunQuery
from mllaunch.usecases import prune
from mllaunch.usecases.prune import Item, Kept, Wish

if TYPE_CHECKING:
    from mllaunch.domain.run import Run, RunStatus
    from mllaunch.schedulers.ssh.keeping import NodeKeeper, UnusedCode
    from mllaunch.wiring import App


class Plan(NamedTuple):
    """What would be freed. trees: ids of kept trees. trees_unused_since_s: Unix time; one used later stays.

    keepers: the nodes that were asked. code: by node, what nothing there uses. unused_for_s: for so long, at least.
    silent: why a node could not be asked.
    """

    items: list[Item]
    kept: list[Kept]
    trees: list[str]
    trees_bytes: int
    trees_unused_since_s: float
    keepers: dict[str, NodeKeeper]
    code: dict[str, UnusedCode]
    unused_for_s: float
    silent: dict[str, str]

    @property
    def is_empty(self) -> bool:
        return not (self.items or self.trees or self.code)

    @property
    def frees_bytes(self) -> int:
        return self.code_bytes + sum(item.frees_bytes for item in self.items)

    @property
    def code_bytes(self) -> int:
        return self.trees_bytes + sum(code.size_bytes for code in self.code.values())


def plan(app: App, names: tuple[str, ...], wish: Wish, keep_last: int) -> Plan:
    """Look at the runs (without names: at all that hold something here) and decide. Changes nothing."""
    now = app.clock.now()
    now_s = datetime.fromisoformat(now.replace("Z", "+00:00")).timestamp()
    spared = {row.id for row in app.log.rows(RunQuery(limit=keep_last))} if keep_last else set()
    references = names or (*app.scheduler.kept(), *app.ssh.disks.runs())
    runs = [
        found
        for reference in dict.fromkeys(references)
        if (found := _run(app, reference, is_named=bool(names))) is not None
    ]
    unused_for_s = wish.older_than_s or 0.0
    on_nodes = [run.id for run, _ in runs if run.spec.backend == SSH]
    configured = () if names else app.fleet(app.config(app.root, {})).addresses
    keepers, silent = app.ssh.disks.look(on_nodes, unused_for_s, configured)
    needing = _needing(app)
    items: list[Item] = []
    kept: list[Kept] = []
    for run, status in runs:
        decisions = []
        for count, node in enumerate(_places(run, keepers)):
            keeper = app.scheduler if node is None else keepers[node]
            candidate = prune.look(
                app.log, app.blobs, keeper, run, status, now=now, spared=run.id in spared
            )._replace(node=node, needed_by=needing.get(run.id))
            if count:
                candidate = candidate._replace(log_bytes=0)  # it is here, and counted with the first node
            decisions.append(prune.decide(candidate, wish))
        items += [decision for decision in decisions if isinstance(decision, Item)]
        for decision in dict.fromkeys(d for d in decisions if isinstance(d, Kept)):
            if wish.named and status.seal is None:
                raise UsageError("unfinished", f"{run.name} cannot be pruned: {decision.why}")
            kept.append(decision)
    unused_since_s = now_s - unused_for_s
    trees = _unneeded_trees(
        app, {item.run.snapshot.tree for item in items} if names else None, unused_since_s
    )
    code = {} if names else {name: k.unused for name, k in keepers.items() if k.unused.size_bytes}
    why = {name: error.message for name, error in silent.items()}
    return Plan(items, kept, trees, _size(app, trees), unused_since_s, keepers, code, unused_for_s, why)


def _places(run: Run, keepers: dict[str, NodeKeeper]) -> list[str | None]:
    """Where something of a run may lie; None is this machine."""
    if run.spec.backend != SSH:
        return [None]
    # What the run log has can be forgotten also when no node answers.
    return [node for node, keeper in keepers.items() if run.id in keeper.runs] or [None]


def _needing(app: App) -> dict[str, str]:
    """By the id of a run, the name of one that has not ended and began from its checkpoint."""
    return {run.parent.run_id: run.name for run in app.collector.unsettled() if run.parent is not None}


def _run(app: App, reference: str, *, is_named: bool) -> tuple[Run, RunStatus] | None:
    try:
        run, status = app.log.get(reference)
    except MllaunchError:
        if is_named:
            raise
        return None
    if not is_named and run.id != reference:
        return None  # a folder that is not of a run of this log is not ours to judge
    try:
        status = app.collector.collect(run, status)
    except MllaunchError:
        pass  # then it stays unsettled, and is not touched
    return run, status


def _unneeded_trees(app: App, only: set[str] | None, unused_since_s: float) -> list[str]:
    """Ids of kept trees that no run which has not settled needs. only: of these."""
    needed = _needed_trees(app)
    found = []
    for name in _kept_trees(app):
        try:
            used_at_s = os.stat(os.path.join(app.trees, name)).st_mtime
        except FileNotFoundError:
            continue
        if name not in needed and used_at_s < unused_since_s and (only is None or name in only):
            found.append(name)
    return found


def _needed_trees(app: App) -> set[str]:
    rows = app.log.rows(RunQuery(limit=-1, unsettled=True))
    return {app.log.get(row.id)[0].snapshot.tree for row in rows}


def _kept_trees(app: App) -> list[str]:
    try:
        names = os.listdir(app.trees)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if len(name) in (40, 64) and not set(name) - set("0123456789abcdef"))


def _size(app: App, trees: list[str]) -> int:
    from mllaunch_agent.node import disk_bytes

    return sum(disk_bytes(os.path.join(app.trees, name)) for name in trees)


def carry_out(app: App, plan: Plan) -> tuple[list[Kept], list[str]]:
    """Free it: (what could not be freed, what else there is to say). Each step can be repeated after a crash."""
    from mllaunch.capture import trees

    def keeper(node: str | None) -> prune.Keeper:
        return app.scheduler if node is None else plan.keepers[node]

    done, failed = prune.carry_out(plan.items, keeper)
    staying = {run.id for run, _ in failed}
    forgotten = {item.run.id: item.run for item in done if item.forget and item.run.id not in staying}
    notes = _forget(app, list(forgotten.values())) if forgotten else []
    notes += _sweep_nodes(plan)
    # Whoever submitted meanwhile has touched the tree, or is among the runs that are read here.
    keep = _needed_trees(app) | (set(_kept_trees(app)) - set(plan.trees))
    trees.sweep(app.trees, keep, used_before_s=plan.trees_unused_since_s)
    return failed, notes


def _sweep_nodes(plan: Plan) -> list[str]:
    """Free unused code on nodes; what could not be, in words."""
    notes = []
    for node in plan.code:
        try:
            if plan.keepers[node].sweep(plan.unused_for_s) is None:
                notes.append(f"{node}: code is being sent there now, so that nothing of it was freed")
        except MllaunchError as error:
            notes.append(error.message)
    return notes


def sweep(app: App) -> None:
    """Remove what killed processes left among the kept trees, and nothing else."""
    from mllaunch.capture import trees

    trees.sweep(app.trees, set(_kept_trees(app)))


def _forget(app: App, runs: list[Run]) -> list[str]:
    """Remove all that is known of runs. The run log's row goes last: while it is there, this can be repeated."""
    from mllaunch.capture import codechanges, codestore
    from mllaunch.capture.git import GitFailed

    gone = {run.id for run in runs}
    staying = _others(app, gone)
    notes = []
    for run in runs:
        app.blobs.remove(run.id)
        codechanges.forget(app.code.path, run.snapshot.commit, run.id)
        if not any(other.snapshot.commit == run.snapshot.commit for other in staying):
            try:
                codestore.forget(app.code.path, run.snapshot.commit)
            except GitFailed as error:
                notes.append(f"commit {run.snapshot.commit} stays in {app.code.path}: {error}")
            notes += _unpin(run, staying)
        if run.spec.backend == SSH:
            app.ssh.disks.forget(run.id)
        app.log.remove(run.id)
    try:
        codestore.prune(app.code.path)
    except GitFailed as error:
        notes.append(f"the code's bytes in {app.code.path} could not be freed: {error}")
    known = {run.id for run in staying}
    for run in _others(app, known):  # submitted meanwhile, perhaps with a commit that was just let go
        _pin(run)
        app.code.preserve(run.snapshot)
    return notes


def _others(app: App, without: set[str]) -> list[Run]:
    ids = [row.id for row in app.log.rows(RunQuery(limit=-1)) if row.id not in without]
    return [app.log.get(run_id)[0] for run_id in ids]


def _unpin(run: Run, staying: list[Run]) -> list[str]:
    """Let the user's repository forget the snapshot; what could not be done, in words."""
    from mllaunch.capture import snapshot as snapshots
    from mllaunch.capture.git import GitFailed

    snapshot = run.snapshot
    if not os.path.isdir(snapshot.git_dir):
        return []
    try:
        snapshots.unpin(snapshot)
    except (MllaunchError, GitFailed, OSError) as error:
        return [f"{snapshot.ref} stays in {snapshot.repository}: {error}"]
    # Commits of submodules, which others may need as well, were let go with it.
    for other in {o.snapshot.commit: o for o in staying if o.snapshot.git_dir == snapshot.git_dir}.values():
        _pin(other)
    return []


def _pin(run: Run) -> None:
    from mllaunch.capture import snapshot as snapshots
    from mllaunch.capture.git import GitFailed

    try:
        snapshots.pin(run.snapshot)
    except (MllaunchError, GitFailed, OSError):
        pass  # its repository has gone or changed; its code is in the run log
