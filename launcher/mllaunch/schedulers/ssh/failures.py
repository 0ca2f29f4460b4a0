"""What to say where a node cannot be reached: by its name, why, and what the user can do about it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mllaunch.errors import MllaunchError, NotPermitted, Unreachable
from mllaunch.schedulers.ssh.routes import SSH_PORT

if TYPE_CHECKING:
    from fabric import Connection

    from mllaunch.schedulers.ssh.hostkeys import Known
    from mllaunch.schedulers.ssh.routes import Route
    from mllaunch.schedulers.ssh.transport import Address

__all__ = ["Stage", "UnknownKey", "explained", "refused", "unreachable"]

_EVIDENCE = 3  # lines
# What OpenSSH says where it reached a machine, and either of them did not want the other.
_REFUSALS = ("Permission denied", "Host key verification failed", "Too many authentication failures")


class UnknownKey(Exception):
    def __init__(self, hostname: str, key: Any) -> None:
        super().__init__(hostname)
        self.hostname = hostname
        self.key = key


class Stage(NamedTuple):
    """One machine of the way: the node itself, or one that leads to it."""

    route: Route
    connection: Connection
    known: Known

    @property
    def has_let_in(self) -> bool:
        transport = self.connection.client.get_transport()
        return transport is not None and bool(transport.is_authenticated())

    @property
    def has_answered(self) -> bool:
        transport = self.connection.client.get_transport()
        # Whoever has accepted a connection, and said nothing since, has not answered.
        return transport is not None and bool(transport.is_active() and transport.initial_kex_done)


def explained(address: Address, stages: Sequence[Stage], error: BaseException) -> BaseException:
    """What to raise in place of what a library raised; what is none of its business, such as Ctrl-C, as it is."""
    import paramiko
    from invoke.exceptions import Exit

    stage = next((stage for stage in stages if not stage.has_let_in), stages[-1])
    if isinstance(error, paramiko.BadHostKeyException):
        return _changed(address, stage, error)
    if isinstance(error, UnknownKey):
        return _unknown(address, stage, error)
    is_of_ssh = isinstance(error, (paramiko.SSHException, OSError, EOFError, Exit))
    if isinstance(error, paramiko.AuthenticationException) or (is_of_ssh and stage.has_answered):
        return _no_login(address, stage, error)
    if is_of_ssh:
        return unreachable(address, error)
    if isinstance(error, Exception):
        return MllaunchError(
            "ssh", f"{address.name}: {type(error).__name__}: {error}", hint=f"{_typed(address)} true"
        )
    return error


def refused(address: Address, said: Sequence[str]) -> MllaunchError:
    """What to raise where ssh itself gave up. said: the lines it printed; behind a jump that refuses they go on."""
    for number, line in reversed(list(enumerate(said))):
        if any(words in line for words in _REFUSALS):
            before = tuple(said[max(0, number - _EVIDENCE) : number])
            message = f"{address.name}: ssh says: {line.strip()}"
            hint = f"does this work, and asks nothing? {_typed(address, '-o', 'BatchMode=yes')} true"
            return NotPermitted("ssh_login", message, evidence=before, hint=hint)
    return unreachable(address, ConnectionError(said[-1]))


def unreachable(address: Address, error: BaseException) -> Unreachable:
    silent = isinstance(error, TimeoutError) or "timed out" in str(error)
    said = "it does not answer" if silent else getattr(error, "strerror", None) or str(error)
    said = said or type(error).__name__
    where = "" if address.host in (None, address.name) else f" ({address.host})"
    return Unreachable(
        "unreachable",
        f"{address.name}{where} cannot be reached: {said}",
        hint=f"does this work? {_typed(address)} true",
    )


def _who(address: Address, stage: Stage) -> str:
    """The node, or one that leads to it."""
    is_node = stage.route.word == (address.host or address.name)
    return address.name if is_node else f"{stage.route.word}, on the way to {address.name},"


def _no_login(address: Address, stage: Stage, error: BaseException) -> NotPermitted:
    hint = f"does this work? {_typed(address)} true   (ssh-add gives the agent a key with a passphrase)"
    if stage.route.shares:
        hint = f"log in yourself, and the connection is shared: {_typed(address, '-MNf')}"
    who = f"{_who(address, stage)} lets nobody in as {stage.route.user}"
    return NotPermitted("ssh_login", f"{who}: {str(error).rstrip('.')}", hint=hint)


def _unknown(address: Address, stage: Stage, error: UnknownKey) -> MllaunchError:
    who = _who(address, stage)
    if error.key in stage.known.revoked:
        return NotPermitted("changed_host_key", f"{who} shows a key that was revoked: {_print(error.key)}")
    return NotPermitted(
        "unknown_host_key",
        f"{who.rstrip(',')}: nobody has said yet that this is its key: {_print(error.key)}",
        evidence=(
            "compare it with what the machine itself says: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
        ),
        hint=_accept(address, stage),
    )


def _changed(address: Address, stage: Stage, error: Any) -> MllaunchError:
    file = next(file for key, file in stage.known.keys if key == error.expected_key)
    forget = shlex.join(["ssh-keygen", "-R", stage.route.known_as, "-f", file])
    return NotPermitted(
        "changed_host_key",
        f"{_who(address, stage)} shows another key than before: {_print(error.key)}, not "
        f"{_print(error.expected_key)}",
        evidence=("either the machine was set up anew, or somebody else answers in its place",),
        hint=f"if it was set up anew: {forget}   and then: {_accept(address, stage)}",
    )


def _accept(address: Address, stage: Stage) -> str:
    """The command that accepts a machine's key after asking."""
    is_node = stage.route.word == (address.host or address.name)
    there = address if is_node else address._replace(name=stage.route.word, host=None, user=None, port=None)
    return f"{_typed(there)} true"


def _typed(address: Address, *first: str) -> str:
    """What the user would type to log in."""
    words = ["ssh", *first]
    # Quotes of ssh's own, which takes several files otherwise.
    words += ["-o", f'UserKnownHostsFile="{address.known_hosts}"'] if address.known_hosts else []
    words += ["-F", address.config] if address.config else []
    words += ["-p", str(address.port)] if address.port not in (None, SSH_PORT) else []
    return shlex.join([*words, address.shown])


def _print(key: Any) -> str:
    """As ssh-keygen -l shows it."""
    return f"{key.get_name()} {key.fingerprint}"
