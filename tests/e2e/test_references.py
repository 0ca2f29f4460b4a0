"""How runs are named on the command line, and what `ps` says of them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from tests.e2e.harness import Mllaunch, Result

RFC_3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z"


@pytest.fixture
def three(mllaunch: Mllaunch) -> list[dict[str, str]]:
    """Three runs that have ended; the newest first."""
    for name in ("alpha-1", "alpha-2", "beta"):
        mllaunch("run", "--name", name, "--note", f"note of {name}", "--", "echo", name, check=True)
    rows: list[dict[str, str]] = mllaunch("ps", "--json", check=True).document
    return rows


def test_a_run_is_named_by_name_id_prefix_or_place(mllaunch: Mllaunch, three: list[dict[str, str]]) -> None:
    assert [row["name"] for row in three] == ["beta", "alpha-2", "alpha-1"]
    known = {"beta": "beta", "b": "beta", "alpha-2": "alpha-2", three[1]["id"]: "alpha-2", "@last": "beta"}
    known |= {"@{1}": "alpha-2", "@{2}": "alpha-1"}
    for reference, name in known.items():
        assert mllaunch("logs", reference, check=True).stdout == f"{name}\n", reference
    ambiguous = mllaunch("logs", "alpha")
    assert ambiguous.rc == 2 and "alpha-1" in ambiguous.stderr and "alpha-2" in ambiguous.stderr
    assert mllaunch("logs", "@{3}").rc == 3
    assert mllaunch("logs", "@latest").rc == 2
    near = mllaunch("logs", "betta")
    assert near.rc == 3 and "did you mean beta" in near.stderr


def test_ps_json_is_one_document_with_stable_keys(mllaunch: Mllaunch, three: list[dict[str, str]]) -> None:
    row = three[0]
    assert row.keys() >= {
        "id", "name", "project", "command", "state", "reason", "exit_code", "attempt", "waiting", "seal",
        "submitted_at", "started_at", "ended_at", "tags", "note",
    }  # fmt: skip
    assert (row["state"], row["exit_code"], row["reason"], row["waiting"]) == ("succeeded", 0, None, None)
    for key in ("submitted_at", "started_at", "ended_at"):
        assert re.fullmatch(RFC_3339, row[key])
    assert mllaunch("ps", "--json").stdout.count("\n") == 1


def test_ps_on_a_pipe_is_plain_and_complete_and_on_a_terminal_it_fits(
    mllaunch: Mllaunch, terminal: Callable[..., Result]
) -> None:
    note = "a note that is far longer than any terminal is wide " * 4
    mllaunch("run", "--name", "noted", "--note", note, "--", "true", check=True)
    piped = mllaunch("ps", check=True)
    assert note.strip() in piped.stdout and "\x1b" not in piped.stdout
    assert re.search(RFC_3339, piped.stdout)
    shown = terminal("ps", env={"NO_COLOR": "1"}, size=(24, 80))
    assert all(len(line) <= 80 for line in shown.stdout.splitlines())
    assert "ago" in shown.stdout or "now" in shown.stdout


def test_ps_without_runs_says_so_and_makes_nothing(mllaunch: Mllaunch) -> None:
    listed = mllaunch("ps")
    assert (listed.rc, listed.stdout) == (0, "") and "no runs" in listed.stderr
    assert mllaunch("ps", "--json", check=True).document == []
    assert not mllaunch.home.path.exists()


def test_ps_watches_until_it_is_interrupted(mllaunch: Mllaunch, terminal: Callable[..., Result]) -> None:
    mllaunch("run", "--name", "seen", "--", "true", check=True)
    shown = terminal("ps", "-w", type_after=("seen", "\x03"))
    assert shown.rc == 130 and "Traceback" not in shown.stdout


def test_ps_filters_by_project_tag_parameter_and_state(mllaunch: Mllaunch) -> None:
    mllaunch("run", "--project", "p", "--tag", "t", "--", "sh", "-c", ":", "--lr", "3e-4", check=True)
    mllaunch("run", "--", "true", check=True)
    for condition in (("--project", "p"), ("--tag", "t"), ("--param", "lr=3e-4")):
        assert len(mllaunch("ps", "--json", *condition, check=True).document) == 1
    assert mllaunch("ps", "--json", "--unfinished", check=True).document == []


def test_ps_lists_the_newest_twenty_unless_all_are_wanted(mllaunch: Mllaunch) -> None:
    for _ in range(21):
        mllaunch("submit", "--", "true", check=True)
    assert len(mllaunch("ps", "--json").document) == 20
    assert len(mllaunch("ps", "-a", "--json").document) == 21


def test_two_homes_know_nothing_of_each_other(mllaunch: Mllaunch, other_home: object) -> None:
    from tests.e2e.harness import Home

    assert isinstance(other_home, Home)
    mllaunch("run", "--name", "mine", "--", "true", check=True)
    other = Mllaunch(other_home, mllaunch.cwd)
    assert json.loads(other("ps", "--json", check=True).stdout) == []
    assert other("logs", "mine").rc == 3


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script_for_the_shell(mllaunch: Mllaunch, shell: str) -> None:
    done = mllaunch("completion", shell, check=True)
    assert "_MLLAUNCH_COMPLETE" in done.stdout and "install it with" in done.stderr


def test_bash_completes_commands_and_options(mllaunch: Mllaunch) -> None:
    env = {"_MLLAUNCH_COMPLETE": "bash_complete", "COMP_WORDS": "mllaunch subm", "COMP_CWORD": "1"}
    assert mllaunch(env=env).stdout.strip() == "plain,submit"
    env = {"_MLLAUNCH_COMPLETE": "bash_complete", "COMP_WORDS": "mllaunch submit --max", "COMP_CWORD": "2"}
    assert mllaunch(env=env).stdout.strip() == "plain,--max-retries"
