"""The table as text, and as a page of the documentation."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.measuring import Row, Spread

HEADERS = ("what", "reference", "mllaunch", "ratio", "target", "verdict")


def cells(row: Row) -> tuple[str, ...]:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}x"
    verdict = {True: "met", False: "MISSED", None: ""}[row.is_met]
    return (
        row.what,
        _spread(row.reference, row.unit),
        _spread(row.ours, row.unit),
        ratio,
        _target(row),
        verdict,
    )


def _spread(values: Spread | None, unit: str) -> str:
    if values is None:
        return ""
    text = f"{_number(values.median)} {unit}"
    if values.least == values.most:
        return text
    return f"{text} ({_number(values.least)}..{_number(values.most)})"


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def _target(row: Row) -> str:
    parts = []
    if row.at_most_ratio is not None:
        parts.append(f"<= {row.at_most_ratio:g}x")
    if row.at_most is not None:
        parts.append(f"<= {row.at_most:g} {row.unit}")
    if row.at_least is not None:
        parts.append(f">= {row.at_least:g} {row.unit}")
    return ", ".join(parts)


def line(row: Row) -> str:
    """For the terminal, as soon as the row is there."""
    what, reference, ours, ratio, target, verdict = cells(row)
    return f"{what:<52} {reference:>27} {ours:>27} {ratio:>7} {target:>12} {verdict}"


def heading() -> str:
    return "{:<52} {:>27} {:>27} {:>7} {:>12} {}".format(*HEADERS)


def page(sections: Iterable[tuple[str, str, Sequence[Row]]], *, quick: bool) -> str:
    """Markdown. sections: (name, what it measures, rows)."""
    how = "`make bench`" if not quick else "`python -m bench --quick`: small sizes, few rounds"
    parts = [
        "# Benchmarks",
        "",
        f"{how}, {time.strftime('%Y-%m-%d', time.gmtime())}, on {machine()}.",
        "",
        "Every reference was measured in the same run, in turns with ours (A B A B ...). A cell holds the median",
        "and, in brackets, the least and the most; the ratio is that of the medians.",
        "",
    ]
    for name, about, rows in sections:
        parts += [f"## {name}", "", about, "", _markdown(HEADERS), _markdown(("---",) * len(HEADERS))]
        parts += [_markdown(cells(row)) for row in rows]
        parts.append("")
    return "\n".join(parts)


def _markdown(row: Sequence[str]) -> str:
    return f"| {' | '.join(row)} |"


def machine() -> str:
    memory_gib = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return (
        f"{_processor()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def _processor() -> str:
    with Path("/proc/cpuinfo").open(encoding="utf-8") as file:
        names = [text.partition(":")[2].strip() for text in file if text.startswith("model name")]
    return names[0] if names else platform.machine()
