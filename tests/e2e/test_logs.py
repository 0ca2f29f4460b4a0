"""`logs`: what a run printed, rendered and raw."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.e2e.harness import SCRIPT, Mllaunch, Repo, Result

HOSTILE = (
    b"\x1b]52;c;bWVhbg==\x07\x1b]8;;http://evil\x1b\\link\x1b[2J\x1b[31mred\x00\xff\xfe\xe2\x80\xae end\n"
)


def test_both_streams_are_merged_in_the_order_in_which_they_came(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script(
        """
        import sys, time
        for n in range(4):
            print("out", n)
            time.sleep(0.4)  # marks are at most 100 ms apart
            print("err", n, file=sys.stderr)
            time.sleep(0.4)
        """
    )
    run_id, _ = mllaunch.submit("train.py")
    mllaunch.wait_sealed(run_id)
    shown = mllaunch("logs", run_id, check=True)
    assert shown.stdout.splitlines() == [f"{kind} {n}" for n in range(4) for kind in ("out", "err")]
    assert shown.stderr == ""
    assert mllaunch("logs", "--stderr", run_id).stdout == "".join(f"err {n}\n" for n in range(4))


def test_raw_writes_the_stored_bytes_exactly(mllaunch: Mllaunch, repo: Repo) -> None:
    data = bytes(range(256)) * 5 + b"a\rb\rc\n" + HOSTILE + b"no newline at the end"
    repo.write("data.bin", data)
    repo.commit()
    mllaunch("run", "--", "sh", "-c", "cat data.bin; tac data.bin >&2")
    assert mllaunch("logs", "--raw", "@last", check=True).stdout_bytes == data
    assert len(mllaunch("logs", "--raw", "--stderr", "@last", check=True).stdout_bytes) == len(data)


@pytest.mark.parametrize("verb", ["run", "logs"])
def test_control_characters_are_escaped(
    mllaunch: Mllaunch, repo: Repo, verb: str, terminal: Callable[..., Result]
) -> None:
    repo.write("data.bin", HOSTILE)
    repo.commit()
    command = ["run", "--", "cat", "data.bin"]
    if verb == "logs":
        mllaunch(*command, check=True)
        command = ["logs", "@last"]
    for shown in (mllaunch(*command, check=True), terminal(*command)):
        assert "\\x1b]52;c;" in shown.stdout and "\\x1b[2J" in shown.stdout and "\\x00" in shown.stdout
        assert "\x1b]" not in shown.stdout and "\x1b[2J" not in shown.stdout and "\u202e" not in shown.stdout


def test_a_progress_bar_is_shown_in_its_last_state(mllaunch: Mllaunch) -> None:
    done = mllaunch("run", "--", "sh", "-c", r"printf 'epoch\n 1%%\r50%%\r100%%\nafter\n'", check=True)
    assert done.stdout == "epoch\n100%\nafter\n"
    assert mllaunch("logs", "@last").stdout == "epoch\n100%\nafter\n"


def test_a_last_line_without_an_end_is_shown(mllaunch: Mllaunch) -> None:
    mllaunch("run", "--", "printf", "one\\ntwo", check=True)
    assert mllaunch("logs", "@last").stdout == "one\ntwo\n"
    assert mllaunch("logs", "--raw", "@last").stdout == "one\ntwo"


def test_grep_keeps_the_lines_that_match_and_a_bad_expression_is_refused(mllaunch: Mllaunch) -> None:
    mllaunch("run", "--", "printf", "loss 1\\nnoise\\nloss 2\\n", check=True)
    assert mllaunch("logs", "--grep", "^loss", "@last").stdout == "loss 1\nloss 2\n"
    refused = mllaunch("logs", "--grep", "(", "@last")
    assert refused.rc == 2 and "--grep (" in refused.stderr


def test_since_keeps_what_was_printed_in_the_last_time(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script("import time\nprint('old')\ntime.sleep(4)\nprint('new')")
    mllaunch("run", "train.py", check=True)
    ended = time.monotonic()
    mllaunch.wait_sealed("@last")
    assert mllaunch("logs", "--since", "1h", "@last").stdout == "old\nnew\n"
    recent = mllaunch("logs", "--since", "3s", "@last").stdout
    # On a machine that stood still meanwhile, "new" may be older than that, too; "old" always is.
    assert recent == "new\n" or (recent == "" and time.monotonic() - ended > 2)
    assert mllaunch("logs", "--since", "10", "@last").rc == 2


def test_ranks_are_told_apart_and_can_be_asked_for(mllaunch: Mllaunch) -> None:
    mllaunch(
        "run", "--procs-per-node", "2", "--", "sh", "-c", "echo rank $RANK; echo err $RANK >&2", check=True
    )
    everything = mllaunch("logs", "@last").stdout
    assert sorted(everything.splitlines()) == ["[0] err 0", "[0] rank 0", "[1] err 1", "[1] rank 1"]
    assert sorted(mllaunch("logs", "--rank", "all", "@last").stdout) == sorted(everything)
    assert sorted(mllaunch("logs", "--rank", "1", "@last").stdout.splitlines()) == ["err 1", "rank 1"]
    assert mllaunch("logs", "--rank", "1", "--raw", "@last").stdout == "rank 1\n"
    for rank, code in (("2", 3), ("-1", 2), ("x", 2)):
        refused = mllaunch("logs", "--rank", rank, "@last")
        assert refused.rc == code and "rank" in refused.stderr


def test_as_json_each_line_says_when_and_where_it_was_printed(mllaunch: Mllaunch) -> None:
    script = 'printf "out $RANK\\033[31m\\n"; sleep 0.4; printf "err, without an end" >&2'
    run = mllaunch("run", "--procs-per-node", "2", "--", "sh", "-c", script, check=True).run_name
    shown = [json.loads(line) for line in mllaunch("logs", run, "--json", check=True).stdout.splitlines()]
    times = [line.pop("at") for line in shown]
    assert times == sorted(times) and times[-1].endswith("Z")
    texts = {"stdout": ["out 0", "out 1"], "stderr": ["err, without an end"] * 2}
    assert sorted(shown, key=lambda line: (line["stream"], line["rank"])) == [
        {"node": os.uname().nodename, "rank": rank, "stream": stream, "text": texts[stream][rank]}
        for stream in ("stderr", "stdout")
        for rank in (0, 1)
    ]
    only = mllaunch(
        "logs", run, "--json", "--rank", "1", "--stderr", "--grep", "without", "-f", check=True
    ).stdout
    assert json.loads(only)["rank"] == 1
    assert mllaunch("logs", run, "--json", "--raw").rc == 2


def test_output_appears_at_once_though_python_writes_to_no_terminal(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script(
        """
        import json, time
        for n in range(10):
            print(json.dumps({"n": n, "at": time.time()}))
            time.sleep(0.3)
        """
    )
    _, name = mllaunch.submit("train.py")
    following = mllaunch.start("logs", "-f", name)
    done = following.end()
    assert done.rc == 0
    lines = [(at, json.loads(line)) for at, line in following.lines]
    assert [line["n"] for _, line in lines] == list(range(10))
    delays = sorted(at - line["at"] for at, line in lines)
    # The median: a busy machine may hold up some of the lines, but never half of them.
    assert delays[len(delays) // 2] < 1.0, delays


def test_following_ends_with_the_run_and_shows_all_of_it(mllaunch: Mllaunch) -> None:
    _, name = mllaunch.submit("--", "sh", "-c", "for n in $(seq 2000); do echo line $n; done; echo last >&2")
    done = mllaunch("logs", "-f", name, check=True)
    lines = done.stdout.splitlines()
    assert [line for line in lines if line != "last"] == [f"line {n}" for n in range(1, 2001)]
    assert "last" in lines


def test_an_interrupt_detaches_and_the_run_goes_on(mllaunch: Mllaunch) -> None:
    _, name = mllaunch.submit("--", "sh", "-c", "echo begun; exec sleep 1000")
    following = mllaunch.start("logs", "-f", name)
    following.wait_for("begun")
    following.interrupt()
    done = following.end()
    assert done.rc == 130 and f"Detached; {name} goes on" in done.stderr
    assert mllaunch.row(name)["state"] == "running"
    mllaunch("stop", "--now", name, check=True)


def test_a_reader_that_leaves_early_is_no_error(mllaunch: Mllaunch) -> None:
    mllaunch("run", "--", "seq", "200000", check=True)
    for args in ("logs @last", "logs --raw @last", "ps"):
        piped = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{SCRIPT} {args} | head -n 1 | cut -c 1"],
            env=mllaunch.home.environ,
            cwd=mllaunch.cwd,
            capture_output=True,
            timeout=120,
        )
        assert (piped.returncode, piped.stderr) == (0, b""), args


def test_a_run_is_found_again_after_the_machine_got_another_name(mllaunch: Mllaunch, repo: Repo) -> None:
    """In a namespace of its own the machine is called differently."""
    renamed = ["unshare", "--map-root-user", "--uts", "sh", "-c", 'hostname another-name && exec "$@"', "sh"]
    if shutil.which("unshare") is None or subprocess.run([*renamed, "true"], check=False).returncode != 0:
        pytest.skip("the machine cannot be given another name here")
    repo.script("import time\nprint('early', flush=True)\ntime.sleep(2)\nprint('late')")
    run_id, _ = mllaunch.submit("train.py")
    mllaunch.wait(run_id, "running")
    command, environ = [*renamed, str(SCRIPT), "logs", run_id], mllaunch.home.environ
    for arguments in (["--follow"], [], ["--raw"]):
        shown = subprocess.run(
            [*command, *arguments], env=environ, cwd=repo.root, capture_output=True, text=True, timeout=60
        )
        assert (shown.returncode, shown.stdout) == (0, "early\nlate\n"), shown.stderr
    mllaunch.wait_sealed(run_id)
