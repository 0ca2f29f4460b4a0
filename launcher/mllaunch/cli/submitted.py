"""What is said of a submission: the lines on stderr while it is made, and the document of --json."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mllaunch.domain.job import LOCAL

if TYPE_CHECKING:
    from mllaunch.domain.run import Run
    from mllaunch.domain.snapshot import Snapshot
    from mllaunch.wiring import App

_PLACEMENT_S = 1.0


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


class Steps:
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


def placement(app: App, run: Run) -> Placement:
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
