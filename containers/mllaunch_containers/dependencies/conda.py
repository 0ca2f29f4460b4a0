"""environment.yml: a conda environment, with a list of what pip is to install in it."""

from __future__ import annotations

import re
from collections.abc import Collection

from mllaunch_containers.dependencies.requirements import Reading
from mllaunch_containers.dependencies.tree import Tree, unreadable
from mllaunch_containers.spec import Dependencies

__all__ = ["read_conda"]


def read_conda(tree: Tree, path: str) -> Dependencies:
    """Dependencies of kind ``environment.yml``; local projects are left out of what pip is to install."""
    text = tree.text(path)
    packages, pip = _conda_lists(path, text)
    reading = Reading(tree)
    local = [line for line in pip if reading.take(path, line, constraint=False)]
    content = tree.read(path)
    if local:
        content = _without_entries(text, local, all_of_pip=len(local) == len(pip)).encode()
        if _conda_lists(path, content.decode()) != (packages, [line for line in pip if line not in local]):
            raise unreadable(path, "its lines for the repository itself cannot be told from the others")
    reading.add(path, content)
    reading.follow()
    made = reading.dependencies("environment.yml", path)
    return made._replace(pinned=made.pinned and all(map(_conda_exact, packages)))


def _conda_lists(path: str, text: str) -> tuple[list[str], list[str]]:
    import yaml

    try:
        # All scalars as text: 3.10 is a version. Not the loader in C, which recurses without a check of its own.
        document = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise unreadable(path, f"not valid YAML: {error}") from error
    except RecursionError as error:
        raise unreadable(path, "nested too deep") from error
    except (ValueError, OverflowError) as error:  # such as an escaped character beyond Unicode
        raise unreadable(path, f"not valid YAML: {error}") from error
    listed = document.get("dependencies") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise unreadable(path, "it has no list of dependencies")
    packages = [entry for entry in listed if isinstance(entry, str)]
    others = [entry for entry in listed if not isinstance(entry, str)]
    if not others:
        return packages, []
    pip = others[0].get("pip") if len(others) == 1 and isinstance(others[0], dict) else None
    if pip == "":
        return packages, []
    if not isinstance(pip, list) or not all(isinstance(line, str) for line in pip):
        raise unreadable(path, "its dependencies are not names and one list for pip")
    return packages, pip


def _without_entries(text: str, entries: Collection[str], all_of_pip: bool) -> str:
    """The file without these entries of lists, and without ``- pip:`` if nothing would be left of it."""
    kept = []
    for line in text.splitlines(keepends=True):
        entry = re.fullmatch(r"\s*-\s+(['\"]?)(.*?)\1\s*(?:\s#.*)?", line.rstrip())
        if entry and (entry[2] in entries or (all_of_pip and re.fullmatch(r"pip\s*:", entry[2]))):
            continue
        kept.append(line)
    return "".join(kept)


_CONDA_SPEC = re.compile(r"(?:\S+::)?[\w.-]+\s*(==?)\s*([\w.!+-]+)(?:=([\w.+-]+))?")


def _conda_exact(spec: str) -> bool:
    """Whether a conda package has one version. ``python=3.10`` has not: one ``=`` means "begins with".

    So it needs three numbers, or a build.
    """
    found = _CONDA_SPEC.fullmatch(spec.strip())
    return found is not None and (found[1] == "==" or found[2].count(".") > 1 or found[3] is not None)
