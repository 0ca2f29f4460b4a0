"""How Python packages are reached from this machine, so that builds of images can reach them in the same way.

Read at run time from pip's own configuration and the environment: no address is written in any file here.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

BUNDLE = "/etc/ssl/certs/ca-certificates.crt"  # the same place on this machine and in Debian's images
_PIP_CONFIG = "/etc/pip.conf"
_CONSTRAINTS = "/etc/pip-constraints.txt"


class Settings(NamedTuple):
    """What goes into an image."""

    pip: Mapping[str, str]  # pip's configuration
    certificates: bytes  # authorities that this machine trusts
    proxies: Mapping[str, str]
    constraints: str = ""  # what pip and uv hold to, a line each

    @property
    def files(self) -> dict[str, bytes]:
        """Absolute path -> content."""
        pip = {**self.pip, **({"constraint": _CONSTRAINTS} if self.constraints else {})}
        lines = ["[global]", *(f"{name} = {value}" for name, value in pip.items())]
        return {
            BUNDLE: self.certificates,
            _PIP_CONFIG: "".join(f"{line}\n" for line in lines).encode(),
            _CONSTRAINTS: self.constraints.encode(),
        }

    @property
    def variables(self) -> dict[str, str]:
        """Environment: certificates for everything that uses OpenSSL's or requests' names, and all that uv wants
        to know, as it does not read pip's configuration."""
        uv = {
            "UV_DEFAULT_INDEX": self.pip.get("index-url"),
            "UV_INDEX": self.pip.get("extra-index-url"),
            "UV_FIND_LINKS": self.pip.get("find-links", "").replace(" ", ",") or None,
            "UV_INSECURE_HOST": self.pip.get("trusted-host"),
            "UV_CONSTRAINT": _CONSTRAINTS if self.constraints else None,
        }
        return {
            "SSL_CERT_FILE": BUNDLE,
            "REQUESTS_CA_BUNDLE": BUNDLE,
            "PIP_ROOT_USER_ACTION": "ignore",
            **self.proxies,
            **{name: value for name, value in uv.items() if value},
        }

    def with_wheels(self, folder: str, constraints: str) -> Settings:
        """Also look in this folder of the image, and hold to these constraints."""
        return self._replace(pip={**self.pip, "find-links": folder}, constraints=f"{constraints}\n")


def of_this_machine() -> Settings:
    """How pip is configured here, less what names this machine's files."""
    pip_settings: dict[str, str] = {}
    # The environment goes before any file.
    for line in sorted(_configuration(), key=lambda line: not line.startswith(":env:")):
        key, _, value = line.partition("=")
        words = [word for word in str(ast.literal_eval(value)).split() if not _is_local(word)]
        if words:
            pip_settings.setdefault(key.rpartition(".")[2], " ".join(words))
    pip_settings["cert"] = BUNDLE
    bundle = Path(os.environ.get("SSL_CERT_FILE", BUNDLE))
    return Settings(pip_settings, bundle.read_bytes(), dict(_proxies()))


def pip(*words: str) -> subprocess.CompletedProcess[str]:
    """Call pip as it is configured here."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def _configuration() -> list[str]:
    """Lines such as ``global.timeout='60'``: what of several files wins, and the environment's ``:env:.timeout``."""
    listed = pip("config", "list")
    assert listed.returncode == 0, listed.stderr
    return listed.stdout.splitlines()


def _is_local(word: str) -> bool:
    return word.startswith(("/", "~", ".", "file:"))


def _proxies() -> list[tuple[str, str]]:
    """Proxies in the environment, but none that listens on this machine's loopback, where no container gets."""
    names = [f"{scheme}_proxy" for scheme in ("http", "https", "all", "no")]
    found = [(name, os.environ.get(name, "")) for name in [*names, *map(str.upper, names)]]
    loopback = ("localhost", "127.0.0.1", "::1")
    return [(name, url) for name, url in found if url and urlsplit(url).hostname not in loopback]
