"""The one way in which mllaunch calls git: nothing that a repository says can make it execute anything.

A repository is hostile input. Its configuration can name programs (hooks, filters, fsmonitor, diff drivers,
pagers, transports); every call made here switches them off through GIT_CONFIG_COUNT, which outranks all files
(git-config(1), since git 2.31). Filters can have any name, so the configuration is listed first and each one
found is emptied; ``Git.inspecting`` does that and must be used for every command that reads the working tree.

Output goes to memory files, not pipes: a process that was started early never waits for its reader.
posix_spawn is used because ``import subprocess`` alone costs as much as the git processes of a submit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from mllaunch.errors import MllaunchError, NotPermitted, UsageError

__all__ = ["Git", "GitFailed", "Process", "batch", "explained", "parse_config", "shown", "temporary_index"]

# The user's own way of saying where their configuration is and how far to look for a repository. All other
# GIT_* variables change what a command works on (GIT_DIR is set inside a hook, for instance).
_KEPT_VARIABLES = frozenset(
    {
        "GIT_CONFIG_GLOBAL",
        "GIT_CONFIG_SYSTEM",
        "GIT_CONFIG_NOSYSTEM",
        "GIT_CEILING_DIRECTORIES",
        "GIT_DISCOVERY_ACROSS_FILESYSTEM",
    }
)

_FIXED_VARIABLES = {
    "LC_ALL": "C",  # messages are matched below
    "LANGUAGE": "C",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ALLOW_PROTOCOL": "",  # no transport at all: nothing is ever fetched
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_PAGER": "cat",
    "GIT_ATTR_NOSYSTEM": "1",
}

_FIXED_CONFIG = (
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.pager", "cat"),
    ("core.splitIndex", "false"),  # or a temporary index would leave a shared one in the user's repository
    ("core.logAllRefUpdates", "false"),
    ("core.quotePath", "false"),
    ("core.safecrlf", "false"),
    ("diff.external", ""),
    ("protocol.allow", "never"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("submodule.recurse", "false"),
)

_SIGPIPE = 13  # ignored by Python, and an ignored signal would be inherited


class GitFailed(Exception):
    """A git command ended with another status than 0. message: what it wrote to stderr."""

    def __init__(self, command: str, status: int, message: str) -> None:
        super().__init__(f"git {command}: {message or f'exit status {status}'}")
        self.command = command
        self.status = status
        self.message = message


class Process(NamedTuple):
    """A git process under way. ``finish`` must be called once."""

    command: str
    pid: int
    output: int
    errors: int

    def finish(self) -> bytes:
        """Wait for the end and return all of stdout. Raises GitFailed."""
        _, status = os.waitpid(self.pid, 0)
        out, err = _drain(self.output), _drain(self.errors)
        if status != 0:
            raise GitFailed(self.command, os.waitstatus_to_exitcode(status), os.fsdecode(err).strip())
        return out

    def has_ended_within(self, timeout_s: float) -> bool:
        """Whether the process is over, waiting for it at most so long."""
        import select

        try:
            watched = os.pidfd_open(self.pid)
        except OSError:  # not before Linux 5.3, nor in some sandboxes: then we wait without a limit
            return True
        try:
            return bool(select.select([watched], [], [], timeout_s)[0])
        finally:
            os.close(watched)

    def kill(self) -> None:
        """End the process at once."""
        os.kill(self.pid, 9)
        self.discard()

    def discard(self) -> None:
        """Wait for the end and forget the outcome."""
        os.waitpid(self.pid, 0)
        os.close(self.output)
        os.close(self.errors)


class Git(NamedTuple):
    """How to call git on one repository.

    cwd: where to look for it. git_dir: its git folder when that is already known (no discovery then).
    config: overrides, strongest last. index_file: a file to use in place of the repository's index.
    """

    cwd: str
    git_dir: str | None = None
    config: tuple[tuple[str, str], ...] = _FIXED_CONFIG
    index_file: str | None = None

    def inspecting(self, listed: dict[str, list[str]]) -> Git:
        """The same with every filter of ``listed`` (what ``parse_config`` gave) made harmless.

        Raises MllaunchError if git is too old to have taken our overrides.
        """
        if listed.get("core.hookspath", [""])[-1] != "/dev/null":
            raise MllaunchError("git-too-old", "this git is older than 2.31", hint="install a newer git")
        names = {key[7:].rpartition(".")[0] for key in listed if key.startswith("filter.")}
        emptied = tuple(
            (f"filter.{name}.{part}", value)
            for name in sorted(names)
            for part, value in (("clean", ""), ("smudge", ""), ("process", ""), ("required", "false"))
        )
        return self._replace(config=self.config + emptied)

    def start(self, *args: str, stdin: bytes | int = b"", variables: dict[str, str] | None = None) -> Process:
        """Start a command whose output is kept in memory. stdin: its bytes, or a descriptor."""
        output, errors = os.memfd_create("git-output"), os.memfd_create("git-errors")
        return Process(args[0], self._spawn(args, stdin, output, errors, variables), output, errors)

    def run(self, *args: str, stdin: bytes = b"", variables: dict[str, str] | None = None) -> bytes:
        """Run a command to its end and return its stdout. Raises GitFailed."""
        return self.start(*args, stdin=stdin, variables=variables).finish()

    def stream(self, *args: str, stdin: bytes = b"") -> tuple[BinaryIO, Process]:
        """Start a command whose output is too large for memory: read the file to its end, then ``finish``."""
        reading, writing = os.pipe()
        errors = os.memfd_create("git-errors")
        try:
            pid = self._spawn(args, stdin, writing, errors, None)
        finally:
            os.close(writing)
        empty = os.memfd_create("git-output")
        return os.fdopen(reading, "rb", buffering=1 << 20), Process(args[0], pid, empty, errors)

    def environment(self) -> dict[str, str]:
        """The variables that a git process of this kind runs with."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("GIT_") or k in _KEPT_VARIABLES}
        kept.update(_FIXED_VARIABLES)
        kept["GIT_CONFIG_COUNT"] = str(len(self.config))
        for number, (key, value) in enumerate(self.config):
            kept[f"GIT_CONFIG_KEY_{number}"] = key
            kept[f"GIT_CONFIG_VALUE_{number}"] = value
        if self.git_dir is not None:
            kept["GIT_DIR"] = self.git_dir
        if self.index_file is not None:
            kept["GIT_INDEX_FILE"] = self.index_file
        return kept

    def _spawn(
        self,
        args: tuple[str, ...],
        stdin: bytes | int,
        output: int,
        errors: int,
        variables: dict[str, str] | None,
    ) -> int:
        source = _source(stdin)
        try:
            argv = ["git", "-C", self.cwd, *args]
            actions = [
                (os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate((source, output, errors))
            ]
            environment = {**self.environment(), **(variables or {})}
            return os.posix_spawn(
                _executable(), argv, environment, file_actions=actions, setsigdef=[_SIGPIPE]
            )
        finally:
            if source != stdin:
                os.close(source)


def parse_config(listing: bytes) -> dict[str, list[str]]:
    """Values by key, in git's order (the last one counts), of ``git config --list -z``."""
    values: dict[str, list[str]] = {}
    for record in os.fsdecode(listing).split("\0")[:-1]:
        key, _, value = record.partition("\n")
        values.setdefault(key, []).append(value)
    return values


def batch(
    git: Git, objects: list[str], *, size_only: bool = False
) -> Iterator[tuple[str, str, int, BinaryIO]]:
    """Each object's (name asked for, type, size, stream at its first byte); type "missing" if there is none.

    The caller reads exactly ``size`` bytes from the stream before it asks for the next (none with size_only).
    """
    command = "--batch-check" if size_only else "--batch"
    stream, process = git.stream(
        "cat-file", command, "--buffer", stdin="".join(f"{name}\n" for name in objects).encode()
    )
    try:
        for name in objects:
            header = stream.readline().split()
            if len(header) != 3:
                yield name, "missing", 0, stream
                continue
            yield name, header[1].decode(), int(header[2]), stream
            if not size_only:
                stream.read(1)
    except BaseException:  # the reader stopped half-way: so does git, and its status means nothing
        stream.close()
        process.discard()
        raise
    stream.close()
    process.finish()


@contextmanager
def temporary_index(git: Git) -> Iterator[Git]:
    """The same repository with an index file that does not exist yet, in a private folder outside of it."""
    # `tempfile` would take 10 ms to import.
    folder = os.path.join(os.environ.get("TMPDIR") or "/tmp", f"mllaunch-{os.getpid()}-{os.urandom(8).hex()}")
    os.mkdir(folder, 0o700)
    try:
        yield git._replace(index_file=os.path.join(folder, "index"))
    finally:
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)


