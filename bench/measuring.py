"""What every measurement gives, and how two ways are measured in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from statistics import median
from typing import NamedTuple


class Spread(NamedTuple):
    """The median of several measurements, with the least and the most."""

    median: float
    least: float
    most: float


class Row(NamedTuple):
    """One line of the table. reference: None where the bound is a plain number. Without a bound it is for information.

    at_most_ratio: of the medians. at_most, at_least: for our median, in ``unit``.
    """

    what: str
    reference: Spread | None
    ours: Spread
    unit: str = "ms"
    at_most_ratio: float | None = None
    at_most: float | None = None
    at_least: float | None = None

    @property
    def ratio(self) -> float | None:
        return self.ours.median / self.reference.median if self.reference else None

    @property
    def is_met(self) -> bool | None:
        """None where nothing was aimed at."""
        met = []
        if self.at_most_ratio is not None and self.ratio is not None:
            met.append(self.ratio <= self.at_most_ratio)
        if self.at_most is not None:
            met.append(self.ours.median <= self.at_most)
        if self.at_least is not None:
            met.append(self.ours.median >= self.at_least)
        return all(met) if met else None


def spread(values: Iterable[float]) -> Spread:
    values = list(values)
    return Spread(median(values), min(values), max(values))


def in_turns(
    reference: Callable[[], float], ours: Callable[[], float], rounds: int, warm_up: int = 1
) -> tuple[Spread, Spread]:
    """Measure both, A B A B ..., so that whatever else the machine does meets both alike."""
    for _ in range(warm_up):
        reference()
        ours()
    pairs = [(reference(), ours()) for _ in range(rounds)]
    return spread(a for a, _ in pairs), spread(b for _, b in pairs)


def ms(act: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    start = time.perf_counter_ns()
    act()
    return (time.perf_counter_ns() - start) / 1e6
