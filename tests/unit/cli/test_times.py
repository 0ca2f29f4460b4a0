from __future__ import annotations

import subprocess
import sys

import pytest

from mllaunch.cli import times

NOW = "2026-11-21T12:00:00.000Z"


@pytest.mark.parametrize(
    ("at", "shown"),
    [
        ("2026-11-21T12:00:00.000Z", "just now"),
        ("2026-11-21T11:59:57.100Z", "2s ago"),
        ("2026-11-21T11:56:30Z", "3m ago"),
        ("2026-11-21T10:00:00.000Z", "2h ago"),
        ("2026-11-16T12:00:00.000Z", "5d ago"),
        ("2026-01-02T12:00:00.000Z", "2026-01-02"),
        ("1970-01-01T00:00:00.000Z", "1970-01-01"),
        ("2026-11-21T12:00:30.000Z", "just now"),
        ("2038-01-19T03:14:08.000Z", "2038-01-19T03:14:08.000Z"),
        ("nonsense", "nonsense"),
        ("2026-11-21", "2026-11-21"),
    ],
)
def test_a_person_reads_how_long_ago_it_was(at, shown):
    assert times.ago(at, NOW) == shown


def test_a_pipe_gets_the_time_as_it_is():
    assert times.when("2026-11-21T11:56:30Z", NOW, terminal=False) == "2026-11-21T11:56:30Z"
    assert times.when("2026-11-21T11:56:30Z", NOW, terminal=True) == "3m ago"
    assert times.when(None, NOW, terminal=True) == "-"


def test_how_long_something_has_lasted_is_said_to_a_person_and_since_when_to_a_pipe():
    assert times.since("2026-11-21T11:56:30Z", NOW, terminal=False) == "since 2026-11-21T11:56:30Z"
    assert times.since("2026-11-21T11:56:30Z", NOW, terminal=True) == "for 3m 30s"


DURATIONS = {
    None: "-",
    0: "0.0s",
    0.44: "0.4s",
    9.96: "10s",
    59.4: "59s",
    59.6: "1m 00s",
    185: "3m 05s",
    3599.7: "1h 00m",
    7400: "2h 03m",
    86_399.9: "1d 00h",
    349_200: "4d 01h",
}

SIZES = {
    None: "-",
    0: "0 B",
    1023: "1023 B",
    1024: "1.0 KiB",
    1000 * 1024: "1000.0 KiB",
    1024**2 - 1: "1.0 MiB",
    1_288_490_189: "1.2 GiB",
    1024**6: "1024.0 PiB",
}


@pytest.mark.parametrize(("seconds", "shown"), DURATIONS.items())
def test_durations(seconds, shown):
    assert times.duration(seconds) == shown


@pytest.mark.parametrize(("count", "shown"), SIZES.items())
def test_sizes(count, shown):
    assert times.bytes(count) == shown


def test_the_time_that_something_took_is_said_behind_a_verb():
    assert times.between("2026-11-21T11:56:55Z", NOW) == " after 3m 05s"
    assert times.between(None, NOW) == times.between(NOW, None) == times.between("nonsense", NOW) == ""


def test_the_three_modules_import_nothing_heavy_beyond_click():
    code = (
        "import click, re, sys; before = set(sys.modules);"
        "import mllaunch.cli.terminal, mllaunch.cli.table, mllaunch.cli.times;"
        "print(*sorted(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert [name for name in loaded if not name.startswith("mllaunch")] == []
