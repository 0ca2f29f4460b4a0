"""Start-up time is a feature: what the frequent commands must not import."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.e2e.harness import Mllaunch, Repo

HEAVY = {"ray", "fabric", "paramiko", "docker", "git", "pydantic", "rich", "numpy", "requests", "asyncio"}
PROBE = """
import atexit, json, os, sys
from mllaunch.cli import main
sys.argv[0] = "mllaunch"
main._leave = lambda code: (sys.stdout.flush(), print(json.dumps(sorted(sys.modules)), file=sys.stderr))
main.main()
"""


def modules(mllaunch: Mllaunch, *args: str) -> set[str]:
    """What a command has imported by its end, told by the interpreter that ran it."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *args],
        env=mllaunch.home.environ,
        cwd=mllaunch.cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )
    found: list[str] = json.loads(done.stderr.splitlines()[-1])
    assert "mllaunch.cli.main" in found
    return {name.partition(".")[0] for name in found}


@pytest.mark.parametrize(
    "args", [["--help"], ["--version"], ["ps"], ["ps", "-a"], ["ps", "--json"], ["ps", "--help"]]
)
def test_help_and_ps_import_nothing_heavy(mllaunch: Mllaunch, args: list[str]) -> None:
    mllaunch("run", "--", "true", check=True)
    assert not modules(mllaunch, *args) & HEAVY


@pytest.mark.parametrize("args", [["logs", "@last"], ["submit", "train.py"], ["stop", "@last"]])
def test_other_frequent_commands_import_nothing_heavy_either(
    mllaunch: Mllaunch, repo: Repo, args: list[str]
) -> None:
    repo.script("")
    mllaunch("run", "--", "true", check=True)
    assert not modules(mllaunch, *args) & HEAVY


def test_the_help_names_every_command(mllaunch: Mllaunch) -> None:
    from mllaunch.cli.main import COMMANDS

    shown = mllaunch("--help", check=True)
    assert shown.stderr == ""
    for name in COMMANDS:
        assert f"\n  {name} " in shown.stdout
    # Without a command it is a usage error, and help all the same.
    bare = mllaunch()
    assert bare.rc == 2 and "Usage: mllaunch" in bare.stdout + bare.stderr


def test_the_help_of_a_command_names_its_options(mllaunch: Mllaunch) -> None:
    shown = mllaunch("submit", "--help", check=True).stdout
    for option in ("--gpus", "--allow-dirty", "--data", "--max-retries", "--timeout", "--grace", "--dry-run"):
        assert option in shown
    for command in ("submit", "run", "resume"):
        assert "--node NAME|GROUP|LABEL=VALUE" in mllaunch(command, "--help", check=True).stdout
