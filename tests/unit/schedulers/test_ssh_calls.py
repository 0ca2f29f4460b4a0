"""An agent is brought to a node and asked. The node is this machine, and the way there a shell in place of ssh."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from mllaunch.errors import InternalError, MllaunchError, NotFound, Unreachable
from mllaunch.schedulers.ssh import archive
from mllaunch.schedulers.ssh.archive import Archive
from mllaunch.schedulers.ssh.calls import Calls, begin
from mllaunch.schedulers.ssh.transport import Address
from mllaunch_agent import PROTOCOL_VERSION


class Counted:
    """A file that knows how many bytes were written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.count = 0

    def write(self, data: bytes) -> int:
        self.count += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class ShellPipe:
    """A command as a login shell runs it, which first prints what its user's settings have it print."""

    def __init__(self, home: Path, command: str, noise: bytes) -> None:
        # As with ssh, what is sent to a command that has ended is no error; it goes nowhere.
        self._reader, writer = os.pipe()
        with (home / "complaint").open("wb") as complaint:
            self.process = subprocess.Popen(
                ["/bin/sh", "-c", f"printf %b {shlex.quote(noise.decode())}\n{command}"],
                stdin=self._reader,
                stdout=subprocess.PIPE,
                stderr=complaint,
                env={"HOME": str(home), "PATH": f"{home}/bin:/usr/bin:/bin"},
            )
        assert self.process.stdout is not None
        self._home = home
        self.stdin = Counted(os.fdopen(writer, "wb"))
        self.stdout = self.process.stdout

    has_ended = False

    def set_patience(self, seconds: float | None) -> None:
        pass

    def complaint(self) -> tuple[int | None, str]:
        return self.process.wait(60), (self._home / "complaint").read_text()

    def close(self) -> None:
        if self.stdout.closed:
            return
        os.close(self._reader)
        self.stdin.close()
        self.process.kill()
        self.process.wait()
        self.stdout.close()


