"""Requirements files, https://pip.pypa.io/en/stable/reference/requirements-file-format/"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

from mllaunch_containers.dependencies.tree import Tree, left_out, shown, unreadable
from mllaunch_containers.spec import Dependencies, ImageError

__all__ = ["Reading", "read_requirements"]


def read_requirements(tree: Tree, path: str) -> Dependencies:
    reading = Reading(tree)
    reading.follow(path)
    return reading.dependencies("requirements", path)


class _Requirement(NamedTuple):
    """A line that asks for a package. name: normalised, or None. exact: whether it decides the version.

    marker: when it holds; "" is always.
    """

    name: str | None
    exact: bool
    marker: str


class Reading:
    """Requirements and the files they include, as pip reads them."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._files: dict[str, bytes] = {}
        self._waiting: list[tuple[str, bool]] = []
        self._asked: list[_Requirement] = []
        self._pins: set[tuple[str | None, str]] = set()
        self._all_known = True
        self.notes: list[str] = []

    def pinned(self) -> bool:
        """Whether every requirement decides its version, or another line of that name does."""
        return self._all_known and all(
            one.exact
            or (one.name is not None and not self._pins.isdisjoint({(one.name, ""), (one.name, one.marker)}))
            for one in self._asked
        )

    def dependencies(self, kind: str, path: str) -> Dependencies:
        """All files, with paths relative to the first one's folder.

        If one lies elsewhere, relative to the deepest folder that holds all: the first one's path then has a folder.
        """
        above = posixpath.commonpath([posixpath.dirname(name) for name in self._files])
        first = {path: self._files[path], **self._files}
        files = tuple(
            (posixpath.relpath("/" + name, "/" + above), content) for name, content in first.items()
        )
        return Dependencies(kind, path, files, self.pinned(), tuple(self.notes))

    def add(self, path: str, content: bytes) -> None:
        """A file that is no requirements file itself, but whose lines are."""
        self._files[path] = content

    def follow(self, path: str | None = None) -> None:
        """Read a requirements file, or only what the lines so far include, and all that they include."""
        if path is not None:
            self._waiting.append((path, False))
        seen = set()
        while self._waiting:
            one = self._waiting.pop(0)
            if one not in seen:
                seen.add(one)
                self._read(*one)

    def _read(self, path: str, constraint: bool) -> None:
        text = self._tree.text(path)
        lines = text.splitlines(keepends=True)
        dropped: set[int] = set()
        for first, end, line in _logical_lines(text.splitlines()):
            if self.take(path, line, constraint):
                dropped.update(range(first, end))
        kept = "".join(line for number, line in enumerate(lines) if number not in dropped)
        self._files[path] = kept.encode() if dropped else self._tree.read(path)

    def take(self, path: str, line: str, constraint: bool) -> bool:
        """Judge one line. Whether it installs from the repository itself, and so has to go."""
        words = line.split(" ")
        options_at = next((n for n, word in enumerate(words) if word.startswith("-")), len(words))
        requirement = " ".join(words[:options_at]).strip()
        try:
            options = list(_options(shlex.split(" ".join(words[options_at:]))))
        except ValueError as error:
            raise unreadable(path, f"{shown(line)}: {error}") from error
        for variable in _VARIABLE.findall(line):
            note = f"{shown(path)} uses ${{{variable}}}: a build has none of your variables"
            if note not in self.notes:
                self.notes.append(note)
        # As in pip: what else stands on the line of a requirement concerns that requirement alone.
        editable = None if requirement else next((value for option, value in options if option == "-e"), None)
        if editable is None and not requirement:
            for option, value in options:
                if option in ("-r", "-c"):
                    self._include(path, value, constraint=option == "-c")
            return False
        asked = requirement if editable is None else editable
        if _is_local(asked, bare_name=editable is not None):
            self.notes.append(f"{left_out(path, line)}; packages that it asks for itself have to be listed")
            return True
        judged = _judged(asked, hashed=any(option == "--hash" for option, _ in options))
        if judged.exact:
            self._pins.add((judged.name, judged.marker))
        if not constraint:
            self._asked.append(judged)
        return False

    def _include(self, path: str, target: str, constraint: bool) -> None:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", target):
            self._all_known = self._all_known and constraint  # a constraint asks for nothing
            return
        found = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if found.startswith(("/", "../")) or found == "..":
            raise ImageError(
                "dependencies_outside", f"{shown(path)} includes {shown(target)}, outside of the repository"
            )
        if found not in self._tree.paths:
            raise ImageError(
                "no_dependencies_file",
                f"{shown(path)} includes {shown(target)}, which is not in the commit",
                hint="commit it",
            )
        self._waiting.append((found, constraint))


