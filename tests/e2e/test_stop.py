"""`stop`, --timeout, and what becomes of everything that a task started."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.e2e.harness import Mllaunch, Repo, until


def lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def pids_in(path: Path, count: int) -> list[int]:
    """The process ids that the task has written, once they are all there."""
    until(lambda: path.exists() and path.read_text().count("\n") >= count, f"{count} lines in {path}")
    return [int(line) for line in path.read_text().split()]


def test_a_stopped_run_is_cancelled_and_may_write_its_checkpoint_first(
    mllaunch: Mllaunch, repo: Repo
) -> None:
    repo.script(
        """
        import signal, sys, time
        def end(*_):
            print("checkpoint")
            sys.exit(0)
        signal.signal(signal.SIGTERM, end)
        print("begun")
        while True:
            time.sleep(60)
        """
    )
    started = mllaunch.start("run", "--name", "stopped", "train.py")
    started.wait_for("begun")
    stopped = mllaunch("stop", "stopped", check=True)
    assert stopped.stdout == "" and "stopped" in stopped.stderr
    assert started.end().stdout == "begun\ncheckpoint\n"
    row = mllaunch.row("stopped")
    assert (row["state"], row["reason"]["code"], row["reason"]["origin"]) == ("cancelled", "stopped", "user")
    again = mllaunch("stop", "stopped")
    assert again.rc == 1 and "ended already" in again.stderr


def test_sigterm_that_is_ignored_is_followed_by_sigkill_after_the_grace_period(
    mllaunch: Mllaunch, repo: Repo
) -> None:
    repo.script(
        """
        import signal, time
        signal.signal(signal.SIGTERM, lambda *_: print("I stay"))
        print("begun")
        while True:
            time.sleep(60)
        """
    )
    started = mllaunch.start("run", "--grace", "1s", "--name", "deaf", "train.py")
    started.wait_for("begun")
    mllaunch("stop", "deaf", check=True)
    done = started.end()
    assert done.rc == 128 + 9
    assert done.stdout == "begun\nI stay\n"
    assert mllaunch.row("deaf")["state"] == "cancelled"


def test_stop_now_does_not_wait(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script(
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('begun')\ntime.sleep(1000)"
    )
    started = mllaunch.start("run", "--grace", "1h", "--name", "deaf", "train.py")
    started.wait_for("begun")
    asked = mllaunch("stop", "deaf", check=True)
    assert "3600 s" in asked.stderr and "--now" in asked.stderr
    assert mllaunch.row("deaf")["state"] == "stopping"
    mllaunch("stop", "--now", "deaf", check=True)
    assert started.end().rc == 128 + 9
    assert mllaunch.row("deaf")["state"] == "cancelled"


def test_children_in_sessions_of_their_own_are_stopped_too(mllaunch: Mllaunch, repo: Repo) -> None:
    pids = mllaunch.home.user / "pids"
    repo.script(
        """
        import os, subprocess, time
        note = lambda: open(os.environ["HOME"] + "/pids", "a").write(f"{os.getpid()}\\n")
        note()
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    note()
                    time.sleep(1000)
                os._exit(0)
        subprocess.Popen(["setsid", "sh", "-c", 'echo $$ >> $HOME/pids; trap "" TERM; env -i sleep 1000; :'])
        time.sleep(1000)
        """
    )
    _, name = mllaunch.submit("--grace", "1s", "train.py")
    found = pids_in(pids, 5)
    assert all(map(lives, found))
    mllaunch("stop", name, check=True)
    assert mllaunch.wait(name)["state"] == "cancelled"
    assert not any(map(lives, found))


def test_a_run_that_takes_too_long_is_stopped_and_says_so(mllaunch: Mllaunch) -> None:
    done = mllaunch("run", "--timeout", "1s", "--grace", "1s", "--", "sleep", "1000")
    assert done.rc == 128 + 15
    assert "ran longer than 1 s" in done.stderr
    row = mllaunch.row(done.run_name)
    assert (row["state"], row["reason"]["code"]) == ("failed", "timeout")


def test_the_first_rank_to_fail_gives_the_exit_code_and_the_others_are_stopped(
    mllaunch: Mllaunch, repo: Repo
) -> None:
    pids = mllaunch.home.user / "pids"
    repo.script(
        """
        import os, sys, time
        open(os.environ["HOME"] + "/pids", "a").write(f"{os.getpid()}\\n")
        while open(os.environ["HOME"] + "/pids").read().count("\\n") < 3:
            time.sleep(0.02)
        if os.environ["RANK"] == "1":
            sys.exit(42)
        time.sleep(1000)
        """
    )
    done = mllaunch("run", "--procs-per-node", "3", "train.py")
    assert done.rc == 42
    assert "exited with 42 (rank 1 on " in done.stderr
    reason = mllaunch.row(done.run_name)["reason"]
    assert (reason["rank"], reason["code"]) == (1, "exit")
    assert not any(map(lives, pids_in(pids, 3)))


def test_a_daemon_that_a_script_leaves_behind_is_recorded_and_ended(mllaunch: Mllaunch, repo: Repo) -> None:
    pids = mllaunch.home.user / "pids"
    repo.script(
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                open(os.environ["HOME"] + "/pids", "a").write(f"{os.getpid()}\\n")
                print("from the daemon")
                time.sleep(1000)
            os._exit(0)
        os.wait()
        """
    )
    run_id, _ = mllaunch.submit("--grace", "2s", "train.py")
    (daemon,) = pids_in(pids, 1)
    row = mllaunch.wait_sealed(run_id)
    assert (row["state"], row["exit_code"], row["seal"]) == ("succeeded", 0, "sealed-complete")
    assert not lives(daemon)
    assert mllaunch("logs", run_id).stdout == "from the daemon\n"


