"""Ids and readable names for new runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from mllaunch.runlog.words import ADJECTIVES, ANIMALS

_NUMBERS = 99


class RandomIds:
    """The Ids of ports.py, from a clock (nanoseconds since 1970) and a source of random bytes."""

    def __init__(
        self,
        time_ns: Callable[[], int] = time.time_ns,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._time_ns = time_ns
        self._random_bytes = random_bytes
        self._last = -1

    def run_id(self) -> str:
        """A UUIDv7 (RFC 9562, section 5.7), larger than any given before, whatever the clock does."""
        milliseconds = max(0, self._time_ns() // 1_000_000) & (1 << 48) - 1
        # Milliseconds and the 74 random bits as one number. When the clock stood still or went back, the last
        # number is counted on (RFC 9562, section 6.2, method 2).
        number = milliseconds << 74 | self._random(74)
        if number >> 74 <= self._last >> 74:
            number = self._last + 1
        self._last = number
        return _uuid7(number)

    def run_name(self) -> str:
        adjective = ADJECTIVES[self._below(len(ADJECTIVES))]
        return f"{adjective}-{ANIMALS[self._below(len(ANIMALS))]}-{1 + self._below(_NUMBERS)}"

    def _random(self, bits: int) -> int:
        return int.from_bytes(self._random_bytes((bits + 7) // 8), "big") & (1 << bits) - 1

    def _below(self, bound: int) -> int:
        return self._random(64) % bound  # the bias, bound / 2**64, is beyond notice


def _uuid7(number: int) -> str:
    """48 bits of time, 4 of version, 12 random, 2 of variant, 62 random."""
    time_and_version = (number >> 74) << 16 | 7 << 12 | (number >> 62) & 0xFFF
    variant_and_rest = 0b10 << 62 | number & (1 << 62) - 1
    digits = f"{time_and_version:016x}{variant_and_rest:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
