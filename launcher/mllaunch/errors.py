"""Every error that mllaunch raises on purpose, and the exit code each one leads to.

    MllaunchError            1    the request failed
    ├── UsageError           2    the command line asks for something impossible
    │   └── NameTaken             another run has that name already
    ├── ConfigError          2    the configuration is wrong; carries every fault at once
    ├── Unreachable          1    a node does not answer; what runs there goes on
    ├── NotFound             3    no such run, stream, file
    ├── NotPermitted         4    the user may not
    ├── Interrupted        130    the user pressed Ctrl-C, and is told what became of it
    └── InternalError      125    mllaunch itself failed

Any other exception that reaches the top is a defect of ours: exit code 125, traceback only with ``--debug``.
"""

from __future__ import annotations


class MllaunchError(Exception):
    """A failure with a stable code, a one-line cause, the evidence and the next thing to try.

    Printed as ``error[code]: message``, then one line per piece of evidence, then ``hint: ...``.
    """

    exit_code = 1

    def __init__(
        self, code: str, message: str, *, evidence: tuple[str, ...] = (), hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.evidence = evidence
        self.hint = hint

    def again(self) -> MllaunchError:
        """The same, to be raised once more: one that is raised again and again keeps the frames of every time."""
        return type(self)(self.code, self.message, evidence=self.evidence, hint=self.hint)


class UsageError(MllaunchError):
    exit_code = 2


class Unreachable(MllaunchError):
    """A node cannot be reached now. What runs there goes on."""


class NameTaken(UsageError):
    """A run log has a run of that name (or id) already."""

    def __init__(self, name: str) -> None:
        super().__init__("name_taken", f"there is a run called {name} already", hint="choose another --name")


class ConfigError(MllaunchError):
    exit_code = 2


class NotFound(MllaunchError):
    exit_code = 3


class NotPermitted(MllaunchError):
    exit_code = 4


class Interrupted(MllaunchError):
    """Ctrl-C, where there is more to say of it than that. Printed as one line, its message."""

    exit_code = 130

    def __init__(self, message: str) -> None:
        super().__init__("interrupted", message)


class InternalError(MllaunchError):
    exit_code = 125