_COMMENT = re.compile(r"(?:^|(?<=\s))#.*$")
_VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)\}")


def _logical_lines(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    """(first, end, text) of each line that says something, continuations joined and comments removed as pip does."""
    first, parts = 0, []
    for number, line in enumerate(lines):
        comment = line.lstrip().startswith("#")
        continued = line.endswith("\\") and not comment
        parts.append(line.strip("\\") if continued else f" {line}" if comment else line)
        if continued and number + 1 < len(lines):
            continue
        text = _COMMENT.sub("", "".join(parts)).strip()
        if text:
            yield first, number + 1, text
        first, parts = number + 1, []


_LONG = {"--requirement": "-r", "--constraint": "-c", "--editable": "-e"}


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    """The options of a line that have a value: ``-r FILE``, ``-rFILE``, ``--requirement FILE`` and so on."""
    waiting = iter(words)
    for word in waiting:
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            name = _LONG.get(name, name)
            if equals:
                yield name, value
                continue
        elif word[:2] in ("-r", "-c", "-e"):
            name = word[:2]
            if len(word) > 2:
                yield name, word[2:]
                continue
        if name in ("-r", "-c", "-e", "--hash"):
            yield name, next(waiting, "")


_NAMED = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[[^\]]*\])?\s*(.*)", re.DOTALL)
_URL = re.compile(r"(?:[A-Za-z][A-Za-z0-9]*\+)?([A-Za-z][A-Za-z0-9.-]*):")
_ARCHIVES = (".whl", ".zip", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar")


def _is_local(requirement: str, bare_name: bool) -> bool:
    """Whether it is a path. bare_name: whether a mere name is one too, as it is for ``-e``."""
    named = _NAMED.fullmatch(requirement)
    if named and named[2].startswith("@"):
        url = _URL.match(named[2][1:].strip())
        return url is not None and url[1].lower() == "file"
    url = _URL.match(requirement)
    if url:
        return url[1].lower() == "file"
    words = re.split(r"[\s;]", requirement, maxsplit=1)[0]
    return bool(words) and (
        bare_name or words.startswith((".", "~")) or "/" in words or words.lower().endswith(_ARCHIVES)
    )


_VERSION = re.compile(r"===?\s*[A-Za-z0-9][A-Za-z0-9.!+_-]*")  # no *, and no ${VARIABLE}
_EXACT_URL = re.compile(r"#(?:\S*&)?(?:md5|sha\d+)=[0-9a-fA-F]+|@[0-9a-fA-F]{40}(?:#|\s|$)")


def _judged(requirement: str, hashed: bool) -> _Requirement:
    """Whether a requirement decides the version. hashed: whether the line has a ``--hash``.

    A URL does if it has a digest or names a whole commit.
    """
    named = _NAMED.fullmatch(requirement)
    if _URL.match(requirement) or (named and named[2].startswith("@")):
        url, _, marker = requirement.partition(" ;")
        exact = hashed or _EXACT_URL.search(url) is not None
    elif named:
        versions, _, marker = named[2].partition(";")
        exact = any(_VERSION.fullmatch(one.strip()) for one in versions.strip().strip("()").split(","))
    else:
        return _Requirement(None, False, "")
    name = re.sub(r"[-_.]+", "-", named[1]).lower() if named and not _URL.match(requirement) else None
    return _Requirement(name, exact, "".join(marker.split()))
