"""Counts, memory and durations as people write them, for the configuration and for command-line flags. Pure.

Every parser takes what a person or a file gave; its ValueError says what is expected.
"""

from __future__ import annotations

_DIGITS = frozenset("0123456789")
_MEMORY_UNITS = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "tb": 1000**4,
    "kib": 1024,
    "mib": 1024**2,
    "gib": 1024**3,
    "tib": 1024**4,
}
_MEMORY_EXPECTED = 'a number of bytes or a size such as "16GiB" or "512MB"'
_MEMORY_HIGHEST = 2**63 - 1  # what the kernel's own counters hold
_DURATION_UNITS = {"d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION_EXPECTED = 'a duration such as "4h", "30m", "90s", "7d" or "1h30m"'
_DURATION_HIGHEST_S = 36500 * 86400  # a century: sums with it stay inside every date type


def shown(value: object) -> str:
    """A value for an error message: quoted, control characters escaped, at most 60 characters."""
    if value is None or isinstance(value, bool):
        text = {None: "null", True: "true", False: "false"}[value]
    elif isinstance(value, str):
        text = ascii(value[:200])  # cut before escaping, so a megabyte costs nothing
    elif isinstance(value, int) and value.bit_length() > 1000:
        text = "a number of hundreds of digits"  # str() refuses the largest ones
    elif isinstance(value, (int, float)):
        text = str(value)
    else:
        names: dict[type, str] = {dict: "a mapping", list: "a list", tuple: "a list"}
        text = names.get(type(value), f"a {type(value).__name__}")
    return text if len(text) <= 60 else text[:57] + "..."


def parse_count(value: object, lowest: int = 0, highest: int = 2**31 - 1) -> int:
    """A whole number from lowest to highest, both inclusive, from an int or a text of decimal digits."""
    number = None
    if isinstance(value, int) and not isinstance(value, bool):
        number = value
    elif isinstance(value, str):
        text = value.strip()
        if 0 < len(text) <= 18 and _DIGITS.issuperset(text):
            number = int(text)
    if number is None or not lowest <= number <= highest:
        raise ValueError(f"expected a whole number from {lowest} to {highest}, not {shown(value)}")
    return number


def parse_memory(value: object) -> int:
    """Bytes, 1 to 2**63-1, from an int or a text: "16GiB" is 16 * 1024**3, "512MB" is 512 * 1000**2.

    A number without a unit is bytes. Case and a space before the unit do not matter. A bare "16G" is refused:
    half of the world reads it as GiB.
    """
    size = None
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str):
        text = value.strip()
        number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
        unit = _MEMORY_UNITS.get(text[len(number) :].lower())
        if unit is not None:
            size = _scaled(number.rstrip(), unit)
    if size is None or not 1 <= size <= _MEMORY_HIGHEST:
        raise ValueError(f"expected {_MEMORY_EXPECTED}, not {shown(value)}")
    return size


def format_memory(size_bytes: int) -> str:
    """Exact, in the largest binary unit that divides it, else plain bytes. parse_memory reads it back."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        factor = _MEMORY_UNITS[unit.lower()]
        if size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)


def parse_duration(value: object) -> float:
    """Seconds, 0 to a century, from numbers and units, largest first, each unit once: "1h30m", "0.5s".

    A bare number is refused, because nothing says whether it means seconds, minutes or days.
    """
    seconds = _duration(value.strip()) if isinstance(value, str) else None
    if seconds is None or seconds > _DURATION_HIGHEST_S:
        raise ValueError(f"expected {_DURATION_EXPECTED}, not {shown(value)}")
    return seconds


def format_duration(seconds: float) -> str:
    """The duration in the form that parse_duration reads back, e.g. "1h30m". Exact for whole seconds."""
    if seconds != int(seconds):
        return f"{seconds:.6f}".rstrip("0") + "s"
    rest = int(seconds)
    parts = ""
    for unit, factor in _DURATION_UNITS.items():
        count, rest = divmod(rest, factor)
        if count:
            parts += f"{count}{unit}"
    return parts or "0s"


def _duration(text: str) -> float | None:
    units = list(_DURATION_UNITS)
    total = 0.0
    number = ""
    if not text or len(text) > 40:
        return None
    for character in text:
        if character not in units:
            number += character
            continue
        amount = _decimal(number)
        if amount is None:
            return None
        total += amount * _DURATION_UNITS[character]
        units = units[units.index(character) + 1 :]
        number = ""
    return None if number else total


def _scaled(number: str, unit: int) -> int | None:
    """number * unit in whole bytes, exactly: a float would lose bytes from 2**53 on."""
    whole, dot, fraction = number.partition(".")
    if _decimal(number) is None:
        return None
    size = int(whole) * unit
    return size + int(fraction) * unit // 10 ** len(fraction) if dot else size


def _decimal(number: str) -> float | None:
    """Digits with at most one point inside; no sign, exponent or underscore, which float() would take."""
    whole, dot, fraction = number.partition(".")
    valid = (
        len(number) <= 40
        and whole
        and _DIGITS.issuperset(whole)
        and _DIGITS.issuperset(fraction)
        and (fraction or not dot)
    )
    return float(number) if valid else None
