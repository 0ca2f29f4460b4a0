"""Which ranks a run has."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mllaunch.domain.run import Run


def check(run: Run, rank: int) -> None:
    """NotFound if the run has no such rank."""
    from mllaunch.errors import NotFound

    if rank >= run.spec.resources.world_size:
        raise NotFound("rank", f"{run.name} has ranks 0 to {run.spec.resources.world_size - 1}, not {rank}")
