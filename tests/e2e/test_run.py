"""`run`, and `submit --wait`: what is shown, and whose exit code it is."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.e2e.harness import Mllaunch, Repo, Result

LASTING = """
    import os, time
    print("begun")
    while not os.path.exists(os.environ["HOME"] + "/go"):
        time.sleep(0.02)
    print("done")
"""


def test_run_shows_what_the_script_prints_and_exits_with_its_code(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script("import sys\nprint('hello')\nprint('oops', file=sys.stderr)\nsys.exit(7)\n")
    done = mllaunch("run", "train.py")
    assert (done.rc, done.stdout) == (7, "hello\n")
    assert "oops\n" in done.stderr and done.run_name in done.stderr


@pytest.mark.parametrize(
    ("command", "code", "state", "reason"),
    [
        ("exit 0", 0, "succeeded", None),
        ("exit 3", 3, "failed", "exit"),
        ("exit 255", 255, "failed", "exit"),
        ("kill -TERM $$", 128 + 15, "failed", "signal"),
        ("kill -KILL $$", 128 + 9, "failed", "signal"),
        ("kill -SEGV $$", 128 + 11, "failed", "signal"),
    ],
)
@pytest.mark.parametrize("verb", [("run",), ("submit", "--wait"), ("submit", "-f")])
def test_the_exit_code_is_the_runs_own(
    mllaunch: Mllaunch, verb: tuple[str, ...], command: str, code: int, state: str, reason: str | None
) -> None:
    done = mllaunch(*verb, "--", "sh", "-c", f"ulimit -c 0; {command}")
    assert done.rc == code
    row = mllaunch.row(done.run_name)
    assert (row["state"], row["exit_code"]) == (state, code)
    assert (row["reason"] and row["reason"]["code"]) == reason


def test_a_program_that_cannot_be_started_is_named(mllaunch: Mllaunch, repo: Repo) -> None:
    done = mllaunch("run", "--", "./missing-program")
    assert done.rc == 127
    assert "missing-program" in done.stderr and "No such file" in done.stderr
    repo.write("data.txt", "no program")
    repo.commit()
    done = mllaunch("run", "--", "./data.txt")
    assert done.rc == 127 and "Permission denied" in done.stderr


def test_data_goes_to_stdout_and_everything_else_to_stderr(mllaunch: Mllaunch) -> None:
    done = mllaunch("run", "--", "sh", "-c", "echo out; echo err >&2")
    assert done.stdout == "out\n"
    assert "err\n" in done.stderr and "succeeded" in done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    waited = mllaunch("submit", "--wait", "--", "sh", "-c", "echo out")
    assert re.fullmatch(r"Run ([a-z0-9-]+)   follow: mllaunch logs -f \1\n", waited.stdout)


def test_colour_is_for_terminals_and_for_those_who_force_it(
    mllaunch: Mllaunch, terminal: Callable[..., Result]
) -> None:
    assert "\x1b[" in mllaunch("run", "--", "true", env={"FORCE_COLOR": "1"}).stderr
    assert "\x1b[" in terminal("run", "--", "true").stdout
    assert "\x1b[" not in terminal("run", "--", "true", env={"NO_COLOR": "1"}).stdout


def test_ctrl_c_on_a_terminal_detaches_and_says_so_and_the_run_goes_on(
    mllaunch: Mllaunch, repo: Repo, terminal: Callable[..., Result]
) -> None:
    repo.script(LASTING)
    shown = terminal("run", "--name", "lasting", "train.py", type_after=("begun", "\x03"))
    assert shown.rc == 130
    assert "Detached; lasting goes on" in shown.stdout
    assert mllaunch.row("lasting")["state"] == "running"
    (mllaunch.home.user / "go").touch()
    assert mllaunch.wait("lasting")["state"] == "succeeded"
    assert mllaunch("logs", "lasting").stdout == "begun\ndone\n"


@pytest.mark.parametrize("verb", [("run",), ("submit", "-f"), ("submit", "--wait"), ("run", "--json")])
def test_an_interrupt_while_following_detaches(mllaunch: Mllaunch, repo: Repo, verb: tuple[str, ...]) -> None:
    repo.script(LASTING)
    started = mllaunch.start(*verb, "--name", "lasting", "train.py")
    started.wait_for("lasting")
    mllaunch.wait("lasting", "running")
    started.interrupt()
    done = started.end()
    assert done.rc == 130 and "Detached; lasting goes on" in done.stderr
    (mllaunch.home.user / "go").touch()
    assert mllaunch.wait("lasting")["state"] == "succeeded"


def test_a_killed_follower_harms_nobody(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script(LASTING)
    started = mllaunch.start("run", "--name", "lasting", "train.py")
    started.wait_for("begun")
    started.process.kill()
    assert started.end().rc == -9
    (mllaunch.home.user / "go").touch()
    assert mllaunch.wait("lasting")["state"] == "succeeded"


def test_run_json_prints_one_document_and_no_output_of_the_script(mllaunch: Mllaunch) -> None:
    done = mllaunch("run", "--json", "--", "sh", "-c", "echo hidden; exit 5")
    assert done.rc == 5
    assert done.document["run"].keys() == {"id", "name", "state"}


def test_attempts_that_follow_are_shown_one_after_the_other(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script(
        "import os, sys\nn = os.environ['MLLAUNCH_ATTEMPT']\nprint('attempt', n)\nsys.exit(n != '3')\n"
    )
    done = mllaunch("run", "--max-retries", "5", "--name", "again", "train.py")
    assert (done.rc, done.stdout) == (0, "attempt 1\nattempt 2\nattempt 3\n")
    assert "--- attempt 2" in done.stderr and "--- attempt 3" in done.stderr
    row = mllaunch.wait_sealed("again")
    assert (row["attempt"], row["state"]) == (3, "succeeded")
    for number in (1, 2, 3):
        assert mllaunch.home.attempt(row["id"], number).is_dir()
        logs = mllaunch("logs", "again", "--attempt", str(number), check=True)
        assert logs.stdout == f"attempt {number}\n"
    missing = mllaunch("logs", "again", "--attempt", "4")
    assert missing.rc == 3 and "3 attempts" in missing.stderr


def test_retries_end_with_the_last_attempts_code(mllaunch: Mllaunch) -> None:
    done = mllaunch("run", "--max-retries", "2", "--", "sh", "-c", "exit $((40 + MLLAUNCH_ATTEMPT))")
    assert done.rc == 43
    assert mllaunch.row(done.run_name)["attempt"] == 3


def test_a_stopped_run_is_not_tried_again(mllaunch: Mllaunch) -> None:
    _, name = mllaunch.submit("--max-retries", "3", "--", "sleep", "1000")
    mllaunch.wait(name, "running")
    mllaunch("stop", name, check=True)
    row = mllaunch.wait(name)
    assert (row["state"], row["attempt"]) == ("cancelled", 1)


def test_output_of_many_ranks_is_told_apart(mllaunch: Mllaunch) -> None:
    done = mllaunch("run", "--procs-per-node", "3", "--", "sh", "-c", "echo I am $RANK; echo $RANK err >&2")
    assert sorted(done.stdout.splitlines()) == [f"[{rank}] I am {rank}" for rank in range(3)]
    for rank in range(3):
        assert f"[{rank}] {rank} err" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "ascii:surrogateescape", "latin-1"])
def test_what_the_terminals_encoding_cannot_say_is_escaped_and_the_run_is_followed_to_its_end(
    mllaunch: Mllaunch, repo: Repo, encoding: str
) -> None:
    repo.script(r"import sys; sys.stdout.buffer.write('snow \u2603\n'.encode()); print('end')")
    env = {"PYTHONIOENCODING": encoding}
    assert mllaunch("run", "train.py", env=env, check=True).stdout == "snow \\u2603\nend\n"
    assert mllaunch("logs", "@last", env=env, check=True).stdout == "snow \\u2603\nend\n"
