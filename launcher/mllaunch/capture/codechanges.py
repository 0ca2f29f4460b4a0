"""What was changed in a run's code while it ran, kept in the run log's own repository (see codestore.py).

    refs/changes/<run>/all     one commit for each change, on top of the run's
    refs/changes/<run>/live    the same of those that were in use, so that each has the tree that was executed then

Made by ``git fast-import``, read back as patches. Making it again gives the same commits, so it is done whenever
somebody asks about a run that still goes on.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from mllaunch.capture import codestore
from mllaunch.capture.git import Git, GitFailed
from mllaunch.domain.codeuse import Edit

__all__ = ["forget", "record"]

_PLAIN = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--ignore-submodules=none")
_FORM = ("-r", "-p", "--binary", "--full-index", "--submodule=short", "--src-prefix=a/", "--dst-prefix=b/")
_LINK, _MODULE = b"120000", b"160000"
_NOBODY = b"committer mllaunch <> 0 +0000\n"


def record(code_git: str, commit: str, run_id: str, edits: Sequence[Edit]) -> list[tuple[bytes, str | None]]:
    """Keep the edits, in this order, on top of a preserved commit.

    For each: its patch, and the tree that was live from then on; None for one that was not in use.
    """
    store = codestore.repository(code_git, commit)
    modes, modules = _files(store, commit, [os.fsencode(edit.path) for edit in edits])
    live = [edit for edit in edits if edit.is_live]
    with codestore.writing(store.cwd):
        for name, chain in (("all", edits), ("live", live)):
            codestore.unlock(store, _ref(run_id, name))
            script = b"".join(_script(_ref(run_id, name), commit, chain, modes, modules))
            store.run("fast-import", "--force", "--quiet", "--date-format=raw", stdin=script)
    own = 1 if modules else 0  # the commit that puts them in
    patches = _patches(store, _commits(store, commit, _ref(run_id, "all"))[own:])
    trees = iter(_trees(store, _commits(store, commit, _ref(run_id, "live"))[own:]))
    return [
        (patch, next(trees) if edit.is_live else None) for edit, patch in zip(edits, patches, strict=True)
    ]


def forget(code_git: str, commit: str, run_id: str) -> None:
    """Let the changes of a run go. Harmless when there are none."""
    store = codestore.repository(code_git, commit)
    if not os.path.isdir(store.cwd):
        return
    with codestore.writing(store.cwd):
        for name in ("all", "live"):
            codestore.unlock(store, _ref(run_id, name))
            store.run("update-ref", "--stdin", stdin=f"delete {_ref(run_id, name)}\n".encode())


def _ref(run_id: str, name: str) -> str:
    return f"refs/changes/{run_id}/{name}"


def _files(store: Git, commit: str, paths: Sequence[bytes]) -> tuple[dict[bytes, bytes], dict[bytes, bytes]]:
    """The mode of each file of a commit, and the trees of those submodules that one of the paths lies in."""
    modes: dict[bytes, bytes] = {}
    modules: dict[bytes, bytes] = {}
    todo = [(b"", commit)]
    for prefix, found in todo:
        listed = store.run("ls-tree", "-r", "-z", "--full-tree", "--end-of-options", found).split(b"\0")
        for record in filter(None, listed):
            meta, _, name = record.partition(b"\t")
            path = prefix + name
            modes[path] = meta[:6]
            if meta[:6] == _MODULE and any(wanted.startswith(path + b"/") for wanted in paths):
                inner = os.fsdecode(meta.split(b" ")[2])
                try:
                    tree = store.run(
                        "rev-parse", "--verify", "--quiet", "--end-of-options", f"{inner}^{{tree}}"
                    )
                except GitFailed:
                    continue  # it was not checked out
                modules[path] = tree.strip()
                todo.append((path + b"/", inner))
    return modes, modules


def _script(
    ref: str,
    commit: str,
    edits: Sequence[Edit],
    modes: dict[bytes, bytes],
    modules: dict[bytes, bytes],
) -> Iterator[bytes]:
    """Commands of git-fast-import(1)."""
    before = commit.encode()
    yield b"reset %s\nfrom %s\n\n" % (ref.encode(), before)
    if modules:  # with their files, as they are in a checkout
        yield b"commit %s\nmark :1\n%sdata 0\nfrom %s\n" % (ref.encode(), _NOBODY, before)
        for path, tree in modules.items():  # one within another after that
            yield b"M 040000 %s %s\n" % (tree, _quoted(path))
        yield b"\n"
        before = b":1"
    for number, edit in enumerate(edits, 2):
        message = os.fsencode(edit.message)
        yield b"commit %s\nmark :%d\n%sdata %d\n%s\n" % (ref.encode(), number, _NOBODY, len(message), message)
        yield b"from %s\n" % before
        path = os.fsencode(edit.path)
        if edit.content is None:
            yield b"D %s\n" % _quoted(path)
        else:
            mode = modes.get(path, b"100644")
            if mode == _LINK and not _may_be_target(edit.content):
                mode = b"100644"  # a file took its place
            yield (
                b"M %s inline %s\ndata %d\n" % (mode, _quoted(path), len(edit.content)) + edit.content + b"\n"
            )
        yield b"\n"
        before = b":%d" % number


def _may_be_target(content: bytes) -> bool:
    """Whether a link can lead there: to one path, without the newline that every text ends with."""
    return 0 < len(content) < 4096 and b"\n" not in content and b"\0" not in content


def _quoted(path: bytes) -> bytes:
    return (
        b'"'
        + b"".join(b"\\%03o" % byte if byte < 32 or byte in b'"\\' else bytes([byte]) for byte in path)
        + b'"'
    )


def _commits(store: Git, commit: str, ref: str) -> list[str]:
    return store.run("rev-list", "--reverse", f"{commit}..{ref}").decode().split()


def _patches(store: Git, commits: Sequence[str]) -> list[bytes]:
    """What each commit of a chain changed; b"" for one that changed nothing."""
    names = "".join(f"{name}\n" for name in commits).encode()
    output = store.run("diff-tree", "--stdin", "--always", "--format=%x00", *_FORM, *_PLAIN, stdin=names)
    return [patch.lstrip(b"\n") for patch in output.split(b"\0")[1:]]  # no patch holds a NUL


def _trees(store: Git, commits: Sequence[str]) -> list[str]:
    wanted = "".join(f"{name}^{{tree}}\n" for name in commits).encode()
    checked = store.run("cat-file", "--batch-check=%(objectname)", stdin=wanted)
    return checked.decode().split()
