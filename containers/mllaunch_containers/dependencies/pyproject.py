"""What the project itself says that it needs."""

from __future__ import annotations

import re

from mllaunch_containers.dependencies.requirements import Reading
from mllaunch_containers.dependencies.tree import Tree, shown, unreadable
from mllaunch_containers.spec import Dependencies

__all__ = ["read_pyproject"]


def read_pyproject(tree: Tree, path: str) -> Dependencies:
    """``[project].dependencies``, as a requirements file of one line each."""
    project = tree.toml(path).get("project")
    if not isinstance(project, dict):
        raise unreadable(path, "it has no table [project]")
    dynamic, lines = project.get("dynamic", []), project.get("dependencies", [])
    if isinstance(dynamic, list) and "dependencies" in dynamic:
        note = f"{shown(path)}: its dependencies are dynamic, and cannot be read without running the project"
        return Dependencies("pyproject.toml", path, (("requirements.txt", b""),), False, (note,))
    if not isinstance(lines, list):
        raise unreadable(path, "project.dependencies is no list")
    for line in lines:
        if not isinstance(line, str) or not _PEP_508.fullmatch(line):
            raise unreadable(path, f"in project.dependencies: {shown(str(line))} is no requirement")
    reading = Reading(tree)
    kept = [line for line in lines if not reading.take(path, line, constraint=False)]
    content = "".join(f"{line}\n" for line in kept).encode("utf-8")
    files = (("requirements.txt", content),)
    return Dependencies("pyproject.toml", path, files, reading.pinned(), tuple(reading.notes))


# In one line, no option, no comment, and nothing that would continue on the next line.
_PEP_508 = re.compile(
    r"\s*[A-Za-z0-9](?:(?!\s#)[^\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff])*(?<!\\)"
)
