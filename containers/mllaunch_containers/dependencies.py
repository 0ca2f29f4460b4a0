"""Which packages a repository asks for: finds the file that says so, and reads it; no input or output of its own.

Nothing is resolved here. A file is passed on as it is, but for what would install the project itself, which is not
there yet when packages are installed.
"""

from __future__ import annotations

import posixpath
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple

from mllaunch_containers.spec import WORKSPACE, Dependencies, ImageError

__all__ = ["choose"]

_PYLOCK = re.compile(r"pylock\.(?:[^.]+\.)?toml")  # https://peps.python.org/pep-0751/#file-name
_REQUIREMENTS = re.compile(r"requirements.*\.txt", re.DOTALL)
_SET = "set image.dependencies"


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
    tree = _Tree(frozenset(listing), read)
    path = _found(tree, workdir) if chosen is None else posixpath.normpath(chosen)
    if path is None:
        note = "no file says which packages are needed, so none is pinned: the base image alone is used"
        return Dependencies("none", None, (), False, (note,))
    if path not in tree.paths:
        raise ImageError("no_dependencies_file", f"{_shown(path)} is not in the commit", hint=_SET)
    name = posixpath.basename(path)
    if name in ("uv.lock", "poetry.lock"):
        return _lock(tree, path)
    if _PYLOCK.fullmatch(name):
        return _pylock(tree, path)
    if name == "pyproject.toml":
        return _pyproject(tree, path)
    if name.endswith((".yml", ".yaml")):
        return _conda(tree, path)
    if name.endswith((".txt", ".in")):
        return _requirements(tree, path)
    raise ImageError(
        "dependencies_unknown",
        f"{_shown(path)} is no kind of dependency file that is known",
        hint="known are uv.lock, pylock.toml, poetry.lock, *.txt, *.in, pyproject.toml, *.yml and *.yaml",
    )


# --- where it is


class _Tree(NamedTuple):
    """The files of the repository."""

    paths: frozenset[str]
    read: Callable[[str], bytes]

    def text(self, path: str) -> str:
        """UTF-8, or what a byte order mark says, as pip reads it."""
        content = self.read(path)
        found = [(mark, encoding) for mark, encoding in _MARKS if content.startswith(mark)]
        mark, encoding = found[0] if found else (b"", "utf-8")
        try:
            return content[len(mark) :].decode(encoding)
        except UnicodeDecodeError as error:
            raise _unreadable(path, f"not {encoding.upper()}: {error.reason}") from error


_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe\0\0", "utf-32-le"),  # before UTF-16, whose mark is its beginning
    (b"\0\0\xfe\xff", "utf-32-be"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)


def _found(tree: _Tree, workdir: str) -> str | None:
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


def _candidate(tree: _Tree, folder: str, names: set[str]) -> str | None:
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
    if "pyproject.toml" in names and "project" in _toml(tree, posixpath.join(folder, "pyproject.toml")):
        return "pyproject.toml"
    return next((name for name in ("environment.yml", "environment.yaml") if name in names), None)


def _only(usual: str, folder: str, names: list[str]) -> str | None:
    if usual in names or not names:
        return usual if names else None
    if len(names) > 1:
        where = _shown(folder) if folder else "the root"
        raise ImageError(
            "dependencies_ambiguous",
            f"several files in {where} say which packages are needed, and none is named {usual}",
            evidence=tuple(_shown(posixpath.join(folder, name)) for name in sorted(names)),
            hint=_SET,
        )
    return names[0]


# --- locks


def _lock(tree: _Tree, path: str) -> Dependencies:
    """uv.lock and poetry.lock: their own tools read them, and need pyproject.toml for it."""
    name = posixpath.basename(path)
    beside = posixpath.join(posixpath.dirname(path), "pyproject.toml")
    if beside not in tree.paths:
        raise ImageError(
            "no_dependencies_file",
            f"{_shown(path)} cannot be used without the pyproject.toml beside it, which is not in the commit",
            hint=f"commit it, or {_SET}",
        )
    local = []
    for package in _packages(path, _toml(tree, path), "package"):
        source = package.get("source")
        if not isinstance(source, dict):
            continue
        places = [source[key] for key in ("editable", "directory", "virtual", "path") if key in source]  # uv
        if source.get("type") in ("directory", "file"):  # poetry
            places.append(source.get("url"))
        if places and places != ["."]:
            local.append(f"{package.get('name')} ({places[0]})")
    _toml(tree, beside)  # better said now than by a build
    files = ((name, tree.read(path)), ("pyproject.toml", tree.read(beside)))
    return Dependencies(name, path, files, True, tuple(_left_out(path, line) for line in local))


def _pylock(tree: _Tree, path: str) -> Dependencies:
    """pylock.toml. ``uv export`` lists the project itself, as a directory: that goes."""
    document = _toml(tree, path)
    packages = _packages(path, document, "packages")
    local = [number for number, package in enumerate(packages) if _in_tree(package)]
    content = tree.read(path)
    if local:
        content = _without_packages(tree.text(path), local).encode()
        document["packages"] = [package for n, package in enumerate(packages) if n not in local]
        try:
            same = _parsed_toml(path, content.decode()) == document
        except (
            RecursionError
        ) as error:  # a dotted key of a thousand parts, which tomllib reads without recursion
            raise _unreadable(path, "nested too deep") from error
        if not same:
            raise _unreadable(path, "the packages of the repository itself cannot be told from the others")
    notes = tuple(_left_out(path, str(packages[number].get("name"))) for number in local)
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
        raise _unreadable(path, f"{key} is no list of tables")
    return packages


