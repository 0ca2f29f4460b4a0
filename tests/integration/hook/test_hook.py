"""The hook in real interpreters: what it notes, and that the program cannot tell that it is there."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import pytest

from mllaunch_agent import tracing
from mllaunch_agent.tracing.ledger import Ledger
from tests.integration.hook.conftest import Traced


def others() -> list[str]:
    """The Pythons that this machine has, ours first; one that is too old for the hook must run all the same."""
    found = sorted((Path.home() / ".pyenv" / "versions").glob("*/bin/python"))
    return [sys.executable, *(str(path) for path in found if not path.samefile(sys.executable))]


PYTHONS = others()
NEW_PYTHONS = [path for path in PYTHONS if not any(f"/{old}." in path for old in ("2.7", "3.6", "3.7"))]
every_python = pytest.mark.parametrize("python", NEW_PYTHONS, ids=lambda path: path.split("/")[-3])


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


# --- what is noted ------------------------------------------------------------------------------------------


@every_python
def test_a_process_says_who_it_is_and_what_it_takes_reads_and_writes(traced: Traced, python: str) -> None:
    traced.python = python
    traced.write("part.py", "x = 1\n")
    traced.write("in.txt", "text")
    script = "import os, part\nopen('in.txt').close()\nopen('out.bin', 'w').close()\n"
    script += "os.rename('out.bin', 'there')\nopen('gone', 'w').close()\nos.remove('gone')\n"
    traced.output(script)

    first, *_ = found = traced.records()
    layer, _, parent, rank, executable, version, cwd, *argv = first.fields
    assert (first.kind, layer, parent, rank, cwd) == ("P", "python", str(os.getpid()), "3", str(traced.code))
    assert argv[-1] == "main.py"
    assert subprocess.check_output([executable, "-c", "import platform as p; print(p.python_version())"]) == (
        version.encode() + b"\n"
    )
    root = str(traced.code)
    code = {record.fields for record in found if record.kind == "C"}
    assert code == {
        ("run", blob(script.encode()), root + "/main.py"),
        ("source", blob(b"x = 1\n"), root + "/part.py"),
    }
    assert {"in.txt", "main.py"} <= traced.paths("R")
    assert traced.paths("W") == {"out.bin", "gone"}
    assert [record.fields for record in found if record.kind == "M"] == [(root + "/out.bin", root + "/there")]
    assert traced.paths("D") == {"gone"}


@pytest.mark.parametrize("python", PYTHONS, ids=lambda path: path.split("/")[-3])
def test_a_python_that_is_too_old_runs_as_ever(traced: Traced, python: str) -> None:
    traced.python = python
    traced.alike("import sys\nsys.stdout.write(repr((sys.path, sys.argv, 'sitecustomize' in sys.modules)))\n")


def test_what_lies_between_tabs_and_newlines_is_found_again(traced: Traced) -> None:
    name = "a\tb\nc\\t\udcff"
    (traced.code / name).write_text("x")
    traced.output("import os\nfor name in os.listdir('.'):\n    open(name).close()\n")
    assert name in traced.paths("R")


@every_python
def test_code_that_was_read_as_text_is_the_file_that_it_was_read_from(traced: Traced, python: str) -> None:
    traced.python = python
    content = b"\xef\xbb\xbfx = 1\r\ny = 2\r\n"
    (traced.code / "windows.py").write_bytes(content)
    traced.output(
        "source = open('windows.py', encoding='utf-8-sig').read()\nexec(compile(source, 'windows.py', 'exec'))\n"
    )
    assert ("source", blob(content), f"{traced.code}/windows.py") in [r.fields for r in traced.records("C")]


def test_source_is_taken_as_bytes_view_or_tree_and_code_made_at_run_time_is_not_taken_for_a_file(
    traced: Traced,
) -> None:
    traced.write("bytes.py", "x = 1\n")
    traced.write("view.py", "x = 2\n")
    traced.write("tree.py", "x = 3\n")
    traced.write("page.html", "<p>{{ x }}</p>")
    script = (
        "import ast\n"
        "compile(b'x = 1\\n', 'bytes.py', 'exec')\n"
        "compile(memoryview(b'x = 2\\n'), 'view.py', 'exec')\n"
        "exec(compile(ast.parse('x = 3\\n', 'tree.py'), 'tree.py', 'exec'))\n"
        "exec(compile('x = 4', 'page.html', 'exec'))\n"
        "exec(compile('x = 4', 'nowhere.py', 'exec'))\n"
        "class Text(str):\n    def encode(self, *words): raise KeyError\n"
        "compile(Text('x = 1\\n'), Text('bytes.py'), 'exec')\n"
        "for wrong in (10 ** 12, object()):\n"
        "    try: compile(wrong, 'x.py', 'exec')\n"
        "    except (TypeError, OverflowError): pass\n"
    )
    traced.output(script)
    assert traced.paths("C") == {"main.py", "bytes.py", "view.py", "tree.py"}
    taken = [record.fields[1] for record in traced.records("C")]
    assert taken.count(blob(b"x = 1\n")) == taken.count(blob(b"x = 3\n")) == 1


def test_code_from_bytecode_is_said_to_be(traced: Traced) -> None:
    part = traced.write("part.py", "x = 1\n")
    subprocess.run([sys.executable, "-m", "py_compile", "part.py"], cwd=traced.code, check=True)
    traced.output("import part\n")
    assert ("bytecode", blob(b"x = 1\n"), str(part)) in [record.fields for record in traced.records("C")]


def test_what_was_edited_after_the_run_began_is_kept_before_it_can_be_edited_again(traced: Traced) -> None:
    late = time.time_ns() - 10**9  # the run began a moment ago
    os.utime(traced.notes / "began", ns=(late, late))
    traced.output(
        "open('part.py', 'w').write('x = 1\\n')\nimport part, os\nos.remove('part.py')\nprint(part.x)\n"
    )
    assert (traced.notes / f"code-{blob(b'x = 1' + bytes([10]))}").read_text() == "x = 1\n"
    assert not [path.name for path in traced.notes.glob("code-*.*")]


def test_a_reload_and_a_forked_worker_tell_two_versions(traced: Traced) -> None:
    traced.write("part.py", "x = 1\n")
    script = (
        "import importlib, os, part, time\n"
        "ms = lambda: time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 10**6\n"
        "r, w = os.pipe()\n"
        "pid = os.fork()\n"
        "if not pid: os.read(r, 1); os._exit(0)\n"
        "forked = ms()\n"
        "while ms() == forked: pass\n"  # notes say in which millisecond what was, and no more
        "open('part.py', 'w').write('x = 22\\n')\n"
        "importlib.reload(part)\n"
        "os.write(w, b'x'); os.waitpid(pid, 0)\n"
    )
    traced.output(script)
    ledger = Ledger()
    for record in traced.records():
        ledger.feed(record)
    ((path, had),) = ledger.mixed()
    assert path == f"{traced.code}/part.py"
    assert {key: len(users) for key, users in had.items()} == {blob(b"x = 1\n"): 1, blob(b"x = 22\n"): 1}


@every_python
@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_workers_of_multiprocessing_have_notes_of_their_own(traced: Traced, python: str, method: str) -> None:
    traced.python = python
    traced.write("data.txt", "x")
    script = (
        "import multiprocessing as m\n"
        "def work(number):\n    return open('data.txt').read() * number\n"
        "if __name__ == '__main__':\n"
        f"    with m.get_context({method!r}).Pool(2) as pool: print(pool.map(work, range(5), chunksize=1))\n"
    )
    traced.alike(script)
    readers = {r.process for r in traced.records("R") if r.fields[0].endswith("/data.txt")}
    assert readers
    ranks = [record.fields[3] for record in traced.records("P")]
    assert len(ranks) >= 2  # a worker that is ended before it could begin leaves none
    assert set(ranks) == {"3"}


def test_a_folder_of_very_many_files_is_named_once_and_its_files_leave_marks(traced: Traced) -> None:
    (traced.code / "data").mkdir()
    script = (
        "for number in range(2100):\n    open(f'./data/{number}.png', 'w').close()\n"
        "for number in range(2100):\n    open(f'./data/{number}.png').close()\n"
    )
    traced.output(script)
    assert len([path for path in traced.paths("R") if "data/" in path]) <= 2000
    assert traced.paths("F") == {"data"}
    marks = (traced.notes / "reads").read_bytes()
    assert 90 <= sum(bin(byte).count("1") for byte in marks) <= 101


@pytest.mark.parametrize(
    ("words", "variables", "why"),
    [
        ("['-c', '0']", "None", None),
        ("['-I', '-c', '0']", "None", "isolated"),
        ("['-W', 'ignore', '-Ic', '0']", "None", "isolated"),
        ("['-Wignore', '-X', 'utf8', '-c', '0', '-I']", "None", None),
        ("['-c', '0']", "{}", "environment"),
        ("['-c', '0']", "os.environ", None),
        ("['-c', '0']", "dict(os.environb)", None),
        ("['-c', '0']", "dict(os.environ, PYTHONPATH='/x')", "environment"),
        ("['-c', '0']", "{k: v for k, v in os.environ.items() if k != 'MLLAUNCH_TRACE'}", "environment"),
    ],
)
def test_a_child_that_the_hook_cannot_get_into_is_told_of(
    traced: Traced, words: str, variables: str, why: str | None
) -> None:
    traced.output(
        f"import os, subprocess, sys\nsubprocess.run([sys.executable, *{words}], env={variables})\n"
    )
    assert [record.fields[0] for record in traced.records("X")] == ([why] if why else [])


def test_a_program_that_is_no_python_is_named(traced: Traced) -> None:
    traced.output("import os, subprocess\nos.system('true')\nsubprocess.run(['true'])\n")
    assert [os.path.basename(r.fields[0]) for r in traced.records("N")] == ["sh", "true"]  # noqa: PTH119


def test_a_database_is_read_where_there_was_one_and_written(traced: Traced) -> None:
    traced.output(
        "import sqlite3, pathlib\n"
        "for name in ('a.db', pathlib.Path('b.db')):\n    sqlite3.connect(name).close()\n"
        "sqlite3.connect('file:a.db?mode=ro', uri=True).close()\nsqlite3.connect(':memory:').close()\n"
        "sqlite3.connect(b'').close()\n"
    )
    assert traced.paths("W") == {"a.db", "b.db"}
    assert "b.db" not in traced.paths("R")


def test_a_name_that_counts_from_a_descriptors_folder_is_resolved(traced: Traced) -> None:
    (traced.code / "sub").mkdir()
    script = (
        "import os\nopen('sub/a', 'w').close()\nfd = os.open('sub', os.O_RDONLY)\n"
        "os.rename('a', 'b', src_dir_fd=fd, dst_dir_fd=fd)\n"
    )
    traced.output(script)
    root = str(traced.code)
    assert [record.fields for record in traced.records("M")] == [(root + "/sub/a", root + "/sub/b")]


def test_after_a_change_of_the_working_folder_the_same_name_is_another_file(traced: Traced) -> None:
    traced.write("a/data", "1")
    traced.write("b/data", "2")
    traced.output("import os\nfor f in ('a', '../b'):\n    os.chdir(f)\n    open('data').close()\n")
    assert {"a/data", "a/../b/data"} & traced.paths("R") >= {"a/data"}
    assert "b/data" in traced.paths("R")


# --- what nobody notices ------------------------------------------------------------------------------------


@every_python
def test_path_modules_and_arguments_are_as_without_it(traced: Traced, python: str) -> None:
    traced.python = python
    script = (
        "import sys\n"
        "print(sys.path, sys.argv, sys.flags, sys.dont_write_bytecode)\n"
        "print(sorted(set(sys.modules) - {'mllaunch_hook', '_sha1', '_sha', 'fcntl', 'time'}))\n"
    )
    traced.alike(script)


CUSTOM = "import sys\nprint(__name__, sys.path[0], file=sys.stderr)\nhere = 5\n"


@every_python
@pytest.mark.parametrize("text", [CUSTOM, "1 / 0\n", "import nowhere\n", "raise ImportError('x')\n"])
def test_the_users_own_sitecustomize_runs_once_and_its_errors_show_as_ever(
    traced: Traced, python: str, text: str
) -> None:
    traced.python = python
    traced.variables["PYTHONPATH"] = str(traced.code / "own")
    traced.write("own/sitecustomize.py", text)
    traced.write("own/usercustomize.py", "import sys\nprint('user', file=sys.stderr)\n")
    traced.alike("import sys\nprint(getattr(sys.modules.get('sitecustomize'), '__file__', None))\n")


def test_a_sitecustomize_in_site_packages_still_runs(traced: Traced, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(venv)], check=True)
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "sitecustomize.py").write_text("print('of the environment')\n")
    traced.python = str(venv / "bin" / "python")
    done = traced.alike("import sitecustomize, sys\nprint(sitecustomize.__file__, sys.path)\n")
    # Debian has one of its own beside the standard library, which comes first there, with us as without.
    system = Path(sysconfig.get_path("stdlib")) / "sitecustomize.py"
    assert done.stdout.startswith(str(system) if system.exists() else "of the environment\n")


def test_nothing_heavy_is_imported(traced: Traced) -> None:
    new = "import sys\nprint(*sys.modules)\n"
    without = set(traced.output(new, hook=False).split())
    assert set(traced.output(new).split()) - without <= {"mllaunch_hook", "_sha1", "fcntl"}


@every_python
def test_what_a_signal_handler_raises_reaches_the_program(traced: Traced, python: str) -> None:
    """It runs in the middle of whatever runs: most of the time, of the hook."""
    traced.python = python
    script = (
        "import os, signal\n"
        "class Alarm(Exception): pass\n"
        "raised = caught = 0\n"
        "def ring(*_):\n    global raised\n    raised += 1\n    raise Alarm\n"
        "signal.signal(signal.SIGALRM, ring)\n"
        "def work(number):\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0.00002 + number % 100 / 1e6)\n"
        "    while raised == number:\n"
        "        os.close(os.open('new%d' % (number % 10), os.O_WRONLY | os.O_CREAT))\n"
        "        compile(b'x%d' % number, 'main.py', 'exec')\n"
        "for number in range(1000):\n"
        "    try: work(number)\n"
        "    except Alarm: caught += 1\n"
        "print(raised, caught)\n"
    )
    assert traced.output(script) == "1000 1000\n"


@every_python
def test_a_program_that_recurses_to_the_limit_ends_as_ever(traced: Traced, python: str) -> None:
    traced.python = python
    script = (
        "def deeper(n):\n"
        "    try: open('/nonexistent/x')\n"
        "    except FileNotFoundError: pass\n"
        "    deeper(n + 1)\n"
        "for _ in range(3):\n"
        "    try: deeper(0)\n"
        "    except RecursionError: print('deep')\n"
    )
    traced.alike(script)


def test_closing_every_descriptor_leaves_the_programs_next_files_alone(traced: Traced) -> None:
    script = (
        "import os\n"
        "os.closerange(3, 5000)\n"
        "fds = [os.open('f%d' % n, os.O_RDWR | os.O_CREAT) for n in range(900)]\n"
        "open('seen.txt', 'w').close()\n"
        "print(sum(os.fstat(fd).st_size for fd in fds))\n"
    )
    assert traced.output(script) == "0\n"
    assert "seen.txt" in traced.paths("W")
    assert len({record.process for record in traced.records()}) == 1


def limited(what: int, amount: int) -> object:
    return lambda: resource.setrlimit(what, (amount, amount))


def test_a_program_with_few_descriptors_has_them_all(traced: Traced) -> None:
    script = (
        "import os\nfds = []\n"
        "try:\n"
        "    while True: fds.append(os.open('/dev/null', os.O_RDONLY))\n"
        "except OSError: pass\n"
        "print(fds)\nos.close(fds.pop())\nopen('seen', 'w').close()\n"
    )
    traced.alike(script, preexec_fn=limited(resource.RLIMIT_NOFILE, 20))
    assert traced.records("PC")


def test_a_full_disk_only_costs_notes(traced: Traced) -> None:
    script = (
        "for n in range(200):\n    open('f%d' % n, 'w').close()\n"
        "for n in range(4000):\n    try: open('d%d' % n).close()\n    except OSError: pass\n"
    )
    traced.alike(script, preexec_fn=limited(resource.RLIMIT_FSIZE, 2000))
    assert next(record.kind for record in traced.records()) == "P"


def test_notes_that_are_deleted_in_mid_run_are_not_missed(traced: Traced) -> None:
    script = (
        "import os, shutil\n"
        f"shutil.rmtree({str(traced.notes)!r}, ignore_errors=True)\n"
        "open('a', 'w').close()\nos.closerange(3, 2000)\nopen('b', 'w').close()\n"
        "pid = os.fork()\n"
        "open('c', 'w').close()\n"
        "if not pid: os._exit(0)\n"
        "print(os.waitpid(pid, 0)[1])\n"
    )
    assert traced.output(script) == "0\n"


@every_python
def test_a_program_that_puts_other_things_in_the_place_of_pythons_own_is_not_called_by_us(
    traced: Traced, python: str
) -> None:
    traced.python = python
    script = (
        "import builtins, os, posix, sys, time, _io\n"
        "def never(*a, **k): raise AssertionError('called')\n"
        "sys.meta_path[:] = [f for f in sys.meta_path if 'mllaunch' not in getattr(f, '__module__', '')]\n"
        "real = _io.open\n"
        "for owner in (os, posix):\n"
        "    for name in ('getcwd', 'getpid', 'stat', 'fstat', 'write', 'open', 'fspath', 'getppid'):\n"
        "        setattr(owner, name, never)\n"
        "os.fsencode = os.fsdecode = os.path.dirname = os.path.abspath = os.path.isdir = never\n"
        "os.path.join = os.path.normpath = never\n"
        "time.time = time.monotonic = time.clock_gettime = time.clock_gettime_ns = never\n"
        "builtins.open = builtins.isinstance = builtins.str = builtins.bytes = builtins.len = never\n"
        "sys.modules.pop('mllaunch_hook', None)\n"
        "real('out', 'w').close()\nreal('main.py').close()\n"
        "class Name:\n    def __fspath__(self): return 'other'\n"
        "real(Name(), 'w').close()\n"
        "print('fine')\n"
    )
    traced.alike(script)


def test_a_working_folder_that_was_deleted_hinders_nobody(traced: Traced) -> None:
    gone = traced.code / "gone"
    gone.mkdir()
    (traced.code / "main.py").write_text("open('/dev/null').close()\nprint('fine')\n")
    for hook in (False, True):
        done = subprocess.run(
            ["sh", "-c", f"cd {gone}; rmdir {gone}; {sys.executable} {traced.code}/main.py; mkdir {gone}"],
            env=traced.environment(hook),
            capture_output=True,
            text=True,
        )
        assert (done.stdout, done.stderr) == ("fine\n", "")
    (record,) = traced.records("P")
    assert record.fields[6] == ""
    assert traced.paths("C") == {"main.py"}


def test_threads_note_whole_lines(traced: Traced) -> None:
    script = (
        "import threading\n"
        "def work(k):\n    for n in range(200): open(f'f{k}-{n}', 'w').close()\n"
        "threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
    )
    traced.output(script)
    assert len(traced.paths("W")) == 1600


def test_notes_are_complete_when_the_process_is_killed(traced: Traced) -> None:
    traced.write("main.py", "import os\nopen('last', 'w').close()\nos.kill(os.getpid(), 9)\n")
    assert traced.run("main.py").returncode == -signal.SIGKILL
    assert traced.paths("W") == {"last"}


def test_each_record_is_one_write_also_a_long_one(traced: Traced) -> None:
    traced.write("main.py", "open('x' * 200, 'w').close()\n")
    words = ["y" * 100_000]
    assert traced.run("main.py", *words).returncode == 0
    assert traced.records("P")[0].fields[-1] == words[0]


@every_python
def test_files_that_are_opened_while_python_goes_down_cause_no_complaint(traced: Traced, python: str) -> None:
    traced.python = python
    script = (
        "import builtins, os, sys\n"
        "class Last:\n"
        "    def __init__(self, name): self.name, self.open = name, os.open\n"
        "    def __del__(self): self.open(self.name, 0)\n"
        "sys.last = Last('main.py')\nbuiltins.last = Last('main.py')\nhere = Last('main.py')\n"
        "os.last = Last('main.py')\nlast = Last('/nonexistent') if 0 else None\n"
        "import json\njson.last = Last('main.py')\n"
    )
    traced.alike(script)


@every_python
def test_warnings_for_bytes_compared_with_text_are_not_provoked(traced: Traced, python: str) -> None:
    traced.python = python
    script = (
        "import os, sqlite3, subprocess, sys\n"
        "open('main.py').close(); open(b'main.py').close(); open(os.fsencode(os.getcwd()) + b'/main.py').close()\n"
        "subprocess.run([sys.executable, '-c', '0'], env=dict(os.environb))\n"
        "sqlite3.connect(b':memory:').close()\n"
    )
    traced.write("main.py", script)
    done = traced.run("-bb", "-X", "dev", "main.py")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_of_ours_is_left_alone(traced: Traced) -> None:
    traced.variables["MLLAUNCH_AGENT"] = "1"
    traced.output("print(1)\n")
    assert traced.records() == []


def test_the_hooks_folder_is_where_the_agent_says_it_is() -> None:
    assert (Path(tracing.HOOK) / "sitecustomize.py").is_file()
