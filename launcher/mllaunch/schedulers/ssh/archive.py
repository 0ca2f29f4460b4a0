"""The agent as one archive, made of the installed package: both sides are always of one version."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Iterator
from typing import NamedTuple

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that the format knows: the same files give the same archive
_SUFFIXES = (".py", ".c")


class Archive(NamedTuple):
    """digest: SHA-256 of the bytes, which are not compressed: they are made to learn it, and seldom sent."""

    digest: str
    content: bytes


def make() -> Archive:
    """``mllaunch_agent``, which needs nothing but Python; and ``lib/pynvml.py``, where it is installed."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as archive:
        for name, path in _files():
            with open(path, "rb") as file:
                archive.writestr(zipfile.ZipInfo(name, _EPOCH), file.read())
    content = whole.getvalue()
    return Archive(hashlib.sha256(content).hexdigest(), content)


def _files() -> Iterator[tuple[str, str]]:
    """(name in the archive, path), in order."""
    import mllaunch_agent

    root = os.path.dirname(os.path.dirname(os.path.abspath(mllaunch_agent.__file__)))
    for folder, folders, names in os.walk(os.path.join(root, "mllaunch_agent")):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if name.endswith(_SUFFIXES):
                yield os.path.relpath(path, root), path
    from importlib.util import find_spec

    pynvml = find_spec("pynvml")
    if pynvml is not None and pynvml.origin is not None:
        yield "lib/pynvml.py", pynvml.origin
