"""Locks: files that decide every version."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection
from typing import Any

from mllaunch_containers.dependencies.tree import SET, Tree, left_out, parsed_toml, shown, unreadable
from mllaunch_containers.spec import Dependencies, ImageError

__all__ = ["read_lock", "read_pylock"]


def read_lock(tree: Tree, path: str) -> Dependencies:
    """uv.lock and poetry.lock: their own tools read them, and need pyproject.toml for it."""
    name = posixpath.basename(path)
    beside = posixpath.join(posixpath.dirname(path), "pyproject.toml")
    if beside not in tree.paths:
        raise ImageError(
            "no_dependencies_file",
            f"{shown(path)} cannot be used without the pyproject.toml beside it, which is not in the commit",
            hint=f"commit it, or {SET}",
        )
    local = []
    for package in _packages(path, tree.toml(path), "package"):
        source = package.get("source")
        if not isinstance(source, dict):
            continue
        places = [source[key] for key in ("editable", "directory", "virtual", "path") if key in source]  # uv
        if source.get("type") in ("directory", "file"):  # poetry
            places.append(source.get("url"))
        if places and places != ["."]:
            local.append(f"{package.get('name')} ({places[0]})")
    tree.toml(beside)  # better said now than by a build
    files = ((name, tree.read(path)), ("pyproject.toml", tree.read(beside)))
    return Dependencies(name, path, files, True, tuple(left_out(path, line) for line in local))


def read_pylock(tree: Tree, path: str) -> Dependencies:
    """pylock.toml. ``uv export`` lists the project itself, as a directory: that goes."""
    document = tree.toml(path)
    packages = _packages(path, document, "packages")
    local = [number for number, package in enumerate(packages) if _in_tree(package)]
    content = tree.read(path)
    if local:
        content = _without_packages(tree.text(path), local).encode()
        document["packages"] = [package for n, package in enumerate(packages) if n not in local]
        try:
            same = parsed_toml(path, content.decode()) == document
        except RecursionError as error:
            # A dotted key of a thousand parts, which tomllib reads without recursion.
            raise unreadable(path, "nested too deep") from error
        if not same:
            raise unreadable(path, "the packages of the repository itself cannot be told from the others")
    notes = tuple(left_out(path, str(packages[number].get("name"))) for number in local)
    return Dependencies("pylock.toml", path, ((posixpath.basename(path), content),), True, notes)


def _in_tree(package: dict[str, Any]) -> bool:
    """Whether a package of a pylock.toml comes from the repository's own files."""
    if "directory" in package:
        return True
    wheels = package.get("wheels")
    sources = [package.get("archive"), package.get("sdist"), *(wheels if isinstance(wheels, list) else [])]
    known = [source for source in sources if isinstance(source, dict)]
    return bool(known) and all("path" in source and "url" not in source for source in known)


def _without_packages(text: str, numbers: Collection[int]) -> str:
    """The file without the packages of these numbers, each from its header to the next one's."""
    kept, number, inside = [], -1, False
    for line in text.splitlines(keepends=True):
        header = re.match(r"\s*\[+\s*([\w-]+)", line)
        if re.match(r"\s*\[\[\s*packages\s*\]\]", line):
            number, inside = number + 1, True
        elif header and header[1] != "packages":
            inside = False
        if not (inside and number in numbers):
            kept.append(line)
    if len(numbers) == number + 1:
        kept.insert(0, "packages = []\n")  # the key is required
    return "".join(kept)


def _packages(path: str, document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    packages = document.get(key, [])
    if not isinstance(packages, list) or not all(isinstance(package, dict) for package in packages):
        raise unreadable(path, f"{key} is no list of tables")
    return packages
