"""mllaunch doctor"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from mllaunch.usecases.doctor import Finding

_MARKS = {"ok": "✓", "warning": "!", "problem": "✗"}
_ASCII = {"ok": "ok", "warning": "warning", "problem": "problem"}


@click.command()
@click.option("--node", metavar="NAME", help="Check a machine of the ssh backend instead.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(node: str | None, as_json: bool) -> int:
    """Check what runs need on this machine and in this folder, and say how to mend what is missing.

    Exits with 1 if there is a problem. Warnings do not keep runs from working.
    """
    from mllaunch.usecases.doctor import PROBLEM

    findings = _of_node(node) if node is not None else _of_this_machine()
    problems = sum(finding.status == PROBLEM for finding in findings)
    if as_json:
        import json

        document = {"ok": not problems, "findings": [finding._asdict() for finding in findings]}
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        for finding in findings:
            _show(finding)
        if problems:
            sys.stderr.write(f"{problems} problem{'s' if problems > 1 else ''}\n")
    return 1 if problems else 0


def _of_this_machine() -> list[Finding]:
    from mllaunch.cli.checkup import facts
    from mllaunch.usecases.doctor import evaluate
    from mllaunch.wiring import App

    return evaluate(facts(App(os.environ, os.getcwd())))


def _of_node(name: str) -> list[Finding]:
    from mllaunch.usecases.doctor import evaluate_node
    from mllaunch.wiring import App

    return evaluate_node(name, App(os.environ, os.getcwd()).ask_node(name))


def _show(finding: Finding) -> None:
    from mllaunch.cli import terminal
    from mllaunch.domain.render import escape

    paint = {"ok": terminal.green, "warning": terminal.yellow, "problem": terminal.red}[finding.status]
    marks = _MARKS if (sys.stdout.encoding or "").lower().replace("-", "") == "utf8" else _ASCII
    sys.stdout.write(f"{paint(marks[finding.status], sys.stdout)} {finding.check}: {escape(finding.says)}\n")
    if finding.fix:
        sys.stdout.write(f"    fix: {escape(finding.fix)}\n")
