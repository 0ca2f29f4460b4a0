"""Which packages a repository asks for: finds the file that says so, and reads it; no input or output of its own.

Nothing is resolved here. A file is passed on as it is, but for what would install the project itself, which is not
there yet when packages are installed.

    tree          the repository's files as text
    locks         uv.lock, poetry.lock, pylock.toml
    requirements  requirements files, and what they include
    pyproject     [project].dependencies
    conda         environment.yml
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection

from mllaunch_containers.dependencies.conda import read_conda
from mllaunch_containers.dependencies.locks import read_lock, read_pylock
from mllaunch_containers.dependencies.pyproject import read_pyproject
from mllaunch_containers.dependencies.requirements import read_requirements
from mllaunch_containers.dependencies.tree import SET, Tree, shown
from mllaunch_containers.spec import Dependencies, ImageError

__all__ = ["choose"]

_PYLOCK = re.compile(r"pylock\.(?:[^.]+\.)?toml")  # https://peps.python.org/pep-0751/#file-name
_REQUIREMENTS = re.compile(r"requirements.*\.txt", re.DOTALL)


def choose(
    listing: Collection[str], read: Callable[[str], bytes], workdir: str, chosen: str | None
) -> Dependencies:
    """The dependencies that hold for a folder of the repository, or those of the chosen file.

    listing: the paths of all files of the tree, relative to its root. read: the content of one; that of its target
    for a symbolic link. workdir: a folder, "" for the root; its files come first, then those of the folders above.
    chosen: a path relative to the root, or None. Raises ImageError: ``dependencies_ambiguous``,
    ``dependencies_unreadable``, ``dependencies_outside`` (a file includes one outside of the tree),
    ``dependencies_unknown`` (no kind has such a name) and ``no_dependencies_file``.
    """
    tree = Tree(frozenset(listing), read)
    path = _found(tree, workdir) if chosen is None else posixpath.normpath(chosen)
    if path is None:
        note = "no file says which packages are needed, so none is pinned: the base image alone is used"
        return Dependencies("none", None, (), False, (note,))
    if path not in tree.paths:
        raise ImageError("no_dependencies_file", f"{shown(path)} is not in the commit", hint=SET)
    name = posixpath.basename(path)
    if name in ("uv.lock", "poetry.lock"):
        return read_lock(tree, path)
    if _PYLOCK.fullmatch(name):
        return read_pylock(tree, path)
    if name == "pyproject.toml":
        return read_pyproject(tree, path)
    if name.endswith((".yml", ".yaml")):
        return read_conda(tree, path)
    if name.endswith((".txt", ".in")):
        return read_requirements(tree, path)
    raise ImageError(
        "dependencies_unknown",
        f"{shown(path)} is no kind of dependency file that is known",
        hint="known are uv.lock, pylock.toml, poetry.lock, *.txt, *.in, pyproject.toml, *.yml and *.yaml",
    )


def _found(tree: Tree, workdir: str) -> str | None:
    parts = [part for part in posixpath.normpath(workdir).split("/") if part not in ("", ".")]
    folders = ["/".join(parts[:depth]) for depth in range(len(parts), -1, -1)]
    names: dict[str, set[str]] = {folder: set() for folder in folders}
    for path in tree.paths:
        above, _, name = path.rpartition("/")
        if above in names:
            names[above].add(name)
    for folder in folders:
        found = _candidate(tree, folder, names[folder])
        if found is not None:
            return posixpath.join(folder, found)
    return None


def _candidate(tree: Tree, folder: str, names: set[str]) -> str | None:
    if "uv.lock" in names:
        return "uv.lock"
    pylock = _only("pylock.toml", folder, [name for name in names if _PYLOCK.fullmatch(name)])
    if pylock is not None:
        return pylock
    if "poetry.lock" in names:
        return "poetry.lock"
    requirements = _only(
        "requirements.txt", folder, [name for name in names if _REQUIREMENTS.fullmatch(name)]
    )
    if requirements is not None:
        return requirements
    # Many a pyproject.toml only configures tools.
    if "pyproject.toml" in names and "project" in tree.toml(posixpath.join(folder, "pyproject.toml")):
        return "pyproject.toml"
    return next((name for name in ("environment.yml", "environment.yaml") if name in names), None)


def _only(usual: str, folder: str, names: list[str]) -> str | None:
    if usual in names or not names:
        return usual if names else None
    if len(names) > 1:
        where = shown(folder) if folder else "the root"
        raise ImageError(
            "dependencies_ambiguous",
            f"several files in {where} say which packages are needed, and none is named {usual}",
            evidence=tuple(shown(posixpath.join(folder, name)) for name in sorted(names)),
            hint=SET,
        )
    return names[0]
