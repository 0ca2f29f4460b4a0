"""What `submit --dry-run` prints: the values that a submission is made of, and nothing is done."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mllaunch.domain.job import JobSpec
    from mllaunch.domain.run import Run


def show(
    run: Run, job: JobSpec, nodes: Sequence[str], image: dict[str, Any] | None, *, as_json: bool
) -> None:
    """Print what would be done. job: as typed, with nothing masked. image: of imaging.planned; None: a process."""
    per_node = job.resources.tasks_per_node
    document = {
        "job": run.spec._asdict() | {"resources": run.spec.resources._asdict()},
        "snapshot": {"commit": run.snapshot.commit, "tree": run.snapshot.tree, "dirty": run.snapshot.dirty},
        "runtime": {"name": run.spec.runtime, "why": run.spec.runtime_why},
        "image": image,
        "placement": [
            {"node": node, "ranks": list(range(number * per_node, (number + 1) * per_node))}
            for number, node in enumerate(nodes)
        ],
    }
    if as_json:
        print(json.dumps(document))
        return
    print(f"would run   {shlex.join(run.spec.argv)}")
    checkout = f"a checkout of {run.snapshot.commit[:12]}"
    place = "your working tree, uncommitted edits included" if job.in_place else checkout
    print(f"in          {place}, folder {job.workdir or '.'}")
    each = " each" if len(nodes) > 1 else ""
    print(f"on          {', '.join(nodes)} via {job.backend}, {_tasks(per_node)}{each}")
    print(f"as          {'a container' if image else 'a process'}: {run.spec.runtime_why}")
    for path in run.spec.data:
        print(f"with data   {path}")
    if image:
        packages = f", packages from {image['dependencies']['path']}" if image["dependencies"]["path"] else ""
        print(f"image       {image['state']}{packages}")
        for note in image["dependencies"]["notes"]:
            print(f"            {note}")
        print(f"Dockerfile\n{image['dockerfile']}", end="")


def _tasks(count: int) -> str:
    return f"{count} task{'s' if count != 1 else ''}"