class Shell:
    """A node, and the connection to it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.noise = b""
        self.pipes: list[ShellPipe] = []
        (home / "bin").mkdir()
        self.install("python3", f'exec {sys.executable} "$@"')

    def install(self, name: str, script: str) -> None:
        program = self.home / "bin" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def run(self, command: str) -> ShellPipe:
        self.pipes.append(ShellPipe(self.home, command, self.noise))
        return self.pipes[-1]

    def begin(
        self, content: Archive, python: str | None = None, name: str = "alpha", answered: Any = str
    ) -> Calls:
        link: Any = self
        return begin(link, Address(name, python=python), content, answered)

    def refusal(self, content: Archive, python: str | None = None) -> MllaunchError:
        with pytest.raises(MllaunchError) as caught:
            self.begin(content, python)
        return caught.value

    @property
    def node(self) -> Path:
        return self.home / ".local/share/mllaunch/node/alpha"

    def agents(self) -> list[str]:
        return sorted(path.name for path in self.node.glob("agents/*"))


@pytest.fixture(scope="module")
def agent() -> Archive:
    return archive.make()


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    for pipe in made.pipes:
        pipe.close()


def test_the_same_files_make_the_same_archive(agent: Archive) -> None:
    assert archive.make() == agent
    assert hashlib.sha256(agent.content).hexdigest() == agent.digest


def test_an_agent_is_sent_the_first_time_only(shell: Shell, agent: Archive) -> None:
    first = shell.begin(agent)
    assert first.call("hello")["protocol"] == PROTOCOL_VERSION
    assert shell.pipes[0].stdin.count > len(zlib.compress(agent.content))
    assert shell.agents() == [agent.digest]
    again = shell.begin(agent)
    assert again.call("hello")["home"] == str(shell.node)
    assert shell.pipes[1].stdin.count < 5000
    assert shell.agents() == [agent.digest]
    assert first.call("hello")["home"] == str(shell.node)  # both answer


def test_each_answer_is_noted_from_the_first_on(shell: Shell, agent: Archive) -> None:
    answered: list[str] = []
    calls = shell.begin(agent, answered=answered.append)
    assert answered == ["alpha"]
    calls.call("hello")
    with pytest.raises(MllaunchError):
        calls.call("no such call")
    assert answered == ["alpha"] * 3
    shell.pipes[0].close()
    with pytest.raises(MllaunchError):
        calls.call("hello")
    assert answered == ["alpha"] * 3


def test_bytes_go_both_ways(shell: Shell, agent: Archive) -> None:
    calls = shell.begin(agent)
    assert calls.call("lacking", b"100644 00\ta\0") == ["00"]
    folder = shell.node / "runs/r/1/streams"
    folder.mkdir(parents=True)
    (folder / "events").write_bytes(b'{"seq": 1}\n' * 100_000)
    where: dict[str, Any] = {"run_id": "r", "number": 1, "stream": "events"}
    assert calls.fetch("read", **where, offset=11, limit=11 * 90_000) == b'{"seq": 1}\n' * 90_000
    assert calls.fetch("read", **where, offset=11 * 100_000, limit=10) == b""


def test_what_a_login_shell_prints_first_is_skipped(shell: Shell, agent: Archive) -> None:
    shell.noise = rb"Welcome to alpha!\nready\n\nsend\n{}\n\0377\n"
    assert shell.begin(agent).call("hello")["protocol"] == PROTOCOL_VERSION
    assert shell.begin(agent).call("hello")["protocol"] == PROTOCOL_VERSION


@pytest.mark.parametrize("name", ["a'b", 'a"b', "a b", "{x}", "a\\n", "knöten"])
def test_the_name_of_a_node_needs_no_care(shell: Shell, agent: Archive, name: str) -> None:
    assert Path(shell.begin(agent, name=name).call("hello")["home"]).name == name


@pytest.mark.parametrize("python", ["{home}/other python", "~/other-python", "other python"])
def test_another_python_can_be_named(shell: Shell, agent: Archive, python: str) -> None:
    shell.install("python3", "exit 99")
    shell.install("other python", f'exec {sys.executable} "$@"')
    for name in ("other python", "other-python"):
        (shell.home / name).symlink_to(shell.home / "bin/other python")
    assert shell.begin(agent, python.format(home=shell.home)).call("hello")


@pytest.mark.parametrize("python", ["no-such-python", "~/no-such-python", "/no/such/python"])
def test_a_node_without_python_says_so(shell: Shell, agent: Archive, python: str) -> None:
    error = shell.refusal(agent, python)
    assert (error.code, error.message) == ("no_python", f"alpha has no {python}")
    assert "python" in "".join(error.evidence)
    assert error.hint is not None
    assert "name: alpha" in error.hint


def test_an_old_python_is_told_with_its_place(shell: Shell, agent: Archive) -> None:
    begun = "exec(sys.stdin.buffer.readline())"
    old = f"import sys; sys.version_info = (3, 6, 8); sys.executable = '/opt/old python'; {begun}"
    shell.install("python3", f'exec {sys.executable} -c "{old}"')
    error = shell.refusal(agent)
    assert error.code == "old_python"
    assert error.message == "alpha has Python 3.6.8 (/opt/old python); 3.8 or newer is needed"
    assert shell.agents() == []


def test_a_python_that_fails_is_told_with_its_last_words(shell: Shell, agent: Archive) -> None:
    shell.install("python3", "echo one >&2; echo two >&2; echo three >&2; echo four >&2; exit 3")
    error = shell.refusal(agent)
    assert (error.code, error.evidence) == ("agent_start", ("two", "three", "four"))


def test_what_a_login_shell_that_runs_nothing_says_is_told_with_a_remedy(
    shell: Shell, agent: Archive
) -> None:
    shell.install("python3", "echo This account is currently not available.; exit 1")
    error = shell.refusal(agent)
    assert (error.code, error.evidence) == ("agent_start", ("This account is currently not available.",))
    assert (
        error.hint is not None and "login shell" in error.hint and "ssh alpha python3 --version" in error.hint
    )


def test_a_program_that_is_no_python_is_told_with_what_it_says_or_that_it_says_nothing(
    shell: Shell, agent: Archive
) -> None:
    error = shell.refusal(agent, "/bin/cat")
    assert "cat: " in error.evidence[0] and "name: alpha, python: " in (error.hint or "")
    silent = shell.refusal(agent, "/bin/false")
    assert silent.evidence == ("its login shell, or /bin/false, ended with exit status 1 and said nothing",)


def test_what_ssh_itself_complains_of_is_a_node_that_cannot_be_reached(shell: Shell, agent: Archive) -> None:
    shell.install("python3", "echo 'ssh: connect to host alpha port 22: Connection refused' >&2; exit 255")
    error = shell.refusal(agent)
    assert isinstance(error, Unreachable)
    assert error.message == "alpha cannot be reached: ssh: connect to host alpha port 22: Connection refused"


def test_an_archive_that_was_damaged_on_its_way_is_not_unpacked(shell: Shell, agent: Archive) -> None:
    damaged = agent.content[:1000] + b"?" + agent.content[1001:]
    assert shell.refusal(Archive(agent.digest, damaged)).code == "damaged"
    assert shell.agents() == []
    assert shell.begin(agent).call("hello")


def test_a_folder_that_cannot_be_made_is_named(shell: Shell, agent: Archive) -> None:
    (shell.home / ".local").write_text("in the way")
    error = shell.refusal(agent)
    assert error.code == "node_folder"
    assert str(shell.home / ".local") in error.message
    assert error.hint is not None and "XDG_DATA_HOME" in error.hint


def test_an_agent_that_dies_is_unreachable_and_of_no_more_use(shell: Shell, agent: Archive) -> None:
    calls = shell.begin(agent)
    assert calls.call("kept") == []
    assert not calls.is_broken
    shell.pipes[0].process.kill()
    with pytest.raises(Unreachable, match="alpha cannot be reached: the connection was closed"):
        calls.call("kept")
    assert calls.is_broken
    assert shell.begin(agent).call("kept") == []


def test_what_the_node_cannot_do_is_an_error_and_breaks_nothing(shell: Shell, agent: Archive) -> None:
    calls = shell.begin(agent)
    with pytest.raises(NotFound, match="alpha: nothing is left of attempt 1"):
        calls.call("stat_output", run_id="r", number=1, path="x")
    with pytest.raises(InternalError, match="alpha: ValueError: not a run"):
        calls.call("look", run_id="..", number=1)
    with pytest.raises(MllaunchError, match="alpha: the content of 00 was damaged") as caught:
        calls.call("keep", b"x", sizes=[["00", 1]])
    assert caught.value.code == "damaged"
    assert not calls.is_broken
    assert calls.call("kept") == []
