"""A wheel of a tiny package, made here: a module ``tiny`` with VERSION, and a program ``tiny`` that prints it."""

from __future__ import annotations

import zipfile
from pathlib import Path


def tiny(folder: Path, version: str) -> Path:
    """The file. Its format: https://packaging.python.org/en/latest/specifications/binary-distribution-format/"""
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
