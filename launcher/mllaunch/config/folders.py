"""Where a user's configuration and data live on this platform."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping


def home(environ: Mapping[str, str]) -> str:
    """The folder with everything that mllaunch keeps for a user, absolute; need not exist.

    MLLAUNCH_HOME, else ``mllaunch`` in the platform's data folder.
    """
    chosen = environ.get("MLLAUNCH_HOME")
    if chosen:
        return os.path.abspath(_expanded(chosen, environ))
    return _platform_folder(environ, "XDG_DATA_HOME", ".local/share")


def user_file(environ: Mapping[str, str]) -> str:
    """The user's own configuration file, absolute; need not exist."""
    return _platform_folder(environ, "XDG_CONFIG_HOME", ".config") + "/config.yaml"


def _platform_folder(environ: Mapping[str, str], variable: str, usual: str) -> str:
    # A relative path in such a variable is ignored: https://specifications.freedesktop.org/basedir-spec/latest/
    base = environ.get(variable, "")
    if not base.startswith("/"):
        folder = "Library/Application Support" if sys.platform == "darwin" else usual
        base = _expanded(f"~/{folder}", environ)
    return os.path.join(base, "mllaunch")


def _expanded(path: str, environ: Mapping[str, str]) -> str:
    if path == "~" or path.startswith("~/"):
        return (environ.get("HOME") or os.path.expanduser("~")) + path[1:]
    return path
