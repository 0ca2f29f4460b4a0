"""What each trial does, decided from a seed alone; pure."""

from __future__ import annotations

import random
import signal
from typing import NamedTuple

VICTIMS = ("supervisor", "shim", "collector", "submit")
_SUBMIT_S = 0.15  # how long a submission takes on a busy machine
_SEAL_S = 0.4  # from the job's end to the seal in the run log
_ENDS = (0, 0, 3, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGABRT)


class Job(NamedTuple):
    """What the job does. ends: exit code by attempt, or -N for signal N; the last one counts for all that follow."""

    seed: int
    lasts_s: float
    lines_per_s: float
    burst_bytes: int
    children: tuple[str, ...]
    ends: tuple[int, ...]


class Kill(NamedTuple):
    """SIGKILL for ``victim`` at ``at_s`` after the submission began, or as soon after that as there is one."""

    at_s: float
    victim: str


class Trial(NamedTuple):
    seed: int
    number: int
    job: Job
    gpus: int
    max_retries: int
    kills: tuple[Kill, ...]  # in order of time


def trial(seed: int, number: int, victims: tuple[str, ...] = VICTIMS) -> Trial:
    """Trial ``number`` of a seed: the same whatever came before it."""
    chance = random.Random(f"{seed}:{number}")
    job = Job(
        seed=chance.randrange(1 << 30),
        lasts_s=round(0.2 + 1.1 * chance.random() ** 2, 3),
        lines_per_s=chance.choice((30.0, 300.0, 3000.0)),
        burst_bytes=chance.randrange(1_000_000, 5_000_000) if chance.random() < 0.12 else 0,
        children=tuple(chance.choice(("session", "daemon")) for _ in range(chance.choice((0, 0, 0, 1, 2)))),
        ends=(chance.choice(_ENDS),),
    )
    max_retries = 2 if chance.random() < 0.15 else 0
    if max_retries:
        job = job._replace(ends=(3, 0), lasts_s=min(job.lasts_s, 0.5))
    life_s = _SUBMIT_S + job.lasts_s * len(job.ends) + _SEAL_S
    kills = [
        Kill(round(chance.uniform(0, life_s), 3), chance.choice(victims))
        for _ in range(chance.choice((1, 2, 2, 3)))
    ]
    if len(kills) > 1 and chance.random() < 0.3:
        # Nearly at once, which is the hardest: who would have brought the other back is gone, too.
        kills[1] = kills[1]._replace(at_s=kills[0].at_s + chance.choice((0.0, 0.005, 0.05)))
    return Trial(
        seed=seed,
        number=number,
        job=job,
        gpus=1 if chance.random() < 0.15 else 0,
        max_retries=max_retries,
        kills=tuple(sorted(kills)),
    )
