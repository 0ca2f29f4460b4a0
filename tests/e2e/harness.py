"""What end-to-end tests work with: a user's home, a repository, the real console script, a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import textwrap
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

SCRIPT = Path(sys.executable).with_name("mllaunch")
TIMEOUT_S = 120.0  # for whatever a test waits for; far more than anything takes on a busy machine


def until(condition: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Wait for a condition and return what it returned; fail with ``what`` if it never holds."""
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain: {what}"
        time.sleep(0.02)
    return found


class Result(NamedTuple):
    """How a command ended. Text is decoded with surrogates, so nothing is lost."""

    rc: int
    stdout: str
    stderr: str

    @property
    def stdout_bytes(self) -> bytes:
        return self.stdout.encode("utf-8", "surrogateescape")

    @property
    def document(self) -> Any:
        """The JSON document on stdout."""
        return json.loads(self.stdout)

    @property
    def run_name(self) -> str:
        """The run that `submit` or `run` announced."""
        lines = [line for line in (self.stdout + self.stderr).splitlines() if line.startswith("Run ")]
        assert lines, f"no run was announced: {self}"
        return lines[0].split()[1]


class Home:
    """A user with a run log of their own; nothing here is shared with the machine's other users."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder  # everything of this user lies below
        self.path = folder / "mllaunch-home"  # MLLAUNCH_HOME; not made here
        self.leases = folder / "leases"
        self.user = folder / "user"  # HOME
        self.user.mkdir(parents=True)
        self.leases.mkdir()
        (self.user / ".gitconfig").write_text("[user]\n\tname = A User\n\temail = user@example.org\n")
        self.environ = {
            "PATH": f"{SCRIPT.parent}:{os.environ['PATH']}",
            "HOME": str(self.user),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "GIT_CONFIG_NOSYSTEM": "1",
            "MLLAUNCH_HOME": str(self.path),
            # Whatever engine this machine may have is not for tests of processes; tests of containers name theirs.
            "DOCKER_HOST": f"unix://{folder}/no-engine.sock",
            "MLLAUNCH_LEASE_DIR": str(self.leases),
        }

    def attempt(self, run_id: str, number: int = 1) -> Path:
        """The folder of an attempt."""
        return self.path / "runs" / run_id / str(number)

    def processes(self) -> dict[int, str]:
        """Living processes that belong to this home, however they are tied to it: pid -> what shows it."""
        found = {}
        for entry in list(os.scandir("/proc")):
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                what = _belongs(Path(entry.path), os.fsencode(self.folder))
                if what is not None:
                    found[int(entry.name)] = what
        return found

    def close(self, timeout_s: float = 30.0) -> dict[int, str]:
        """Give processes time to end by themselves; kill and return those that did not; unmount what is left."""
        deadline = time.monotonic() + timeout_s
        while (left := self.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        while remaining := self.processes():  # again and again: a killed supervisor is revived by its shim
            for pid in remaining:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            time.sleep(0.02)
        for mount in mounts_below(self.folder):
            subprocess.run(["umount", "-l", mount], check=False)
        return left

    def complaints(self) -> list[str]:
        """What agents had to say of themselves: every traceback is a defect, however well it was survived."""
        said = [path.read_text(errors="replace") for path in self.path.glob("runs/*/*/streams/agent")]
        return [text for text in said if "Traceback" in text]


def _belongs(process: Path, folder: bytes) -> str | None:
    try:
        if (process / "stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X"):
            return None
        command = (process / "cmdline").read_bytes()
        named = folder in command or folder in (process / "environ").read_bytes()
        links = [process / "cwd", *(process / "fd").iterdir()]
        if named or any(os.fsencode(os.readlink(link)).startswith(folder) for link in links):  # noqa: PTH115
            return command.replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        pass  # it ended while we looked, or belongs to somebody else
    return None


def mounts_below(folder: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    points = [line.split()[4].encode().decode("unicode_escape") for line in lines]
    return sorted((p for p in points if p.startswith(f"{folder}/")), key=len, reverse=True)


class Repo:
    """The user's git repository, with one commit."""

    def __init__(self, root: Path, environ: Mapping[str, str], object_format: str = "sha1") -> None:
        self.root = root
        self._environ = environ
        root.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main", f"--object-format={object_format}")
        self.write(".gitignore", "outputs/\n__pycache__/\n")
        self.commit("begin")

    def git(self, *args: str) -> str:
        done = subprocess.run(
            ["git", *args], cwd=self.root, env=dict(self._environ), capture_output=True, timeout=TIMEOUT_S
        )
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return os.fsdecode(done.stdout).removesuffix("\n")

    def write(self, path: str, content: str | bytes = "") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else textwrap.dedent(content).encode())
        return file

    def commit(self, message: str = "work") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def script(self, code: str, name: str = "train.py") -> str:
        """Commit a script (indentation removed); its name."""
        self.write(name, code)
        self.commit(f"write {name}")
        return name