def explained(error: GitFailed, cwd: str) -> MllaunchError:
    """What a failure of git means to the user, with the next thing to try."""
    text = error.message
    where = shown(cwd)
    lines = tuple(shown(line) for line in text.splitlines())
    if "dubious ownership" in text or "unsafe repository" in text:
        return NotPermitted(
            "not-your-repository",
            f"{where} belongs to another user, so git does not trust it",
            evidence=lines[:1],
            hint=f"if you trust it: git config --global --add safe.directory {where}",
        )
    if "must be run in a work tree" in text:
        return UsageError(
            "bare-repository", f"{where} is a bare repository", hint="run from a clone with files"
        )
    if "not a git repository (or any" in text:
        return UsageError(
            "no-repository",
            f"{where} is not in a git repository",
            hint="git init && git add -A && git commit",
        )
    if "not a git repository" in text or "gitfile" in text:
        return UsageError(
            "broken-repository",
            f"the .git of {where} does not lead to a repository",
            evidence=lines[:3],
            hint="git worktree repair, or clone again",
        )
    return MllaunchError(
        "git-failed", f"git {error.command} failed in {where}", evidence=tuple(text.splitlines()[:5])
    )


def shown(name: str) -> str:
    """A file name as it can be printed: control, direction-changing and undecodable characters escaped."""
    return "".join(c if c.isprintable() else _escaped(c) for c in name)


def _escaped(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode carries it
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def _executable() -> str:
    """The git on PATH, by absolute entries only: "." would let a repository bring its own."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        candidate = folder + "/git"
        if folder.startswith("/") and os.access(candidate, os.X_OK):
            return candidate
    raise MllaunchError("git-missing", "there is no git on PATH", hint="install git 2.31 or newer")


def _drain(fd: int) -> bytes:
    """All of a memory file, which is closed."""
    try:
        size = os.fstat(fd).st_size
        parts: list[bytes] = []
        while size > 0:
            part = os.pread(fd, size, sum(map(len, parts)))
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def _source(stdin: bytes | int) -> int:
    """A descriptor to read standard input from."""
    if isinstance(stdin, int):
        return stdin
    if not stdin:
        return os.open("/dev/null", os.O_RDONLY)
    source = os.memfd_create("git-input")
    _write_all(source, stdin)
    os.lseek(source, 0, os.SEEK_SET)
    return source


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
