"""Facts of the tasks' interpreter: which Python it is and every distribution installed in it."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Mapping, Optional, Tuple

from mllaunch_agent.probes import NotCaptured, not_captured

__all__ = ["facts"]

MAX_ANSWER_BYTES = 16 << 20  # a thousand distributions make 60 KB; what is not Python may write for ever
MARK = b"mllaunch-python-facts:"  # a user's sitecustomize may print, too

# Runs in the tasks' interpreter, any version of Python 3. With -c the working directory comes first on
# sys.path: it is removed before the first import from a file, lest a user's json.py be executed. Metadata is
# scanned by hand because importlib.metadata parses each file as an e-mail, several times: 0.1 s instead of
# 0.6 s for 400 packages.
SCRIPT = r"""
import sys
if sys.path and sys.path[0] == "":
    del sys.path[0]
import json, re
facts = {
    "version": "%d.%d.%d" % sys.version_info[:3],
    "implementation": sys.implementation.name,
    "executable": sys.executable,
    "prefix": sys.prefix,
    "packages": None,
}
def described(distribution):
    text = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO")
    text = text or distribution.read_text("")  # a single file, .egg-info
    found = {}
    for line in (text or "").splitlines():
        if not line.strip():
            break
        key, _, value = line.partition(":")
        found.setdefault(key.lower(), value.strip())
    return found.get("name"), found.get("version")
try:
    from importlib.metadata import distributions
    packages = {}
    for distribution in distributions():
        try:
            name, version = described(distribution)
        except Exception:
            continue
        if name:
            packages.setdefault(re.sub("[-_.]+", "-", name).lower(), {"name": name, "version": version})
    facts["packages"] = [packages[key] for key in sorted(packages)]
except ImportError:
    facts["error"] = "Python %s has no importlib.metadata" % facts["version"]
sys.stdout.write("\nmllaunch-python-facts:" + json.dumps(facts) + "\n")
"""


def facts(
    interpreter: str, environ: Mapping[str, str], cwd: Optional[str] = None, timeout_s: float = 20.0
) -> Tuple[Dict[str, Any], List[NotCaptured]]:
    """{"version", "implementation", "executable", "prefix", "packages": [{"name", "version"}]}, as the tasks
    see them.

    The interpreter gets the tasks' environment and working folder, so PYTHONPATH and .pth files count as
    they do for them. Packages are sorted by name; of two with one name the first on sys.path counts, the one
    that is imported. A missing interpreter, one that is no Python, or one that hangs gives ({}, [why]); it
    is killed after timeout_s.
    """
    try:
        output, why = _run(
            [interpreter, "-c", SCRIPT], dict(environ, PYTHONDONTWRITEBYTECODE="1"), cwd, timeout_s
        )
    except (OSError, ValueError) as error:
        return {}, [
            not_captured("python", "%s: %s" % (interpreter, getattr(error, "strerror", None) or error))
        ]
    found = parse(output)
    if found is None:
        return {}, [
            not_captured("python", "%s %s" % (interpreter, why or "does not answer as a Python interpreter"))
        ]
    unlisted = found.pop("error", None)
    return found, [] if unlisted is None else [not_captured("python packages", unlisted)]


def parse(output: bytes) -> Optional[Dict[str, Any]]:
    """The facts in what the interpreter printed, or None when they are not there."""
    import json

    for line in reversed(output.splitlines()):
        if line.startswith(MARK):
            try:
                found = json.loads(line[len(MARK) :].decode("utf-8"))
            except ValueError:
                return None
            return found if isinstance(found, dict) else None
    return None


def _run(
    argv: List[str], environ: Dict[str, str], cwd: Optional[str], timeout_s: float
) -> Tuple[bytes, Optional[str]]:
    """(stdout, why it failed or None). Bounded in time and size, at low priority, leaving no process
    behind."""
    import signal
    import subprocess

    with subprocess.Popen(
        argv,
        env=environ,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    ) as process:
        try:
            os.setpriority(
                os.PRIO_PROCESS, process.pid, 19
            )  # preexec_fn is not safe in a program with threads
        except OSError:
            pass  # it has ended already
        output, why = b"", None
        try:
            assert process.stdout is not None
            output, why = _read(process.stdout.fileno(), time.monotonic() + timeout_s)
        finally:
            try:
                if why is not None:
                    os.killpg(process.pid, signal.SIGKILL)
            except OSError:
                pass
        status = process.wait()
    if why is None and status:
        last = output.decode("utf-8", "replace").strip().splitlines()[-1:]
        why = "ended with %d: %s" % (status, "".join(last)[:200])
    return output, why


def _read(file: int, deadline_s: float) -> Tuple[bytes, Optional[str]]:
    import select

    output = b""
    while True:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([file], [], [], left_s)[0]:
            return output, "did not answer in time"
        chunk = os.read(file, 1 << 16)
        if not chunk:
            return output, None
        output += chunk
        if len(output) > MAX_ANSWER_BYTES:
            return output[-MAX_ANSWER_BYTES:], "writes without end"
