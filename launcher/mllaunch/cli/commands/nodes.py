"""mllaunch nodes"""

from __future__ import annotations

import os
import sys
from typing import Any

import click

_HEADERS = (
    "NODE",
    "STATE",
    "GROUPS",
    "GPUS",
    "HELD BY",
    "MEMORY",
    "LOAD",
    "DRIVER",
    "DOCKER",
    "CLOCK",
    "PYTHON",
    "SEEN",
)
_GROUPS = _HEADERS.index("GROUPS")
_CLOCK_S = 1.0  # a difference that is worth a word


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME|GROUP|LABEL=VALUE]...")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def command(names: tuple[str, ...], as_json: bool) -> int:
    """Show the machines of the ssh backend: what they have, who holds their GPUs, what keeps them from being used."""
    from mllaunch.cli import table, terminal
    from mllaunch.wiring import App

    app = App(os.environ, os.getcwd())
    entries = app.look_at_nodes(names)
    if as_json:
        import json

        sys.stdout.write(json.dumps(entries) + "\n")
        return 0
    if not entries:
        sys.stderr.write("no nodes: name them under `nodes:` in mllaunch.yaml\n")
        return 0
    now = app.clock.now()
    on_terminal = terminal.is_terminal(sys.stdout)
    lines = [_HEADERS, *(_line(entry, now, on_terminal) for entry in entries)]
    if all(_groups(entry) == "-" for entry in entries):
        lines = [line[:_GROUPS] + line[_GROUPS + 1 :] for line in lines]
    sys.stdout.write(table.table(lines[1:], lines[0], terminal.width(sys.stdout)))
    _say_problems(entries)
    return 0


def _line(entry: dict[str, Any], now: str, on_terminal: bool) -> tuple[str, ...]:
    from mllaunch.cli import times

    seen = times.when(entry["last_seen"], now, terminal=on_terminal) if entry["last_seen"] else "never"
    if entry["state"] != "up":
        return (entry["name"], entry["code"], _groups(entry), *("-" for _ in range(8)), seen)
    total = len(entry["gpus"])
    offset_s = entry["clock_offset_s"]
    return (
        entry["name"],
        entry["state"],
        _groups(entry),
        f"{entry['gpus_free']} of {total} free" if total else "none",
        _holders(entry) or "-",
        f"{times.bytes(entry['free_memory_bytes'])} of {times.bytes(entry['memory_bytes'])} free",
        f"{entry['load']:.1f} of {entry['cpus']}",
        entry["driver"] or "-",
        entry["docker"]["version"] or "no",
        "ok" if abs(offset_s) < _CLOCK_S else f"{offset_s:+.1f}s",
        entry["agent"]["python"],
        seen,
    )


def _groups(entry: dict[str, Any]) -> str:
    return ", ".join([*entry["groups"], *(f"{k}={v}" for k, v in entry["labels"].items())]) or "-"


def _holders(entry: dict[str, Any]) -> str:
    words = []
    for gpu in entry["gpus"]:
        if gpu["held_by"]:
            words.append(f"{gpu['held_by']['run'] or '?'} ({gpu['held_by']['user'] or '?'})")
        words += [f"pid {stranger['pid']} of {stranger['user'] or '?'}" for stranger in gpu["used_by"]]
    words += [f"{waiter['run'] or '?'} waits" for waiter in entry["waiting"]]
    return ", ".join(dict.fromkeys(words))


def _say_problems(entries: list[dict[str, Any]]) -> None:
    from mllaunch.domain.render import escape
    from mllaunch.usecases.nodes import causes

    for cause in causes(entries):
        sys.stderr.write(f"{escape(cause.words)}\n")
        if cause.hint:
            sys.stderr.write(f"  hint: {escape(cause.hint)}\n")
