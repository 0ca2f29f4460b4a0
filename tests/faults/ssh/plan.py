"""What each trial on hosts does, decided from a seed alone; pure."""

from __future__ import annotations

import random
from typing import NamedTuple

from tests.faults.plan import Job, Kill, Trial

VICTIMS = ("submit", "collector")
_LOOK_S = 1.5  # from the beginning of a submission until the run is on record, on a busy machine
_START_S = 0.7  # from then until the command has ended
_SEAL_S = 2.0  # from the job's end to the seal in the run log


class Reached(NamedTuple):
    """A trial on hosts. command: submit or run. nodes: by name, in the order of ranks; a task on each.

    from_record: the moments of kills count from when the run is on record, before which nothing is at stake.
    """

    trial: Trial
    command: str
    from_record: bool
    nodes: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """Of the command, where nobody kills it: `run` exits as the job does."""
        return self.trial.job.ends[-1] if self.command == "run" else 0


def reached(seed: int, number: int, hosts: tuple[str, ...]) -> Reached:
    """Trial ``number`` of a seed: the same whatever came before it."""
    chance = random.Random(f"ssh:{seed}:{number}")
    nodes = tuple(chance.sample(hosts, chance.choice((1, 1, 1, 2, 2, len(hosts)))))
    command = chance.choice(("submit", "submit", "run"))
    retried = len(nodes) == 1 and chance.random() < 0.15
    job = Job(
        seed=chance.randrange(1 << 30),
        lasts_s=round(0.2 + 0.8 * chance.random() ** 2, 3),
        lines_per_s=chance.choice((30.0, 300.0, 3000.0)),
        burst_bytes=chance.randrange(1_000_000, 3_000_000) if chance.random() < 0.1 else 0,
        children=tuple(chance.choice(("session", "daemon")) for _ in range(chance.choice((0, 0, 0, 1, 2)))),
        # Where one rank fails the others are stopped, and have no exit code of their own.
        ends=(3, 0) if retried else (0 if len(nodes) > 1 else chance.choice((0, 0, 3)),),
    )
    from_record = chance.random() < 0.8
    life_s = (_START_S if from_record else _LOOK_S) + (
        job.lasts_s * len(job.ends) + _SEAL_S if command == "run" else 0.0
    )
    kills = [Kill(round(chance.uniform(0, life_s), 3), "submit")]
    if chance.random() < 0.5:
        # At almost the same time, which is the hardest, or at any.
        at_s = kills[0].at_s + 0.02 if chance.random() < 0.5 else chance.uniform(0, life_s + _SEAL_S)
        kills.append(Kill(round(at_s, 3), "collector"))
    trial = Trial(
        seed=seed,
        number=number,
        job=job,
        gpus=chance.choice((0, 0, 1, 2)),
        max_retries=2 if retried else 0,
        kills=tuple(sorted(kills)),
    )
    return Reached(trial, command, from_record, nodes)
