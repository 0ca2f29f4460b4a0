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
from mllaunch.capture.git import Git
from mllaunch.domain.codeuse import Edit

__all__ = ["forget", "record"]

_PLAIN = ("--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--ignore-submodules=none")
_FORM = ("-r", "-p", "--binary", "--full-index", "--submodule=short", "--src-prefix=a/", "--dst-prefix=b/")
_NOBODY = b"committer mllaunch <> 0 +0000\n"


def record(code_git: str, commit: str, run_id: str, edits: Sequence[Edit]) -> list[tuple[bytes, str | None]]:
    """Keep the edits, in this order, on top of a preserved commit.

    For each: its patch, and the tree that was live from then on; None for one that was not in use.
    """
    store = codestore.repository(code_git, commit)
    modes = _modes(store, commit)
    live = [edit for edit in edits if edit.is_live]
    with codestore.writing(store.cwd):
        for name, chain in (("all", edits), ("live", live)):
            codestore.unlock(store, _ref(run_id, name))
            script = b"".join(_script(_ref(run_id, name), commit, chain, modes))
            store.run("fast-import", "--force", "--quiet", "--date-format=raw", stdin=script)
    patches = _patches(store, commit, _ref(run_id, "all"))
    trees = iter(_trees(store, commit, _ref(run_id, "live")))
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


def _modes(store: Git, commit: str) -> dict[bytes, bytes]:
    """The mode of each file of a commit."""
    listed = store.run("ls-tree", "-r", "-z", "--full-tree", "--end-of-options", commit).split(b"\0")
    return {record.partition(b"\t")[2]: record[:6] for record in listed if record}


def _script(ref: str, commit: str, edits: Sequence[Edit], modes: dict[bytes, bytes]) -> Iterator[bytes]:
    """Commands of git-fast-import(1)."""
    before = commit.encode()
    yield b"reset %s\nfrom %s\n\n" % (ref.encode(), before)
    for number, edit in enumerate(edits, 1):
        message = os.fsencode(edit.message)
        yield b"commit %s\nmark :%d\n%sdata %d\n%s\n" % (ref.encode(), number, _NOBODY, len(message), message)
        yield b"from %s\n" % before
        path = os.fsencode(edit.path)
        if edit.content is None:
            yield b"D %s\n" % _quoted(path)
        else:
            mode = modes.get(path, b"100644")
            yield (
                b"M %s inline %s\ndata %d\n" % (mode, _quoted(path), len(edit.content)) + edit.content + b"\n"
            )
        yield b"\n"
        before = b":%d" % number


def _quoted(path: bytes) -> bytes:
    return (
        b'"'
        + b"".join(b"\\%03o" % byte if byte < 32 or byte in b'"\\' else bytes([byte]) for byte in path)
        + b'"'
    )


def _commits(store: Git, commit: str, ref: str) -> list[str]:
    return store.run("rev-list", "--reverse", f"{commit}..{ref}").decode().split()


def _patches(store: Git, commit: str, ref: str) -> list[bytes]:
    """What each commit of a chain changed; b"" for one that changed nothing."""
    names = "".join(f"{name}\n" for name in _commits(store, commit, ref)).encode()
    output = store.run("diff-tree", "--stdin", "--always", "--format=%x00", *_FORM, *_PLAIN, stdin=names)
    return [patch.lstrip(b"\n") for patch in output.split(b"\0")[1:]]  # no patch holds a NUL


def _trees(store: Git, commit: str, ref: str) -> list[str]:
    names = _commits(store, commit, ref)
    wanted = "".join(f"{name}^{{tree}}\n" for name in names).encode()
    checked = store.run("cat-file", "--batch-check=%(objectname)", stdin=wanted)
    return checked.decode().split()
