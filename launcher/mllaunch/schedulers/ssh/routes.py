"""How OpenSSH would reach a machine, as it says itself (``ssh -G``): all of the user's configuration counts, what it
includes and matches too.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mllaunch.errors import ConfigError, MllaunchError, NotFound
from mllaunch.schedulers.ssh.links import CONNECT_S

__all__ = ["SSH_PORT", "Route", "hop", "look_up", "parse", "way"]

SSH_PORT = 22
# What would keep a command from being run as any other, and what it is usually; where this OpenSSH knows of it.
_USUAL = {"sessiontype": "default", "stdinnull": "no", "forkafterauthentication": "no"}


class Route(NamedTuple):
    """The way to one machine. word: what the user's configuration knows it by. keys: private key files that are there.

    agent: the socket of the agent to ask; None for the user's own; "none". jumps: the machines on the way, as ssh(1) -J
    takes them, the first one first. command: in whose place a program is the way, for a shell. known_hosts: files.
    known_as: the name that its key has in them. revoked: a file of keys that are not to be trusted. shares: whether
    OpenSSH may hold a connection to it open. usual: options for ssh(1) -o that have it run commands as it usually does.
    """

    word: str
    host: str
    user: str
    port: int
    keys: tuple[str, ...]
    agent: str | None
    jumps: tuple[str, ...]
    command: str | None
    known_hosts: tuple[str, ...]
    known_as: str
    revoked: str | None
    shares: bool
    usual: tuple[str, ...] = ()


def look_up(word: str, user: str | None, port: int | None, config: str | None) -> Route:
    """ConfigError if the ssh configuration cannot be read, NotFound if there is no OpenSSH here."""
    if config is not None and not os.path.exists(config):
        raise ConfigError("ssh_config", f"there is no {config}", hint="ssh: {config: PATH}")
    argv = ["ssh", "-G", *(("-F", config) if config else ()), *(("-l", user) if user else ())]
    argv += [*(("-p", str(port)) if port else ()), "--", word]
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=CONNECT_S, check=False
        )
    except FileNotFoundError as error:
        hint = "install OpenSSH's client; on Debian: sudo apt install openssh-client"
        raise NotFound("no_program", "there is no ssh on your PATH", hint=hint) from error
    except subprocess.TimeoutExpired as error:
        raise MllaunchError("ssh_config", f"ssh -G {word} does not end", hint=f"ssh -G {word}") from error
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise ConfigError(
            "ssh_config",
            f"ssh cannot tell how to reach {word}: {said[0] if said else 'it says nothing'}",
            evidence=tuple(said[1:]),
        )
    return parse(word, done.stdout.decode(errors="surrogateescape"))


def parse(word: str, said: str) -> Route:
    """said: what ``ssh -G`` printed, a line ``key value`` for each."""
    found: dict[str, list[str]] = {}
    for line in said.splitlines():
        key, _, value = line.partition(" ")
        found.setdefault(key, []).append(value)

    def one(key: str, default: str = "none") -> str:
        return found.get(key, [default])[0]

    host, user, port = one("hostname", word), one("user", ""), int(one("port", "22"))
    alias = one("hostkeyalias")
    known_as = alias if alias != "none" else host if port == SSH_PORT else f"[{host}]:{port}"
    agent = one("identityagent", "SSH_AUTH_SOCK")
    command = one("proxycommand")
    tokens = _tokens(word, host, user, port)
    keys = (_path(path, tokens) for path in found.get("identityfile", ()))
    revoked = one("revokedhostkeys")
    files = [
        *_files(one("userknownhostsfile", "")),
        *_files(one("globalknownhostsfile", "")),
    ]
    return Route(
        word,
        host,
        user,
        port,
        tuple(path for path in keys if os.path.isfile(path)),
        None if agent == "SSH_AUTH_SOCK" else agent if agent == "none" else _path(agent, tokens),
        tuple(jump for jump in one("proxyjump").split(",") if jump != "none"),
        None if command == "none" else _expanded(command, tokens),
        tuple(files),
        known_as,
        None if revoked == "none" else os.path.expanduser(revoked),
        one("controlpath") != "none",
        tuple(f"{name}={value}" for name, value in _USUAL.items() if found.get(name, [value]) != [value]),
    )


def way(route: Route, config: str | None, met: tuple[tuple[str, int], ...] = ()) -> list[Route]:
    """The way to a machine, the machine itself last. met: machines whose way leads here."""
    before: list[Route] = []
    met = (*met, (route.host, route.port))
    for jump in route.jumps:
        there = look_up(*hop(jump), config)
        if (there.host, there.port) in met:
            continue  # what the configuration says for all machines it says for those on the way, too
        before += [there] if before or not there.jumps else way(there, config, met)
    return [*before, route]


def hop(jump: str) -> tuple[str, str | None, int | None]:
    """(word, user, port) of a machine on the way: ``[user@]host[:port]``, or a URI ``ssh://...``."""
    user, _, place = jump.removeprefix("ssh://").rpartition("@")
    host, port = place, ""
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        port = rest.removeprefix(":")
    elif place.count(":") == 1:
        host, port = place.split(":")
    return host, user or None, int(port) if port.isdigit() else None


def _files(said: str) -> Sequence[str]:
    """Names separated by spaces. Which of the spaces are part of a name is not said: the files that are there tell."""
    words = said.split(" ") if said not in ("", "none", "/dev/null") else []
    found = []
    while words:
        for count in range(len(words), 0, -1):
            path = os.path.expanduser(" ".join(words[:count]))
            if os.path.exists(path):
                found.append(path)
                break
        words = words[count:]
    return found


def _tokens(word: str, host: str, user: str, port: int) -> dict[str, str]:
    """ssh_config(5), TOKENS."""
    import getpass

    here = os.uname().nodename
    return {
        "%": "%",
        "h": host,
        "k": host,
        "n": word,
        "p": str(port),
        "r": user,
        "d": os.path.expanduser("~"),
        "i": str(os.getuid()),
        "u": getpass.getuser(),
        "l": here,
        "L": here.partition(".")[0],
    }


def _path(text: str, tokens: Mapping[str, str]) -> str:
    """A file's name, with tokens, a tilde and variables of the environment."""
    return os.path.expanduser(os.path.expandvars(_expanded(text, tokens)))


def _expanded(text: str, tokens: Mapping[str, str]) -> str:
    parts = text.split("%")
    made = parts[0]
    rest = iter(parts[1:])
    for part in rest:
        if part == "":  # of "%%" the second one
            made += "%" + next(rest, "")
        else:
            made += tokens.get(part[0], "%" + part[0]) + part[1:]
    return made
