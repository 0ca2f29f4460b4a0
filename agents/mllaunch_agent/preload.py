"""The C layer (hook/preload.c): compiled once for each machine, and how it gets into a task's processes."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from typing import Dict, Optional, Tuple

from mllaunch_agent.tracing import HOOK

__all__ = ["build", "environment"]

_SOURCE = os.path.join(HOOK, "preload.c")
_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-O2", "-shared", "-fPIC", "-w")
_LIBRARIES = ("-ldl", "-lpthread")
_PATIENCE_S = 20.0


def build(cache: str) -> Tuple[Optional[str], Optional[str]]:
    """(the library, None), compiled if it is not there yet; or (None, why there is none).

    cache: a folder of this user. A failure is remembered for as long as source and machine stay what they are.
    """
    with open(_SOURCE, "rb") as file:
        version = hashlib.sha256(
            file.read() + platform.machine().encode() + platform.release().encode()
        ).hexdigest()
    library = os.path.join(cache, "preload-%s.so" % version[:16])
    failed = library + ".failed"
    if os.path.exists(library):
        return library, None
    if os.path.exists(failed):
        with open(failed, encoding="utf-8", errors="replace") as text:
            return None, text.read()
    os.makedirs(cache, exist_ok=True)
    why = _compile(library)
    if why is None:
        return library, None
    with open(failed, "w", encoding="utf-8") as text:
        text.write(why)
    return None, why


def _compile(library: str) -> Optional[str]:
    """Make it, or say why not. Several processes may do so at once."""
    temporary = "%s.%d" % (library, os.getpid())
    why = "there is no C compiler"
    for compiler in _COMPILERS:
        try:
            done = _run(compiler, *_FLAGS, "-o", temporary, _SOURCE, *_LIBRARIES)
        except FileNotFoundError:
            continue
        except (OSError, subprocess.TimeoutExpired) as e:
            return "%s: %s" % (compiler, e)
        if done.returncode != 0:
            why = "%s: %s" % (compiler, done.stderr.strip()[-200:])
            continue
        trouble = _try(temporary)
        if trouble is None:
            os.rename(temporary, library)
            return None
        os.unlink(temporary)
        return trouble
    return why


def _try(library: str) -> Optional[str]:
    """Whether a program runs with it as it does without; what is wrong if not."""
    with_it = {**os.environ, "LD_PRELOAD": library}
    try:
        done = _run("/bin/sh", "-c", "exit 7", env=with_it)
    except (OSError, subprocess.TimeoutExpired) as e:
        return "it cannot be loaded: %s" % e
    if done.returncode != 7 or done.stderr or done.stdout:
        return "it cannot be loaded: %s" % (done.stderr.strip() or "exit status %d" % done.returncode)[-200:]
    return None


def _run(*argv: str, env: Optional[Dict[str, str]] = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=_PATIENCE_S,
        check=False,
        encoding="utf-8",
        errors="replace",
        env=env,
    )


def environment(library: str, existing: Optional[str]) -> Optional[str]:
    """The value of LD_PRELOAD with the library behind what is there already, never in its place: ld.so(8)."""
    if " " in library or ":" in library:
        return existing
    return "%s %s" % (existing, library) if existing else library
