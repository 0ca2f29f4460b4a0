from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mllaunch_agent import finishing
from mllaunch_agent.probes import processes

DATA = Path(__file__).with_name("data")


@contextmanager
def python(code: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running Python program and the first line it printed."""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().strip()
        finally:
            os.killpg(process.pid, signal.SIGKILL)


WAIT = "import sys; sys.stdin.read()"


def test_a_recorded_line_is_parsed() -> None:
    found = processes.parse_stat((DATA / "pid_stat").read_bytes())
    assert found == processes.Stat(4242, "bash", "S", 989, 3, 2, 1, 12345, 900, found.virtual_bytes)
    assert found.virtual_bytes > 0


@pytest.mark.parametrize("name", ["a) R 1 (b", "two words", "new\nline", ")", "((((", "\udcff"])
def test_a_name_may_hold_whatever_it_likes(name: str) -> None:
    line = (DATA / "pid_stat").read_bytes().replace(b"bash", name.encode("utf-8", "surrogateescape"))
    found = processes.parse_stat(line)
    assert (found.pid, found.state, found.ppid, found.start_ticks) == (4242, "S", 989, 12345)
    assert found.name.replace("\N{REPLACEMENT CHARACTER}", "\udcff") == name


def test_children_and_grandchildren_are_found_and_the_root_is_not_among_them() -> None:
    code = """if 1:
        import os, subprocess, sys, threading
        wait = [sys.executable, "-c", "print('up', flush=True); input()"]
        def start():
            child = subprocess.Popen(wait, stdout=subprocess.PIPE)
            child.stdout.readline()
            pids.append(child.pid)
        pids = []
        start()
        thread = threading.Thread(target=lambda: (start(), input()), daemon=True)
        thread.start()
        while len(pids) < 2:
            pass
        print(*pids, flush=True)
        thread.join()
    """
    with python(code) as (process, line):
        assert sorted(processes.descendants([process.pid])) == sorted(map(int, line.split()))
        assert process.pid in processes.descendants([os.getpid()])


def test_a_kernel_without_children_files_gives_the_same_answer(tmp_path: Path) -> None:
    with python(
        "import subprocess, sys; p = subprocess.Popen(['cat']); print(p.pid, flush=True); p.wait()"
    ) as (
        process,
        line,
    ):
        proc = tmp_path / "proc"
        for pid in (process.pid, int(line), os.getpid()):
            (proc / str(pid)).mkdir(parents=True)
            (proc / str(pid) / "stat").write_bytes(Path(f"/proc/{pid}/stat").read_bytes())
        assert processes.descendants([process.pid], str(proc)) == [int(line)]
        assert processes.descendants([process.pid]) == [int(line)]


def test_a_zombie_is_no_living_descendant_but_stays_in_the_tree() -> None:
    code = "import os; pid = os.fork() or os._exit(0); os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)"
    with python(code + "; print(pid, flush=True); input()") as (process, line):
        assert processes.descendants([process.pid]) == []
        ticks = processes.start_ticks(process.pid)
        assert ticks is not None
        tree = processes.tree({process.pid: ticks})
        assert tree[int(line)].is_dead
        assert not processes.is_same(int(line), tree[int(line)].start_ticks)


def test_a_main_thread_that_ended_before_the_others_is_no_zombie() -> None:
    found = processes.parse_stat((DATA / "pid_stat").read_bytes())
    assert not found._replace(state="Z", threads=2).is_dead
    assert found._replace(state="Z").is_dead


def test_a_reused_pid_is_another_process() -> None:
    ticks = processes.start_ticks(os.getpid())
    assert ticks is not None
    assert processes.is_same(os.getpid(), ticks)
    assert not processes.is_same(os.getpid(), ticks - 1)
    assert processes.tree({os.getpid(): ticks - 1}) == {}


def test_a_process_that_is_gone_is_none_everywhere() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    pid = child.pid
    assert processes.stat(pid) is None
    assert processes.start_ticks(pid) is None
    assert not processes.is_same(pid, 1)
    assert processes.user_of(pid) is None
    assert processes.command(pid) is None
    assert processes.io_bytes(pid) is None
    assert processes.pss_bytes(pid) is None
    assert processes.children(pid) == processes.children(pid, threads=1) == []
    assert processes.descendants([pid]) == []
    assert not processes.environ_has(pid, b"PATH=")


def test_the_environment_is_matched_by_whole_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARK", "run-1")
    monkeypatch.setenv("LONG", "x" * 20_000)
    with python("print('up', flush=True);" + WAIT) as (process, _):
        assert processes.environ_has(process.pid, b"MARK=run-1")
        assert processes.environ_has(process.pid, b"LONG=" + b"x" * 20_000)
        assert not processes.environ_has(process.pid, b"MARK=run-")
        assert not processes.environ_has(process.pid, b"ARK=run-1")


def test_a_command_is_one_printable_line() -> None:
    with python("# a\n# b\x1b[31m\nprint('up', flush=True);" + WAIT) as (process, _):
        command = processes.command(process.pid)
    assert command is not None
    assert command.startswith(f"{sys.executable} -c # a\\n# b\\x1b[31m")
    assert command.isprintable()


def test_a_command_shows_no_secrets() -> None:
    words = ["--api-key", "hunter2hunter2", "DB_PASSWORD=a b", "declared-value", "x=--token bearer9"]
    with subprocess.Popen(
        ["sh", "-c", "echo; read x # --auth quietly", *words], stdin=-1, stdout=-1
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        command = processes.command(child.pid, ["declared-value"])
        (described,) = finishing.describe([child.pid], ["declared-value"])
        child.kill()
    shown = "--api-key ************** DB_PASSWORD=*** ************** x=--token bearer9"
    assert command == "sh -c echo; read x # --auth ******* " + shown
    assert described == {"pid": child.pid, "command": command}


def test_no_secret_is_cut_in_two_where_a_long_command_ends() -> None:
    with subprocess.Popen(
        ["sh", "-c", "echo; read x", "x" * 4000, "y" * 60 + "declared-value" * 5], stdin=-1, stdout=-1
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        command = processes.command(child.pid, ["declared-value" * 5])
        child.kill()
    assert command is not None
    assert len(command) == 4096
    assert command.endswith("y" + "*" * 16)


def test_what_we_ourselves_do_is_seen() -> None:
    assert processes.user_of(os.getpid()) == processes.user_name(os.getuid())
    assert (processes.pss_bytes(os.getpid()) or 0) > 1 << 20
    assert processes.io_bytes(os.getpid()) is not None


def test_the_name_of_a_user_without_one_is_the_number() -> None:
    assert processes.user_name(4_000_000_123) == "4000000123"


def test_io_counts_what_reached_storage() -> None:
    assert processes.parse_io((DATA / "pid_io").read_bytes()) == (8192, 4096)
    assert processes.parse_io(b"") is None
    assert processes.parse_io(b"read_bytes:") is None
