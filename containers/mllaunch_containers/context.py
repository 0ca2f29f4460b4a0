"""What an engine is sent to build from: a tar in a temporary file that is gone once it is closed."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Mapping
from typing import IO

__all__ = ["of_files", "of_tree"]


def of_files(
    dockerfile: str, files: Mapping[str, bytes], large: tuple[str, IO[bytes], int] | None = None
) -> IO[bytes]:
    """A Dockerfile and what is beside it. No member has a time, so that the engine's cache finds it again.

    large: (path, file to be read from where it stands, size in bytes).
    """
    context = tempfile.TemporaryFile(prefix="mllaunch-")  # noqa: SIM115  the caller closes it
    with tarfile.open(fileobj=context, mode="w") as tar:
        for path, content in {"Dockerfile": dockerfile.encode(), **files}.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        if large is not None:
            info = tarfile.TarInfo(large[0])
            info.size = large[2]
            tar.addfile(info, large[1])
    context.seek(0)
    return context


def of_tree(tree: str) -> IO[bytes]:
    """The whole folder. It holds what is committed, and nothing else."""
    context = tempfile.TemporaryFile(prefix="mllaunch-")  # noqa: SIM115  the caller closes it

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        return info

    with tarfile.open(fileobj=context, mode="w") as tar:
        for name in sorted(os.listdir(tree)):
            tar.add(os.path.join(tree, name), name, filter=plain)
    context.seek(0)
    return context
