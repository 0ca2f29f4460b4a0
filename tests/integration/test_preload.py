"""The C layer, compiled and loaded into real programs."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mllaunch_agent import preload
from mllaunch_agent.codewatch import blob_id_of
from mllaunch_agent.tracing import HOOK
from mllaunch_agent.tracing.raw import Reader, Record

pytestmark = pytest.mark.real("gcc")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    made, why = preload.build(str(tmp_path_factory.mktemp("cache")))
    assert made is not None, why
    return made


class Scene:
    """A folder that programs work in, and the notes that they leave."""

    def __init__(self, folder: Path, library: str) -> None:
        self.work = folder / "work"
        self.trace = folder / "trace"
        self.library = library
        self.work.mkdir()
        self.trace.mkdir()
        self.environ = {
            "PATH": os.environ["PATH"],
            "MLLAUNCH_TRACE": str(self.trace),
            "MLLAUNCH_CODE": str(self.work),
            "LD_PRELOAD": library,
        }

    def compile(self, code: str, *flags: str) -> str:
        """A C program; its path."""
        source, program = self.work.parent / "program.c", self.work.parent / "program"
        headers = ("errno", "fcntl", "pthread", "signal", "stdio", "stdlib", "string", "unistd")
        lines = "".join(f"#include <{name}.h>\n" for name in (*headers, "sys/stat", "sys/wait"))
        source.write_text("#define _GNU_SOURCE\n" + lines + textwrap.dedent(code))
        subprocess.run(["gcc", "-w", *flags, "-o", program, source, "-lpthread"], check=True)
        return str(program)

    def run(self, *argv: str, **options: object) -> subprocess.CompletedProcess[bytes]:
        made: dict[str, object] = {
            "cwd": self.work,
            "env": self.environ,
            "capture_output": True,
            "timeout": 60,
        }
        return subprocess.run(argv, **{**made, **options})  # type: ignore[call-overload, no-any-return]

    def notes(self) -> list[Record]:
        return Reader(str(self.trace)).look()

    def told(self, kind: str) -> list[str]:
        """The files that notes of a kind are about, relative to the folder."""
        return [os.path.relpath(note.fields[-1], self.work) for note in self.notes() if note.kind == kind]


@pytest.fixture
def scene(tmp_path: Path, library: str) -> Scene:
    return Scene(tmp_path, library)


def test_what_a_c_program_opens_renames_and_closes_is_noted(scene: Scene) -> None:
    program = scene.compile("""
        int main(void) {
            FILE *f = fopen("draft", "w"); fputs("x", f); rename("draft", "final"); fclose(f);
            mkdir("inner", 0755);
            int d = open("inner", O_RDONLY | O_DIRECTORY), g = openat(d, "deep", O_CREAT | O_WRONLY, 0644);
            write(g, "1", 1); close(g);
            chdir("inner");
            g = open("deep", O_RDONLY); close(g);
            link("deep", "twin");
            return errno = 0;
        }""")
    assert scene.run(program).returncode == 0
    assert scene.told("W") == ["draft", "inner/deep"]
    assert scene.told("M") == ["final"]
    assert scene.told("Z") == ["final", "inner/deep"]
    assert scene.told("R") == ["inner/deep"]
    assert scene.told("K") == ["inner/twin"]
    first = scene.notes()[0]
    assert (first.kind, first.fields[0]) == ("P", "c")


def test_a_shell_and_the_programs_that_it_starts_are_seen(scene: Scene) -> None:
    (scene.work / "in").write_text("text")
    assert scene.run("sh", "-c", "cat in > copied; cp in twice; mv twice thrice").returncode == 0
    assert set(scene.told("R")) == {"in"}
    assert {"copied", "twice"} <= set(scene.told("W"))
    assert scene.told("M") == ["thrice"]
    programs = [note.fields[4].rpartition("/")[2] for note in scene.notes() if note.kind == "P"]
    assert {"cat", "cp", "mv"} <= set(programs)


def test_every_forked_child_has_a_file_of_its_own_and_vforked_ones_disturb_nobody(scene: Scene) -> None:
    program = scene.compile("""
        int main(void) {
            for (int i = 0; i < 20; i++) if (fork() == 0) { close(open("in", O_RDONLY)); _exit(0); }
            while (wait(0) > 0);
            if (vfork() == 0) { execlp("true", "true", (char *)0); _exit(1); }
            wait(0);
            close(open("out", O_CREAT | O_WRONLY, 0644));
            return 0;
        }""")
    (scene.work / "in").touch()
    assert scene.run(program).returncode == 0
    assert scene.told("R") == ["in"] * 20
    assert len({note.process for note in scene.notes() if note.kind == "R"}) == 20
    assert scene.told("W") == ["out"]


def test_threads_that_open_files_at_once_lose_no_note(scene: Scene) -> None:
    program = scene.compile("""
        void *work(void *at) {
            char name[64];
            for (int i = 0; i < 200; i++) {
                snprintf(name, 64, "f-%ld-%d", (long)at, i);
                close(open(name, O_CREAT | O_WRONLY, 0644)); close(open(name, O_RDONLY));
            }
            return 0;
        }
        int main(void) {
            pthread_t t[10];
            for (long i = 0; i < 10; i++) pthread_create(t + i, 0, work, (void *)i);
            for (int i = 0; i < 10; i++) pthread_join(t[i], 0);
            return 0;
        }""")
    assert scene.run(program).returncode == 0
    assert set(scene.told("R")) == {f"f-{thread}-{i}" for thread in range(10) for i in range(200)}


def test_who_closes_every_descriptor_finds_nothing_of_ours_in_his_files(scene: Scene) -> None:
    program = scene.compile("""
        int main(void) {
            for (int fd = 3; fd < 1024; fd++) close(fd);
            for (int i = 0; i < 900; i++) { char n[32]; snprintf(n, 32, "own-%d", i); open(n, O_CREAT | O_RDWR, 0644); }
            close(open("late", O_CREAT | O_WRONLY, 0644));
            return 0;
        }""")
    assert scene.run(program).returncode == 0
    assert all((scene.work / f"own-{number}").stat().st_size == 0 for number in range(900))
    assert "late" in scene.told("W")


def test_few_descriptors_are_enough(scene: Scene) -> None:
    program = scene.compile("""int main(void) { close(open("out", O_CREAT | O_WRONLY, 0644)); return 0; }""")
    few: Callable[[], None] = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))  # noqa: E731
    assert scene.run(program, preexec_fn=few).returncode == 0
    assert scene.told("W") == ["out"]


def test_errno_is_what_the_call_itself_has_set(scene: Scene) -> None:
    program = scene.compile("""
        int main(void) {
            errno = 77;
            int fd = open("out", O_CREAT | O_WRONLY, 0644);
            if (fd < 0 || errno != 77) return 1;
            if (close(fd) || errno != 77) return 2;
            if (open("none", O_RDONLY) >= 0 || errno != ENOENT) return 3;
            return 0;
        }""")
    assert scene.run(program).returncode == 0


def test_where_no_note_can_be_written_the_program_runs_as_ever(scene: Scene) -> None:
    program = scene.compile("""
        int main(void) {
            signal(SIGXFSZ, SIG_IGN);
            int fd = open("out", O_CREAT | O_WRONLY, 0644);
            return fd < 0 || close(fd);
        }""")
    nothing: Callable[[], None] = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # noqa: E731
    assert scene.run(program, preexec_fn=nothing).returncode in (0, -signal.SIGXFSZ)
    scene.environ["MLLAUNCH_TRACE"] = str(scene.trace / "missing")
    assert scene.run(program).returncode == 0


def test_python_that_keeps_the_hook_out_tells_what_it_compiles(scene: Scene) -> None:
    scene.environ["PYTHONPATH"] = HOOK
    (scene.work / "part.py").write_text("X = 1\n")
    (scene.work / "main.py").write_text(
        "import sys\nsys.path.insert(0, '.')\nimport part\nopen('out', 'w')\n"
    )
    assert scene.run(sys.executable, "-I", "-S", "-B", "main.py").returncode == 0
    code = {os.path.relpath(n.fields[2], scene.work): n.fields[:2] for n in scene.notes() if n.kind == "C"}
    assert code["part.py"] == ("source", blob_id_of(b"X = 1\n"))
    assert code["main.py"] == ("run", blob_id_of((scene.work / "main.py").read_bytes()))
    assert scene.told("W") == ["out"]


def test_a_killed_program_loses_no_note(scene: Scene) -> None:
    program = scene.compile("""
        int main(void) { close(open("in", O_RDONLY)); kill(getpid(), SIGKILL); return 0; }""")
    (scene.work / "in").touch()
    assert scene.run(program).returncode == -signal.SIGKILL
    assert scene.told("R") == ["in"]


def test_a_signal_handler_may_open_files(scene: Scene) -> None:
    program = scene.compile("""
        #include <sys/time.h>
        void handle(int n) { close(open("in", O_RDONLY)); close(open("log", O_CREAT | O_APPEND | O_WRONLY, 0644)); }
        int main(void) {
            struct itimerval t = {{0, 200}, {0, 200}};
            signal(SIGALRM, handle); setitimer(ITIMER_REAL, &t, 0);
            for (int i = 0; i < 20000; i++) {
                char n[32]; snprintf(n, 32, "f-%d", i % 500); close(open(n, O_RDONLY | O_CREAT, 0644));
            }
            return 0;
        }""")
    (scene.work / "in").touch()
    assert scene.run(program).returncode == 0
    assert {"in", "f-0", "f-499"} <= set(scene.told("R"))


def test_files_in_great_number_leave_marks_and_their_folder_is_named(scene: Scene) -> None:
    (scene.work / "many").mkdir()
    for number in range(6000):
        (scene.work / "many" / str(number)).touch()
    program = scene.compile("""
        int main(void) {
            char n[32];
            for (int i = 0; i < 12000; i++) { snprintf(n, 32, "many/%d", i % 6000); close(open(n, O_RDONLY)); }
            return 0;
        }""")
    assert scene.run(program).returncode == 0
    alone = set(scene.told("R"))
    assert len(alone) == 2000
    assert scene.told("F") == ["many"]
    marks = (scene.trace / "reads").read_bytes()
    assert 3900 < sum(byte.bit_count() for byte in marks) <= 4000


def test_another_library_that_was_to_be_loaded_still_is(scene: Scene, tmp_path: Path) -> None:
    other = tmp_path / "other.so"
    (tmp_path / "other.c").write_text("int the_other(void) { return 42; }")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", other, tmp_path / "other.c"], check=True)
    value = preload.environment(scene.library, str(other))
    assert value == f"{other} {scene.library}"
    scene.environ["LD_PRELOAD"] = value
    asked = "import ctypes; print(ctypes.CDLL(None).the_other()); open('out', 'w')"
    assert scene.run(sys.executable, "-c", asked).stdout == b"42\n"
    assert scene.told("W") == ["out"]
    assert preload.environment("/with space/x.so", "before") == "before"


def test_it_is_compiled_once_and_a_failure_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = preload.build(str(tmp_path))
    assert first is not None
    assert ctypes.CDLL(first)
    monkeypatch.setattr(preload, "_COMPILERS", ())
    assert preload.build(str(tmp_path)) == (first, None)
    assert preload.build(str(tmp_path / "none")) == (None, "there is no C compiler")
    monkeypatch.undo()
    began = time.monotonic()
    assert preload.build(str(tmp_path / "none")) == (None, "there is no C compiler")
    assert time.monotonic() - began < 5
