"""mllaunch prune"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mllaunch.cli.pruning import Plan
    from mllaunch.usecases.prune import Kept, Wish
    from mllaunch.wiring import App


@click.command()
@click.argument("runs", nargs=-1, metavar="[RUN]...")
@click.option(
    "--older-than",
    metavar="TIME",
    help="Only runs that ended that long ago; default: `keep` of the configuration.",
)
@click.option("--keep-last", type=click.IntRange(0), default=0, metavar="N", help="Spare the newest N runs.")
@click.option("--outputs", is_flag=True, help="Also what the runs wrote: it is kept nowhere else.")
@click.option("--forget", is_flag=True, help="Remove the named runs entirely, from the run log too.")
@click.option("--dry-run", is_flag=True, help="Say what would be freed, and free nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(runs: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool, **asked: Any) -> int:
    """Free what finished runs keep here and on nodes and the run log has: their logs' copies and checkouts of code.

    What runs wrote stays until --outputs is given. Runs that have not ended are never touched.
    """
    from mllaunch.cli import pruning
    from mllaunch.errors import UsageError
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd())
    wish = _wish(app, runs, asked)
    plan = pruning.plan(app, runs, wish, asked["keep_last"])
    if not as_json:
        _say_plan(plan)
    if not dry_run:
        pruning.sweep(app)
    if dry_run or plan.is_empty:
        if as_json:
            _print_document(plan, done=False, failed=[], notes=[])
        return 0
    if not yes:
        if as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise UsageError(
                "not_confirmed", "nobody is here to be asked", hint="--yes to free it, --dry-run to look only"
            )
        if not _confirmed("Free it?"):
            sys.stderr.write("nothing was freed\n")
            return 1
    failed, notes = pruning.carry_out(app, plan)
    if as_json:
        _print_document(plan, done=True, failed=failed, notes=notes)
    else:
        _say_result(plan, failed, notes)
    return 1 if failed else 0


def _confirmed(question: str) -> bool:
    """Ask on the terminal; anything but a yes is a no."""
    # Not input(), which click.confirm() uses, too: it drops a Ctrl-C that comes while it flushes the question.
    sys.stderr.write(f"{question} [y/N]: ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _wish(app: App, runs: tuple[str, ...], asked: dict[str, Any]) -> Wish:
    from mllaunch.config.units import parse_duration
    from mllaunch.errors import UsageError
    from mllaunch.usecases.prune import Wish

    if asked["forget"] and not runs:
        raise UsageError("forget", "--forget needs the runs by name", hint="mllaunch ps -a lists them")
    if runs and (asked["older_than"] or asked["keep_last"]):
        raise UsageError("named", "--older-than and --keep-last select runs; these are named already")
    age: float | None
    if asked["older_than"]:
        try:
            age = parse_duration(asked["older_than"])
        except ValueError as error:
            raise UsageError("older_than", f"--older-than {asked['older_than']}: {error}") from error
    else:
        age = None if runs else app.config(app.root, {}).keep_s
    return Wish(age, bool(runs), asked["outputs"], asked["forget"])


def _say_plan(plan: Plan) -> None:
    from mllaunch.cli import table, terminal, times
    from mllaunch.domain.render import escape

    rows = []
    for item in plan.items:
        what = "everything" if item.forget else "logs' copies"
        what += " and outputs" if item.outputs and not item.forget else ""
        what += f" on {item.node}" if item.node else ""
        what += ", and what the run log has of it" if item.forget else ""
        stays = (
            f"outputs stay: {times.bytes(item.keeps_bytes)} (--outputs frees them)"
            if item.keeps_bytes
            else ""
        )
        rows.append((item.run.name, times.bytes(item.frees_bytes), what, stays))
    if plan.trees:
        many = f"{len(plan.trees)} kept tree{'s' if len(plan.trees) > 1 else ''}"
        rows.append((many, times.bytes(plan.trees_bytes), "code, which the run log has", ""))
    for node, code in plan.code.items():
        counts = ((code.trees, "tree"), (code.contents, "file"), (code.agents, "agent"))
        parts = ", ".join(f"{count} {word}{'s' if count > 1 else ''}" for count, word in counts if count)
        rows.append((f"code on {node}", times.bytes(code.size_bytes), parts or "remains", ""))
    if rows:
        sys.stdout.write(table.table(rows, ("RUN", "FREES", "WHAT", "STAYS"), terminal.width(sys.stdout)))
        sys.stdout.write(f"frees {times.bytes(plan.frees_bytes)} in all\n")
    else:
        sys.stderr.write("nothing to free\n")
    _say_kept(plan.kept, "stays")
    for why in plan.silent.values():
        sys.stderr.write(f"warning: {escape(why)}; what lies there stays\n")


def _say_kept(kept: list[Kept], verb: str) -> None:
    from mllaunch.domain.render import escape

    for run, why in kept:
        sys.stderr.write(f"{escape(run.name)} {verb}: {escape(why)}\n")


def _say_result(plan: Plan, failed: list[Kept], notes: list[str]) -> None:
    from mllaunch.cli import times
    from mllaunch.domain.render import escape

    _say_kept(failed, "could not be freed")
    for note in notes:
        sys.stderr.write(f"warning: {escape(note)}\n")
    lost = {run.id for run, _ in failed}
    freed = plan.code_bytes + sum(item.frees_bytes for item in plan.items if item.run.id not in lost)
    sys.stderr.write(f"freed {times.bytes(freed)}\n")


def _print_document(plan: Plan, *, done: bool, failed: list[Kept], notes: list[str]) -> None:
    import json

    lost = {run.id: why for run, why in failed}
    runs = [
        {
            "id": item.run.id,
            "name": item.run.name,
            "node": item.node,
            "frees_bytes": item.frees_bytes,
            "outputs": item.outputs,
            "forget": item.forget,
            "outputs_kept_bytes": item.keeps_bytes,
            "problem": lost.get(item.run.id),
        }
        for item in plan.items
    ]
    kept = [{"id": run.id, "name": run.name, "why": why} for run, why in plan.kept]
    document = {
        "done": done,
        "runs": runs,
        "kept": kept,
        "trees": plan.trees,
        "trees_bytes": plan.trees_bytes,
        "nodes": [{"node": node, **code._asdict()} for node, code in plan.code.items()],
        "unreachable": [{"node": node, "problem": why} for node, why in plan.silent.items()],
        "frees_bytes": plan.frees_bytes,
        "notes": notes,
    }
    sys.stdout.write(json.dumps(document) + "\n")
