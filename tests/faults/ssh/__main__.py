"""``python -m tests.faults.ssh --kills N --seed S``: kill the launcher while its runs are on hosts reached by SSH.

Every choice comes from the seed. ``--replay K`` runs trial K alone; the moments are then the same, the machine's
own timing is not. ``--rivals N``: then two launchers submit N runs each for the same GPUs.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.batch import run_in_folder
from tests.faults.ssh.batch import HostsBatch
from tests.faults.ssh.plan import Reached, reached
from tests.faults.ssh.rivals import compete
from tests.faults.tally import Tally
from tests.testbed.hosts import Hosts

HOSTS = 3
GPUS = 2  # on each
RIVALS_HOSTS, RIVALS_GPUS = 2, 4
_BATCH = 16


def main(arguments: list[str] | None = None) -> int:
    asked = _parse(arguments)
    faults = 0
    if asked.kills or asked.replay is not None:
        faults += _kill(asked)
    if asked.rivals:
        with (
            Hosts(RIVALS_HOSTS, RIVALS_GPUS) as hosts,
            TemporaryDirectory(prefix="mllaunch-rivals-") as folder,
        ):
            outcome = compete(hosts, RIVALS_GPUS, Path(folder), asked.rivals, asked.seed)
        print("\n".join((outcome.table(), *outcome.faults)))
        faults += len(outcome.faults)
    return 1 if faults else 0


def _kill(asked: argparse.Namespace) -> int:
    began = time.monotonic()
    with Hosts(HOSTS, GPUS) as hosts:
        if asked.replay is not None:
            tally = Tally()
            for _ in range(asked.times):
                _add(tally, [_trial(asked.seed, asked.replay, hosts)], hosts, asked.keep)
        else:
            tally = attack(hosts, asked.kills, asked.seed, asked.keep)
    print(f"seed {asked.seed}, {time.monotonic() - began:.0f} s\n{tally.table()}")
    for fault in tally.all_faults:
        print(fault)
    if tally.all_faults:
        print("again: python -m tests.faults.ssh --seed", asked.seed, "--replay TRIAL")
    return len(tally.all_faults)


def attack(hosts: Hosts, kills: int, seed: int, keep: bool = False) -> Tally:
    """Trials from the first on until so many kills have been delivered."""
    tally = Tally()
    first = 0
    while tally.kills < kills:
        # About four of five trials lose their launcher, and a third a collector.
        count = min(_BATCH, max(1, round((kills - tally.kills) / 1.1)))
        trials = [_trial(seed, number, hosts) for number in range(first, first + count)]
        seen = len(tally.all_faults)
        _add(tally, trials, hosts, keep)
        for fault in tally.all_faults[seen:]:
            print(f"\r{fault}", file=sys.stderr)
        print(f"\r{tally.kills} kills, {len(tally.all_faults)} faults", end="", file=sys.stderr, flush=True)
        first += count
    return tally


def _trial(seed: int, number: int, hosts: Hosts) -> Reached:
    return reached(seed, number, tuple(host.name for host in hosts.hosts))


def _add(tally: Tally, trials: list[Reached], hosts: Hosts, keep: bool) -> None:
    tally.add(*run_in_folder(lambda folder: HostsBatch(folder, trials, hosts), keep))


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.ssh", description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--rivals", type=int, default=0, metavar="RUNS", help="of each of two launchers")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replay", type=int, metavar="TRIAL", help="run this trial alone")
    parser.add_argument("--times", type=int, default=1, help="how often to replay it")
    parser.add_argument("--keep", action="store_true", help="keep the folders of what went wrong")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
