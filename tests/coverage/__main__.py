"""``python -m tests.coverage``: what the capture sees of each target, and what it does not.

Targets that need torch, safetensors, h5py, joblib or keras are run where ``--python`` has them, and left out elsewhere.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from mllaunch_agent import preload
from tests.coverage import page
from tests.coverage.running import Finding, run
from tests.coverage.target import Target
from tests.coverage.targets import TARGETS


def main(arguments: list[str] | None = None) -> int:
    asked = _parse(arguments)
    chosen = [target for target in TARGETS if asked.only is None or asked.only in target.name]
    left_out = [target for target in chosen if lacking(target, asked.python)]
    chosen = [target for target in chosen if target not in left_out]
    with tempfile.TemporaryDirectory(prefix="coverage-") as folder:
        if asked.markdown:
            findings = _print_markdown(chosen, Path(folder), asked.python)
        else:
            library = c_layer(Path(folder)) if asked.c_layer == "on" else None
            if asked.c_layer == "on" and library is None:
                print("there is no C layer here", file=sys.stderr)
                return 2
            findings = _print_table(chosen, Path(folder), asked.python, library)
    for target in left_out:
        print(f"not run: {target.name}: needs {lacking(target, asked.python)}", file=sys.stderr)
    return 1 if any(finding.problem for finding in findings) else 0


def lacking(target: Target, python: str) -> str:
    """What a target needs and this machine has not; empty if it can be run."""
    return ", ".join(need for need in target.needs if not _has(need, python))


@cache
def _has(need: str, python: str) -> bool:
    if need == "gcc":
        return shutil.which(need) is not None
    program = f"import importlib.util as u, sys; sys.exit(u.find_spec({need!r}) is None)"
    return subprocess.run([python, "-c", program]).returncode == 0


def c_layer(folder: Path) -> str | None:
    """The library of the C layer, built; None where there is no compiler."""
    return preload.build(str(folder / "c-layer"))[0]


def _print_table(chosen: Sequence[Target], folder: Path, python: str, library: str | None) -> list[Finding]:
    findings = []
    for number, target in enumerate(chosen):
        finding = run(target, _new(folder, f"{number}"), python, library)
        findings.append(finding)
        print(f"{target.name:<55} {page.verdict(finding)}", flush=True)
        for mark, things in (("missed", finding.missed), ("false", finding.false)):
            print("".join(f"    {mark}: {thing}\n" for thing in things), end="")
        if finding.problem:
            print(f"    {finding.problem}")
    seen = sum(finding.is_seen for finding in findings)
    print(f"{seen} of {len(findings)} seen, {sum(bool(f.false) for f in findings)} with false alarms")
    return findings


def _print_markdown(chosen: Sequence[Target], folder: Path, python: str) -> list[Finding]:
    """The table for the page, with the reasons that stand there."""
    known, library = page.rows(), c_layer(folder)
    findings, made = [], []
    for number, target in enumerate(chosen):
        alone = run(target, _new(folder, f"{number}"), python)
        both = run(target, _new(folder, f"{number}-c"), python, library) if library else None
        findings += [alone, both] if both else [alone]
        why = known[target.name].why if target.name in known else ""
        made.append(page.row(target.name, alone, both, why))
    print(page.table(made))
    return findings


def _new(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.coverage", description=__doc__)
    parser.add_argument("--c-layer", choices=("on", "off"), default="off")
    parser.add_argument("--only", metavar="NAME", help="targets whose names contain this")
    parser.add_argument("--markdown", action="store_true", help="print the table of docs/capture-coverage.md")
    parser.add_argument("--python", default=sys.executable, help="runs the targets")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
