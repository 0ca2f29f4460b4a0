"""``python -m bench [--quick] [--only NAME,...] [--write FILE]``: measure, and print one table."""

from __future__ import annotations

import argparse
import signal
import sys
from importlib import import_module
from pathlib import Path

from bench import table

NAMES = (
    "startup",
    "ending",
    "job",
    "commands",
    "store",
    "sampler",
    "repository",
    "collecting",
    "containers",
    "capture",
    "ssh",
)


def main() -> int:
    options = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was made for measuring is removed
    sections = []
    print(f"{table.machine()}\n\n{table.heading()}", flush=True)
    for name in options.only or NAMES:
        module = import_module(f"bench.{name}")
        rows = []
        for row in module.rows(options.quick):
            rows.append(row)
            print(table.line(row), flush=True)
        sections.append((name, str(module.__doc__).strip(), rows))
    if options.write:
        options.write.write_text(table.page(sections, quick=options.quick), encoding="utf-8")
    missed = [row for _, _, rows in sections for row in rows if row.is_met is False]
    if missed:
        print(f"\n{len(missed)} targets missed", file=sys.stderr)
    return 0  # it measures; whether a miss is ours or the machine's is for a reader to judge


def _options() -> argparse.Namespace:
    def names(text: str) -> list[str]:
        unknown = set(text.split(",")) - set(NAMES)
        if unknown:
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: choose from {', '.join(NAMES)}")
        return text.split(",")

    parser = argparse.ArgumentParser(prog="python -m bench", description="How fast it is, as ratios.")
    parser.add_argument("--quick", action="store_true", help="Small sizes and few rounds: under two minutes.")
    parser.add_argument("--only", type=names, metavar="NAME,...", help=f"Of {', '.join(NAMES)}.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="Write the table as a page, too.")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
