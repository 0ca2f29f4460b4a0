"""All targets, in the order of the page."""

from __future__ import annotations

from tests.coverage import code, files, libraries, processes, programs
from tests.coverage.target import Target

__all__ = ["TARGETS"]

TARGETS: tuple[Target, ...] = (
    *files.TARGETS,
    *libraries.TARGETS,
    *code.TARGETS,
    *processes.TARGETS,
    *programs.TARGETS,
)
