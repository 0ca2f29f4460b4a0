"""An agent on a node that answers calls: sent there when it is not there yet, and started; see docs/protocol.md."""

from __future__ import annotations

import json
import threading
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mllaunch.errors import InternalError, MllaunchError, NotFound
from mllaunch.schedulers.ssh import failures, program
from mllaunch.schedulers.ssh.links import ANSWER_S, Link, Pipe
from mllaunch.schedulers.ssh.transport import Address

if TYPE_CHECKING:
    from mllaunch.schedulers.ssh.archive import Archive

__all__ = ["Answered", "Calls", "begin", "nobody"]

Answered = Callable[[str], None]

_EVIDENCE = 3  # lines
_OF_SSH = 255  # exit status: ssh(1), "or with 255 if an error occurred"
_MARK = "mllaunch-agent"  # what a login shell prints before it is not ours

# Runs on the node, in whatever Python is there, and goes on as the agent: a second Python would start as slowly again.
_BEGIN = """\
import os, sys
def say(text):
    sys.stdout.buffer.write(text.encode("ascii", "backslashreplace") + b"\\n")
    sys.stdout.buffer.flush()
say({mark!r})
if sys.version_info < (3, 8):
    say("old_python %d.%d.%d %s" % (sys.version_info[:3] + (sys.executable,)))
    sys.exit(0)
base = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
home = os.path.join(base, "mllaunch", "node", {node!r})
place = os.path.join(home, "agents", {digest!r})
try:
    if not os.path.isdir(place):
        import hashlib, io, shutil, zipfile, zlib
        say("send")
        size = int(sys.stdin.buffer.readline())
        data = sys.stdin.buffer.read(size)
        if len(data) != size:
            sys.exit(1)
        try:
            data = zlib.decompress(data)
        except zlib.error:
            pass  # damaged
        if hashlib.sha256(data).hexdigest() != {digest!r}:
            say("damaged")
            sys.exit(0)
        new = "%s.%d" % (place, os.getpid())
        os.makedirs(new, 0o700)
        open(os.path.join(new, "used"), "wb").close()
        try:
            zipfile.ZipFile(io.BytesIO(data)).extractall(new)
            try:
                os.rename(new, place)
            except OSError:
                if not os.path.isdir(place):
                    raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
    used = os.path.join(place, "used")
    open(used, "ab").close()
    os.utime(used)
except OSError as error:
    say("refused %s: %s" % (error.filename or home, error.strerror or error))
    sys.exit(0)
say("ready")
sys.path.insert(0, place)
sys.argv[1:] = ["serve", home]
from mllaunch_agent.__main__ import main
main()
"""


def nobody(node: str) -> None:
    """Wants to know of no answer."""


class Calls:
    """One at a time; other threads wait for their turn. answered: is told the node's name with each answer."""

    def __init__(self, address: Address, pipe: Pipe, answered: Answered = nobody) -> None:
        self.address = address
        self._pipe = pipe
        self._answered = answered
        self._lock = threading.Lock()
        self._is_broken = False

    @property
    def is_broken(self) -> bool:
        """Whether nothing more will come of it: the agent ends by itself when it was asked nothing for long."""
        return self._is_broken or self._pipe.has_ended

    def call(self, name: str, content: bytes | None = None, /, **given: Any) -> Any:
        """What the node answers. MllaunchError: "unreachable", NotFound, or what the node could not do."""
        return self._ask(name, content, given)[0]

    def call_patiently(self, name: str, content: bytes | None = None, /, **given: Any) -> Any:
        """Likewise, where the node may have to work for long: only a connection that has died is not waited for."""
        return self._ask(name, content, given, patiently=True)[0]

    def fetch(self, name: str, /, **given: Any) -> bytes:
        """Likewise, where the answer is bytes."""
        return self._ask(name, None, given)[1]

    def _ask(
        self, name: str, content: bytes | None, given: dict[str, Any], *, patiently: bool = False
    ) -> tuple[Any, bytes]:
        call: dict[str, Any] = {"call": name, "with": given}
        if content is not None:
            call.update(bytes=len(content), takes_bytes=True)
        with self._lock:
            if self._is_broken:  # while this waited for its turn
                raise failures.unreachable(self.address, EOFError("the connection was closed"))
            try:
                self._pipe.set_patience(None if patiently else ANSWER_S)
                self._pipe.stdin.write(json.dumps(call).encode("ascii") + b"\n" + (content or b""))
                self._pipe.stdin.flush()
                line = self._pipe.stdout.readline()
                if not line.endswith(b"\n"):
                    raise EOFError("the connection was closed")
                answer = json.loads(line)
                size = answer.get("bytes", 0)
                data = self._pipe.stdout.read(size) if size else b""
                if len(data) != size:
                    raise EOFError("the connection was closed")
            except BaseException as error:
                from paramiko import SSHException

                self._is_broken = True  # what comes next over it may be the answer to this
                self._pipe.close()
                if not isinstance(error, (OSError, EOFError, ValueError, SSHException)):
                    raise
                raise failures.unreachable(self.address, error) from error
        self._answered(self.address.name)
        if "error" in answer:
            raise self._failed(answer)
        return answer["value"], data

    def _failed(self, answer: dict[str, str]) -> MllaunchError:
        message = f"{self.address.name}: {answer['message']}"
        hint = f"mllaunch doctor --node {self.address.name}"
        if answer["error"] == "not_found":
            return NotFound("not_found", message)
        if answer["error"] == "internal":
            return InternalError("agent", message, hint=hint)
        return MllaunchError(answer["error"], message, hint=hint)

    def close(self) -> None:
        self._pipe.close()


