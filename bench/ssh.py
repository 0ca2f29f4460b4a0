"""Runs on machines reached by SSH, beside `ssh host python t.py` over a fresh connection.

The hosts are the testbed's: namespaces of this one machine, so all sixteen of them share its processors. The job's
first line tells when it was printed, by a clock that all share; on several hosts the last one counts. A line's delay is
from when the job printed it until `mllaunch run` has shown it. The 80 addresses are ones at which nobody answers and
nothing says so; a connection is given 8 s.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from tests.e2e.harness import Started, until
from tests.faults.ssh.batch import PYTHON, configuration
from tests.testbed.hosts import Hosts, missing

from bench.measuring import Row, in_turns, ms, spread
from bench.startup import SCRIPT as FIRST_LINE
from bench.startup import first_line_ms
from bench.user import SCRIPT, User
from mllaunch.schedulers.ssh.links import CONNECT_S

_HOSTS = 20
_AT_ONCE = 16
_SILENT = 80
_MARGIN_S = 2.0
_LINES = "import time\nfor _ in range(100):\n    print(time.time_ns(), flush=True)\n    time.sleep(0.05)\n"


def rows(quick: bool) -> Iterator[Row]:
    why = missing()
    if why:
        raise SystemExit(f"bench ssh: {why}")
    with Hosts(_HOSTS, gpus=0) as hosts, User() as user:
        user.repo.write("mllaunch.yaml", configuration(hosts))
        user.repo.write("lines.py", _LINES)
        user.repo.script(FIRST_LINE, "t.py")
        yield from _starts(hosts, user, 5 if quick else 11)
        yield _delay(user)
        yield _nodes(hosts, user, 1 if quick else 5)


def _starts(hosts: Hosts, user: User, rounds: int) -> Iterator[Row]:
    for host in hosts.hosts[:_AT_ONCE]:
        (host.folder / "t.py").write_text(FIRST_LINE)

    def plain(count: int) -> float:
        commands = [
            ["ssh", "-F", str(hosts.config), host.name, f"{PYTHON} -u /host/t.py"]
            for host in hosts.hosts[:count]
        ]
        began_ns = time.time_ns()
        started = [subprocess.Popen(command, stdout=subprocess.PIPE) for command in commands]
        return max((int(each.communicate()[0]) - began_ns) / 1e6 for each in started)

    def submitted(count: int) -> float:
        named = [word for host in hosts.hosts[:count] for word in ("--node", host.name)]
        began_ns = user.mllaunch("submit", "--json", *named, "t.py")
        run = json.loads(user.output.read_text())["run"]["id"]
        outputs = [
            _stdout(host.folder, host.name, run, rank) for rank, host in enumerate(hosts.hosts[:count])
        ]
        last_ms = max(first_line_ms(output, began_ns) for output in outputs)
        user.settle()
        return last_ms

    both = in_turns(lambda: plain(1), lambda: submitted(1), rounds)
    yield Row("submit -> first line, one node, as submitted before", *both, at_most_ratio=2.5)
    both = in_turns(lambda: submitted(1), lambda: submitted(_AT_ONCE), rounds)
    yield Row(f"submit -> first line of all, {_AT_ONCE} nodes, to one node", *both, at_most_ratio=3)
    both = in_turns(lambda: plain(1), lambda: plain(_AT_ONCE), rounds)
    yield Row(f"the same by ssh alone, {_AT_ONCE} nodes, to one node", *both)
    both = in_turns(lambda: plain(_AT_ONCE), lambda: submitted(_AT_ONCE), rounds)
    yield Row(f"submit -> first line of all, {_AT_ONCE} nodes, to ssh alone", *both)


def _stdout(folder: Path, node: str, run: str, rank: int) -> Path:
    """Where a task writes it, on the host's disk."""
    return folder / "disk/share/mllaunch/node" / node / "runs" / run / "1/streams" / f"stdout.{rank}"


def _delay(user: User) -> Row:
    following = Started(
        [str(SCRIPT), "run", "--node", "node1", "lines.py"], user.home.environ, user.repo.root
    )
    assert following.end().rc == 0
    until(lambda: not user.home.processes(), "the run to be collected")
    delays = [(shown_s - int(line) / 1e9) * 1e3 for shown_s, line in following.lines]
    return Row("a line printed -> shown by `run`", None, spread(delays), at_most=500)


def _nodes(hosts: Hosts, user: User, rounds: int) -> Row:
    silent = [{"name": f"silent{n}", "host": host} for n, host in enumerate(hosts.silent(_SILENT))]
    wanted = json.loads(configuration(hosts))
    wanted["nodes"] += silent
    user.repo.write("mllaunch.yaml", json.dumps(wanted))

    def asked() -> float:
        took_ms = ms(lambda: user.mllaunch("nodes", "--json"))
        states = [entry["state"] for entry in json.loads(user.output.read_text())]
        assert states == ["up"] * _HOSTS + ["unreachable"] * _SILENT, states
        return took_ms

    took = spread(asked() for _ in range(rounds))
    what = f"nodes, of {_HOSTS + _SILENT} hosts {_SILENT} silent"
    return Row(what, None, took, at_most=(CONNECT_S + _MARGIN_S) * 1e3)
