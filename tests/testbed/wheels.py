"""A tiny package, made here: a module ``tiny`` with VERSION, and a program ``tiny`` that prints it."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path


def tiny(folder: Path, version: str) -> Path:
    """Its wheel. The format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/"""
    info = f"tiny-{version}.dist-info"
    files = {
        "tiny.py": f"VERSION = {version!r}\n\n\ndef main():\n    print('tiny', VERSION)\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: testbed\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\ntiny = tiny:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in (*files, f"{info}/RECORD"))
    path = folder / f"tiny-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return path


# https://peps.python.org/pep-0517/
_BACKEND = """\
import os, shutil, time


def build_wheel(folder, config_settings=None, metadata_directory=None):
    with open({noted!r}, "a") as file:
        file.write("built\\n")
    while not os.path.exists({awaited!r}):
        time.sleep(0.05)
    shutil.copy({wheel!r}, folder)
    return os.path.basename({wheel!r})
"""


def slow(folder: Path, version: str, seen_as: str) -> Path:
    """Its source, which takes until there is a file ``go`` in the folder to be built; each time a line is added to
    ``built``. seen_as: the folder's path where it will be built."""
    (folder / "hidden").mkdir(exist_ok=True)
    wheel = tiny(folder / "hidden", version)
    backend = _BACKEND.format(
        noted=f"{seen_as}/built", awaited=f"{seen_as}/go", wheel=f"{seen_as}/hidden/{wheel.name}"
    )
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        "PKG-INFO": f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n",
        "backend.py": backend,
    }
    path = folder / f"tiny-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as source:
        for name, text in files.items():
            info = tarfile.TarInfo(f"tiny-{version}/{name}")
            info.size = len(text)
            source.addfile(info, io.BytesIO(text.encode()))
    return path