def begin(link: Link, address: Address, archive: Archive, answered: Answered = nobody) -> Calls:
    """Start an agent that answers calls. MllaunchError: "no_python", "old_python", "node_folder", "unreachable"."""
    text = _BEGIN.format(mark=_MARK, digest=archive.digest, node=address.name)
    pipe = None
    try:
        pipe = program.start(link, address.python, text, "serve", archive.digest)
        before: deque[bytes] = deque(maxlen=_EVIDENCE)
        line = pipe.stdout.readline()
        while line and not line.endswith(_MARK.encode() + b"\n"):
            before.append(line)
            line = pipe.stdout.readline()
        if line:
            before.clear()  # a login shell that works greets whom it likes
            line = pipe.stdout.readline()
        if line == b"send\n":
            data = zlib.compress(archive.content)
            pipe.stdin.write(b"%d\n" % len(data) + data)
            pipe.stdin.flush()
            line = pipe.stdout.readline()
    except (OSError, EOFError) as error:
        if pipe is not None:
            pipe.close()
        raise failures.unreachable(address, error) from error
    if line == b"ready\n":
        answered(address.name)
        return Calls(address, pipe, answered)
    printed = [text.decode(errors="replace").strip() for text in before]
    problem = _problem(address, pipe, line.decode(errors="replace").strip(), printed)
    pipe.close()
    raise problem


def _problem(address: Address, pipe: Pipe, said: str, printed: Sequence[str]) -> MllaunchError:
    """said: by our program. printed: the last lines of whatever ran in its place."""
    word, _, rest = said.partition(" ")
    python = address.python or "python3"
    hint = f"nodes: [{{name: {address.name}, python: /PATH/TO/python3}}]   in mllaunch.yaml"
    if word == "old_python":
        version, _, place = rest.partition(" ")
        return MllaunchError(
            "old_python", f"{address.name} has Python {version} ({place}); 3.8 or newer is needed", hint=hint
        )
    if word == "refused":
        return MllaunchError(
            "node_folder",
            f"{address.name}: {rest}",
            hint="the account's home there must exist, be writable and have room; XDG_DATA_HOME names another folder",
        )
    if word == "damaged":
        return MllaunchError("damaged", f"{address.name}: the agent was damaged on its way", hint="try again")
    status, complaint = pipe.complaint()
    if status in (126, 127):
        return MllaunchError(
            "no_python",
            f"{address.name} has no {python}",
            evidence=tuple(complaint.splitlines()[-2:]),
            hint=hint,
        )
    lines = tuple(filter(None, [*printed, *complaint.splitlines()]))
    if status == _OF_SSH and lines:
        return failures.refused(address, lines)
    return MllaunchError(
        "agent_start",
        f"no agent could be started on {address.name}",
        evidence=lines[-_EVIDENCE:]
        or (f"its login shell, or {python}, ended with exit status {status} and said nothing",),
        hint=f"the account needs a login shell that runs commands, and a Python: does this work? "
        f"ssh {address.shown} {python} --version; if that is not a Python, name one: {hint}",
    )
