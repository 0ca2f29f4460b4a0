"""``python -m tests.faults --kills N --seed S``: kill -9 at random moments, and see that nothing is lost.

Every choice comes from the seed. ``--replay K`` runs trial K alone; the moments are then the same, the machine's
own timing is not.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait

from tests.faults import batch, plan
from tests.faults.tally import Report, Tally

_BATCH = 16
_BATCHES_BESIDE = 2


def main(arguments: list[str] | None = None) -> int:
    asked = _parse(arguments)
    chosen = plan.VICTIMS if asked.victim == "all" else (asked.victim,)
    began = time.monotonic()
    if asked.replay is not None:
        tally = Tally()
        for _ in range(asked.times):
            tally.add(*batch.run([plan.trial(asked.seed, asked.replay, chosen)], keep=asked.keep))
    else:
        tally = attack(asked.kills, asked.seed, chosen, asked.keep)
    print(f"seed {asked.seed}, {time.monotonic() - began:.0f} s\n{tally.table()}")
    for fault in tally.all_faults:
        print(fault)
    if tally.all_faults:
        print("again: python -m tests.faults --seed", asked.seed, "--victim", asked.victim, "--replay TRIAL")
    return 1 if tally.all_faults else 0


def attack(kills: int, seed: int, chosen: tuple[str, ...] = plan.VICTIMS, keep: bool = False) -> Tally:
    """Trials from the first on until so many kills have been delivered."""
    tally = Tally()
    running: set[Future[tuple[list[Report], int, list[str]]]] = set()
    first = 0
    with ProcessPoolExecutor(_BATCHES_BESIDE) as pool:
        while True:
            # About three of four planned kills find their victim.
            expected = tally.kills + len(running) * _BATCH * 1.4
            while len(running) < _BATCHES_BESIDE and expected < kills:
                trials = [plan.trial(seed, number, chosen) for number in range(first, first + _BATCH)]
                running.add(pool.submit(batch.run, trials, keep))
                first += _BATCH
                expected += _BATCH * 1.4
            if not running:
                return tally
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                seen = len(tally.all_faults)
                tally.add(*future.result())
                for fault in tally.all_faults[seen:]:
                    print(f"\r{fault}", file=sys.stderr)
            print(
                f"\r{tally.kills} kills, {len(tally.all_faults)} faults", end="", file=sys.stderr, flush=True
            )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--victim", choices=("all", *plan.VICTIMS), default="all")
    parser.add_argument("--replay", type=int, metavar="TRIAL", help="run this trial alone")
    parser.add_argument("--times", type=int, default=1, help="how often to replay it")
    parser.add_argument("--keep", action="store_true", help="keep the folders of what went wrong")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