def _toml(tree: _Tree, path: str) -> dict[str, Any]:
    return _parsed_toml(path, tree.text(path))


def _parsed_toml(path: str, text: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]
        except ImportError as error:
            raise _unreadable(path, "needs Python 3.11, or: pip install tomli") from error
    try:
        document: dict[str, Any] = tomllib.loads(text)
    except RecursionError as error:
        raise _unreadable(path, "nested too deep") from error
    except ValueError as error:  # also a number of more digits than Python reads
        raise _unreadable(path, f"not valid TOML: {error}") from error
    return document


# --- pyproject.toml


def _pyproject(tree: _Tree, path: str) -> Dependencies:
    """``[project].dependencies``, as a requirements file of one line each."""
    project = _toml(tree, path).get("project")
    if not isinstance(project, dict):
        raise _unreadable(path, "it has no table [project]")
    dynamic, lines = project.get("dynamic", []), project.get("dependencies", [])
    if isinstance(dynamic, list) and "dependencies" in dynamic:
        note = f"{_shown(path)}: its dependencies are dynamic, and cannot be read without running the project"
        return Dependencies("pyproject.toml", path, (("requirements.txt", b""),), False, (note,))
    if not isinstance(lines, list):
        raise _unreadable(path, "project.dependencies is no list")
    for line in lines:
        if not isinstance(line, str) or not _PEP_508.fullmatch(line):
            raise _unreadable(path, f"in project.dependencies: {_shown(str(line))} is no requirement")
    reading = _Reading(tree)
    kept = [line for line in lines if not reading.take(path, line, constraint=False)]
    content = "".join(f"{line}\n" for line in kept).encode("utf-8")
    files = (("requirements.txt", content),)
    return Dependencies("pyproject.toml", path, files, reading.pinned(), tuple(reading.notes))


# In one line, no option, no comment, and nothing that would continue on the next line.
_PEP_508 = re.compile(
    r"\s*[A-Za-z0-9](?:(?!\s#)[^\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff])*(?<!\\)"
)


# --- requirements files, https://pip.pypa.io/en/stable/reference/requirements-file-format/


def _requirements(tree: _Tree, path: str) -> Dependencies:
    reading = _Reading(tree)
    reading.follow(path)
    return reading.dependencies("requirements", path)


class _Requirement(NamedTuple):
    """A line that asks for a package. name: normalised, or None. exact: whether it decides the version.

    marker: when it holds; "" is always.
    """

    name: str | None
    exact: bool
    marker: str


class _Reading:
    """Requirements and the files they include, as pip reads them."""

    def __init__(self, tree: _Tree) -> None:
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
            raise _unreadable(path, f"{_shown(line)}: {error}") from error
        for variable in _VARIABLE.findall(line):
            note = f"{_shown(path)} uses ${{{variable}}}: a build has none of your variables"
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
            self.notes.append(f"{_left_out(path, line)}; packages that it asks for itself have to be listed")
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
                "dependencies_outside", f"{_shown(path)} includes {_shown(target)}, outside of the repository"
            )
        if found not in self._tree.paths:
            raise ImageError(
                "no_dependencies_file",
                f"{_shown(path)} includes {_shown(target)}, which is not in the commit",
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


# --- environment.yml


def _conda(tree: _Tree, path: str) -> Dependencies:
    """A conda environment, with a list of what pip is to install in it."""
    text = tree.text(path)
    packages, pip = _conda_lists(path, text)
    reading = _Reading(tree)
    local = [line for line in pip if reading.take(path, line, constraint=False)]
    content = tree.read(path)
    if local:
        content = _without_entries(text, local, all_of_pip=len(local) == len(pip)).encode()
        if _conda_lists(path, content.decode()) != (packages, [line for line in pip if line not in local]):
            raise _unreadable(path, "its lines for the repository itself cannot be told from the others")
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
        raise _unreadable(path, f"not valid YAML: {error}") from error
    except RecursionError as error:
        raise _unreadable(path, "nested too deep") from error
    except (ValueError, OverflowError) as error:  # such as an escaped character beyond Unicode
        raise _unreadable(path, f"not valid YAML: {error}") from error
    listed = document.get("dependencies") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise _unreadable(path, "it has no list of dependencies")
    packages = [entry for entry in listed if isinstance(entry, str)]
    others = [entry for entry in listed if not isinstance(entry, str)]
    if not others:
        return packages, []
    pip = others[0].get("pip") if len(others) == 1 and isinstance(others[0], dict) else None
    if pip == "":
        return packages, []
    if not isinstance(pip, list) or not all(isinstance(line, str) for line in pip):
        raise _unreadable(path, "its dependencies are not names and one list for pip")
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


# --- what is said


def _left_out(path: str, line: str) -> str:
    folder = posixpath.normpath(posixpath.join(WORKSPACE, posixpath.dirname(path)))
    return (
        f"{_shown(path)}: left out {_shown(line)}, as the code comes after the packages; "
        f"it can be imported from {_shown(folder)} and its src"
    )


def _unreadable(path: str, cause: str) -> ImageError:
    said = _shown(" ".join(cause.split()))
    return ImageError(
        "dependencies_unreadable", f"{_shown(path)} cannot be read: {said}", hint=f"mend it, or {_SET}"
    )


def _shown(text: str) -> str:
    """On one line whatever it holds."""
    return text if text.isprintable() else repr(text)[1:-1]
