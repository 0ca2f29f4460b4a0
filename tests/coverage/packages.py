"""A Python with the libraries whose functions are followed; made once, and kept with the other parts of the testbed."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.testbed import images

PACKAGES = (f"torch=={images.TORCH}", "safetensors==0.8.0", "h5py==3.16.0", "joblib==1.6.0", "keras==3.15.1")


def python() -> tuple[str | None, str | None]:
    """(the interpreter, None); or (None, why there is none). The first time takes a minute, and 1 GB."""
    which = hashlib.sha256(" ".join(PACKAGES).encode()).hexdigest()[:12]
    kept = images.CACHE / f"coverage-{which}-{sys.version_info[0]}.{sys.version_info[1]}"
    if not kept.exists():
        images.CACHE.mkdir(exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix="coverage-new-", dir=images.CACHE))
        problem = _install(new)
        if problem or kept.exists():  # another session was quicker
            shutil.rmtree(new)
        else:
            new.rename(kept)
        if problem:
            return None, problem
    return str(kept / "bin" / "python"), None


def _install(folder: Path) -> str | None:
    """What went wrong, or None."""
    wheel = images.torch_wheel()
    if not wheel:
        return "there is no torch"
    pip = [folder / "bin" / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    commands = (
        [sys.executable, "-m", "venv", folder],
        [*pip, "--only-binary=:all:", "--find-links", wheel.parent, *PACKAGES],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            return done.stderr[-500:]
    return None