def test_a_waiting_run_can_be_stopped(mllaunch: Mllaunch) -> None:
    fake = {"MLLAUNCH_FAKE_GPUS": "1"}
    _, holder = mllaunch.submit("--gpus", "1", "--", "sleep", "1000", env=fake)
    mllaunch.wait(holder, "running")
    _, waiter = mllaunch.submit("--gpus", "1", "--", "true", env=fake)
    until(lambda: mllaunch.row(waiter)["waiting"], "the second run to wait")
    mllaunch("stop", waiter, check=True)
    assert mllaunch.wait(waiter)["state"] == "cancelled"
    assert mllaunch.row(holder)["state"] == "running"
    mllaunch("stop", "--now", holder, check=True)
    mllaunch.wait(holder)


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_signals_of_the_terminal_that_submitted_reach_no_run(mllaunch: Mllaunch, number: str) -> None:
    import signal

    started = mllaunch.start("run", "--name", "apart", "--", "sh", "-c", "echo begun; sleep 2; echo done")
    started.wait_for("begun")
    os.killpg(started.process.pid, getattr(signal, number))
    started.end()
    assert mllaunch.wait("apart")["state"] == "succeeded"
    assert mllaunch("logs", "apart").stdout == "begun\ndone\n"


SAVES_SLOWLY = """
    import signal, sys, time
    def end(*_):
        print("asked")
        time.sleep(1.5)
        print("saved")
        sys.exit(1)
    signal.signal(signal.SIGTERM, end)
    print("begun")
    while True:
        time.sleep(0.05)
"""


def test_a_program_that_a_shell_started_has_the_whole_grace_period_and_is_asked_once(
    mllaunch: Mllaunch, repo: Repo
) -> None:
    repo.script(SAVES_SLOWLY)
    started = mllaunch.start(
        "run", "--grace", "20s", "--name", "shelled", "--", "sh", "-c", "python train.py; true"
    )
    started.wait_for("begun")
    mllaunch("stop", "shelled", check=True)
    assert started.end().stdout == "begun\nasked\nsaved\n"
    assert mllaunch.row("shelled")["state"] == "cancelled"


def test_a_stop_is_remembered_when_its_supervisor_dies_and_no_retry_follows(
    mllaunch: Mllaunch, repo: Repo
) -> None:
    repo.script(SAVES_SLOWLY)
    run_id, name = mllaunch.submit("--max-retries", "2", "train.py")
    folder = mllaunch.home.attempt(run_id)
    output = folder / "streams" / "stdout.0"
    until(lambda: output.exists() and b"begun" in output.read_bytes(), "the task's first line")
    mllaunch.start("stop", name)
    until(lambda: b"asked" in output.read_bytes(), "SIGTERM at the task")
    supervisor = json.loads((folder / "streams" / "events").read_text().splitlines()[0])["pid"]
    os.kill(supervisor, signal.SIGSTOP)
    until((folder / "exit-0.json").exists, "the exit record")
    os.kill(supervisor, signal.SIGKILL)
    row = mllaunch.wait_sealed(name)
    assert (row["state"], row["exit_code"], row["attempt"]) == ("cancelled", 1, 1)


def test_a_run_that_is_stopped_before_it_began_has_no_exit_code(mllaunch: Mllaunch) -> None:
    one_gpu = {"MLLAUNCH_FAKE_GPUS": "1"}
    _, holder = mllaunch.submit("--gpus", "1", "--", "sleep", "60", env=one_gpu)
    _, waiting = mllaunch.submit("--gpus", "1", "--", "true", env=one_gpu)
    mllaunch("stop", waiting, check=True)
    row = mllaunch.wait_sealed(waiting)
    assert (row["state"], row["exit_code"]) == ("cancelled", None)
    mllaunch("stop", holder, check=True)


def test_leases_that_cannot_be_taken_fail_the_run_with_the_reason(mllaunch: Mllaunch, tmp_path: Path) -> None:
    file = tmp_path / "no-folder"
    file.touch()
    variables = {"MLLAUNCH_FAKE_GPUS": "1", "MLLAUNCH_LEASE_DIR": str(file / "leases")}
    done = mllaunch("submit", "--gpus", "1", "--name", "unlucky", "--", "true", env=variables)
    if done.rc == 0:
        row = mllaunch.wait_sealed("unlucky")
        assert row["state"] == "failed" and "leases" in row["reason"]["message"]
    else:
        assert "leases" in done.stderr