class Started:
    """A command that is still running; what it prints is noted with the time at which it came."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], cwd: Path) -> None:
        self.process = subprocess.Popen(
            command,
            env=dict(environ),
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # A session of its own, so that a test's Ctrl-C for it reaches nobody else.
            start_new_session=True,
        )
        self.lines: list[tuple[float, str]] = []  # (time.time(), line of stdout)
        self.errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._read, args=(self.process.stdout, self._line)),
            threading.Thread(target=self._read, args=(self.process.stderr, self.errors.append)),
        ]
        for thread in self._threads:
            thread.start()

    def _line(self, line: str) -> None:
        self.lines.append((time.time(), line))

    @staticmethod
    def _read(file: Any, keep: Callable[[str], None]) -> None:
        with file:
            for line in file:
                keep(line.decode("utf-8", "surrogateescape"))

    @property
    def stdout(self) -> str:
        return "".join(line for _, line in list(self.lines))

    @property
    def stderr(self) -> str:
        return "".join(list(self.errors))

    def wait_for(self, text: str) -> None:
        """Until it has printed this on either of its outputs."""
        try:
            until(lambda: text in self.stdout + self.stderr, "it to be printed")
        except AssertionError:
            raise AssertionError(f"{text!r} is not in {self.stdout!r} and {self.stderr!r}") from None

    def interrupt(self) -> None:
        """Ctrl-C."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self, timeout_s: float = TIMEOUT_S) -> Result:
        """Wait for its end."""
        rc = self.process.wait(timeout_s)
        for thread in self._threads:
            thread.join(timeout_s)
        return Result(rc, self.stdout, self.stderr)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.end()


class Mllaunch:
    """The console script, as this user calls it in their repository."""

    def __init__(self, home: Home, cwd: Path) -> None:
        self.home = home
        self.cwd = cwd
        self._started: list[Started] = []

    def __call__(
        self,
        *args: str | bytes,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: bytes | None = None,
        check: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> Result:
        """Run to the end. env is added to the home's. check: any exit code but 0 fails the test."""
        done = subprocess.run(
            [SCRIPT, *args],
            env={**self.home.environ, **(env or {})},
            cwd=cwd or self.cwd,
            input=b"" if stdin is None else stdin,
            capture_output=True,
            timeout=timeout_s,
        )
        out, err = (data.decode("utf-8", "surrogateescape") for data in (done.stdout, done.stderr))
        result = Result(done.returncode, out, err)
        assert "Traceback (most recent call last)" not in result.stderr or done.returncode != 125, err
        if check:
            assert result.rc == 0, f"{args}: {result}"
        return result

    def start(self, *args: str, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Started:
        """Start it and go on; ended with the test."""
        started = Started([str(SCRIPT), *args], {**self.home.environ, **(env or {})}, cwd or self.cwd)
        self._started.append(started)
        return started

    def submit(self, *args: str, env: Mapping[str, str] | None = None) -> tuple[str, str]:
        """Submit; the run's (id, name)."""
        run = self("submit", "--json", *args, env=env, check=True).document["run"]
        return run["id"], run["name"]

    def row(self, run: str) -> dict[str, Any]:
        """The run's row in `ps -a --json`, by id, name or @last."""
        rows = self("ps", "-a", "--json", check=True).document
        return rows[0] if run == "@last" else next(row for row in rows if run in (row["id"], row["name"]))

    def wait(self, run: str, *states: str, timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
        """Wait until the run is in one of these states (without any: until it has ended); its row."""
        wanted = states or ("succeeded", "failed", "cancelled")
        seen: dict[str, Any] = {}

        def there() -> bool:
            seen.update(self.row(run))
            return seen["state"] in wanted

        until(there, f"{run} to be {' or '.join(wanted)}", timeout_s)
        return seen

    def wait_sealed(self, run: str) -> dict[str, Any]:
        """Wait until nothing more can come of the run; its row."""
        until(lambda: self.row(run)["seal"], f"{run} to be sealed")
        return self.row(run)

    def close(self) -> None:
        for started in self._started:
            started.close()


def run_in_terminal(
    command: Sequence[str],
    environ: Mapping[str, str],
    cwd: Path,
    type_after: tuple[str, str] | None = None,
    size: tuple[int, int] = (24, 80),
    timeout_s: float = TIMEOUT_S,
) -> Result:
    """Run under a pseudo-terminal; all that it printed is in ``stdout``.

    type_after: (text to wait for, what to type then). size: lines, columns.
    """
    terminal, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    process = subprocess.Popen(
        command,
        env=dict(environ),
        cwd=cwd,
        stdin=inner,
        stdout=inner,
        stderr=inner,
        start_new_session=True,
        # So that a typed Ctrl-C becomes a signal.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509  one system call
    )
    os.close(inner)
    output = b""
    deadline = time.monotonic() + timeout_s
    try:
        while data := _read(terminal, deadline):
            output += data
            if type_after and type_after[0].encode() in output:
                os.write(terminal, type_after[1].encode())
                type_after = None
        rc = process.wait(max(1.0, deadline - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired):
        raise AssertionError(f"{command} did not end; it printed {output!r}") from None
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    return Result(rc, output.decode("utf-8", "surrogateescape"), "")


def _read(terminal: int, deadline: float) -> bytes:
    """What was printed next; nothing once the last process that had the terminal open has ended."""
    if not select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
        raise TimeoutError
    try:
        return os.read(terminal, 65536)
    except OSError:  # EIO
        return b""
