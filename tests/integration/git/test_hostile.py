"""Repositories that are odd, broken or out to make us execute something."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from mllaunch.capture import files, git, snapshot, trees, worktree
from mllaunch.domain.snapshot import Snapshot
from mllaunch.errors import MllaunchError, NotPermitted, UsageError

from .conftest import Repository, files_of, make_repository

NOW = "2026-11-21T09:30:00Z"


def take(repository: Repository, *, allow_dirty: bool = False) -> Snapshot:
    return snapshot.take(str(repository.root), allow_dirty=allow_dirty, now=NOW)


def refusal(folder: Path) -> MllaunchError:
    with pytest.raises(MllaunchError) as caught:
        snapshot.take(str(folder), allow_dirty=True, now=NOW)
    assert caught.value.message.isprintable()
    return caught.value


def test_a_folder_outside_any_repository_is_refused_with_a_hint_to_git_init(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    error = refusal(tmp_path / "plain")
    assert isinstance(error, UsageError)
    assert error.code == "no-repository"
    assert "git init" in (error.hint or "")


def test_a_bare_repository_is_refused(tmp_path: Path, repository: Repository) -> None:
    repository.git("clone", "--quiet", "--bare", ".", str(tmp_path / "bare.git"))
    assert refusal(tmp_path / "bare.git").code == "bare-repository"
    assert refusal(repository.root / ".git").code == "bare-repository"


def test_a_repository_without_a_commit_is_refused_with_a_hint_to_commit(tmp_path: Path) -> None:
    error = refusal(make_repository(tmp_path / "empty").root)
    assert error.code == "no-commit"
    assert "git commit" in (error.hint or "")


def test_a_detached_head_has_no_branch(repository: Repository) -> None:
    repository.git("checkout", "--quiet", "--detach")
    found = take(repository)
    assert (found.branch, found.commit) == (None, repository.git("rev-parse", "HEAD"))


@pytest.mark.parametrize("name", ["--upload-pack=x", "-x", "HEAD", "ünï/🙂"])
def test_a_branch_may_have_any_name(repository: Repository, name: str) -> None:
    repository.git("update-ref", f"refs/heads/{name}", "HEAD")
    repository.git("symbolic-ref", "HEAD", f"refs/heads/{name}")
    repository.write("train.py", "changed\n")
    found = take(repository, allow_dirty=True)
    assert found.branch == name
    assert found.base_commit == repository.git("rev-parse", f"refs/heads/{name}")


def test_a_shallow_clone_works(tmp_path: Path, repository: Repository) -> None:
    repository.commit("second")
    repository.git("clone", "--quiet", "--depth=1", f"file://{repository.root}", str(tmp_path / "shallow"))
    shallow = Repository(tmp_path / "shallow")
    assert take(shallow).commit == repository.git("rev-parse", "HEAD")
    shallow.write("train.py", "changed\n")
    found = take(shallow, allow_dirty=True)
    assert files_of(Path(trees.ensure(str(tmp_path / "store"), found))) == files_of(shallow.root)


def test_a_linked_worktree_works_and_leaves_the_other_alone(tmp_path: Path, repository: Repository) -> None:
    repository.git("worktree", "add", "--quiet", "-b", "side", str(tmp_path / "side"))
    side = Repository(tmp_path / "side")
    side.write("train.py", "changed\n")
    found = take(side, allow_dirty=True)
    assert (found.branch, found.git_dir) == ("side", str(repository.root / ".git"))
    assert found.uncommitted == ("train.py",)
    snapshot.pin(found)
    assert not take(repository).dirty


@pytest.mark.parametrize("content", ["gitdir: /nowhere/at/all\n", "nonsense\n", ""])
def test_a_git_file_that_leads_nowhere_is_explained(tmp_path: Path, content: str) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/.git").write_text(content)
    assert refusal(tmp_path / "broken").code == "broken-repository"


def test_a_damaged_head_is_an_error_not_an_unborn_branch(repository: Repository) -> None:
    head = repository.git("rev-parse", "HEAD")
    (repository.root / ".git/objects" / head[:2] / head[2:]).unlink()
    assert refusal(repository.root).code in {"git-failed", "snapshot-failed"}


def test_another_users_repository_is_explained(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        git, "_FIXED_VARIABLES", {**git._FIXED_VARIABLES, "GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    )
    error = refusal(repository.root)
    assert isinstance(error, NotPermitted)
    assert "safe.directory" in (error.hint or "")


ODD_NAMES = [
    b"latin-\xe9.py",
    "right-\u202eyp.to-left".encode(),
    b"line\nbreak",
    b"tab\there",
    b"escape\x1b[2J",
    b"--option",
    b" lead and trail ",
    b'quote"s\\and\\backslash',
    b"glob*[a]?",
    b":(top)magic",
]


def test_odd_names_are_carried_exactly_and_printed_harmlessly(tmp_path: Path, repository: Repository) -> None:
    for name in ODD_NAMES:
        repository.write(name, "x\n")
    with pytest.raises(UsageError) as caught:
        take(repository)
    assert all(line.isprintable() and line.endswith("+1 -0") for line in caught.value.evidence)
    found = take(repository, allow_dirty=True)
    assert {os.fsencode(path) for path in found.uncommitted} == set(ODD_NAMES)
    kept = Path(trees.ensure(str(tmp_path / "store"), found))
    assert {os.fsencode(path.name) for path in kept.iterdir()} >= set(ODD_NAMES)
    for name in ODD_NAMES:
        repository.write(name, "y\n")
    repository.commit()
    assert not take(repository).dirty


def test_links_out_of_the_repository_and_loops_stay_links(tmp_path: Path, repository: Repository) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/key").write_text("secret")
    (repository.root / "out").symlink_to(tmp_path / "secret")
    (repository.root / "loop").symlink_to("loop")
    (repository.root / "up").symlink_to("..")
    found = take(repository, allow_dirty=True)
    assert set(found.uncommitted) == {"out", "loop", "up"}
    kept = Path(trees.ensure(str(tmp_path / "store"), found))
    assert (kept / "out").readlink() == tmp_path / "secret"
    assert (kept / "loop").readlink() == Path("loop")


def test_fifos_and_sockets_neither_hang_nor_count(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(repository.root / "fifo")
    monkeypatch.chdir(repository.root)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        assert not take(repository).dirty


@pytest.mark.parametrize("name", ["src/.gitignore", "src/.gitattributes", ".git/info/attributes"])
def test_a_fifo_that_git_would_read_for_ever_is_named(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(worktree, "_PATIENCE_S", 0.3)
    repository.write("src/model.py", "changed\n")
    os.mkfifo(repository.root / name)
    error = refusal(repository.root)
    assert error.code == "special-file"
    assert name in error.message


def test_a_fifo_in_place_of_a_tracked_file_is_refused_without_hanging(repository: Repository) -> None:
    (repository.root / "train.py").unlink()
    os.mkfifo(repository.root / "train.py")
    with pytest.raises(UsageError, match="uncommitted change"):
        take(repository)
    assert refusal(repository.root).code == "special-file"


def test_paths_that_differ_only_in_case_are_both_kept(tmp_path: Path, repository: Repository) -> None:
    repository.write("Model.py", "upper\n")
    repository.write("model.py", "lower\n")
    repository.write("MODEL/x", "x\n")
    kept = Path(trees.ensure(str(tmp_path / "store"), take(repository, allow_dirty=True)))
    assert files_of(kept) == files_of(repository.root)


def _program(tmp_path: Path) -> tuple[str, Path]:
    """A command that leaves a trace when it is executed."""
    trace = tmp_path / "trace"
    program = tmp_path / "evil.sh"
    program.write_text(f'#!/bin/sh\necho ran "$0" "$@" >> \'{trace}\'\ncat\n')
    program.chmod(0o755)
    return str(program), trace


def _booby_trap(repository: Repository, program: str) -> None:
    repository.write(".gitattributes", "* filter=evil diff=evil merge=evil\nodd filter=a=b.c\n")
    for key in (
        "filter.evil.clean",
        "filter.evil.smudge",
        "filter.evil.process",
        "filter.a=b.c.clean",
        "core.fsmonitor",
        "diff.external",
        "diff.evil.command",
        "diff.evil.textconv",
        "core.pager",
        "core.editor",
        "core.sshCommand",
        "core.askPass",
        "gpg.program",
        "interactive.diffFilter",
        "credential.helper",
    ):
        repository.git("config", key, program)
    repository.git("config", "filter.evil.required", "true")
    repository.git("config", "commit.gpgSign", "true")
    repository.git("config", "core.logAllRefUpdates", "always")
    hooks = repository.root / ".git/hooks"
    hooks.mkdir(exist_ok=True)
    for name in (
        "post-index-change",
        "reference-transaction",
        "pre-commit",
        "post-commit",
        "fsmonitor-watchman",
    ):
        (hooks / name).symlink_to(program)


def test_nothing_that_a_repository_names_is_executed(tmp_path: Path, repository: Repository) -> None:
    program, trace = _program(tmp_path)
    repository.write("odd", "odd\n")
    repository.commit()
    _booby_trap(repository, program)
    repository.write("train.py", "changed\n")
    repository.write("odd", "changed\n")
    repository.write("new.py", "new\n")
    os.utime(repository.root / "src/model.py", (1, 1))
    with pytest.raises(UsageError, match="uncommitted"):
        take(repository)
    found = take(repository, allow_dirty=True)
    snapshot.pin(found)
    kept = Path(trees.ensure(str(tmp_path / "store"), found))
    snapshot.unpin(found)
    assert files_of(kept) == files_of(repository.root)
    assert set(found.uncommitted) == {".gitattributes", "train.py", "odd", "new.py"}
    assert not trace.exists()
    assert not (repository.root / ".git/logs/refs/mllaunch").exists()
    subprocess.run(["git", "status"], cwd=repository.root, capture_output=True)  # the trap itself works
    assert trace.exists()


def test_nothing_that_a_submodule_names_is_executed(tmp_path: Path, repository: Repository) -> None:
    program, trace = _program(tmp_path)
    inner = make_repository(repository.root / "vendor")
    inner.write("lib.py", "lib\n")
    inner.commit()
    repository.commit()
    _booby_trap(inner, program)
    inner.write("lib.py", "changed\n")
    found = take(repository, allow_dirty=True)
    assert set(found.uncommitted) == {"vendor/lib.py", "vendor/.gitattributes"}
    trees.ensure(str(tmp_path / "store"), found)
    assert not trace.exists()


def test_a_submodule_with_an_ext_url_is_never_fetched(tmp_path: Path, repository: Repository) -> None:
    program, trace = _program(tmp_path)
    head = repository.git("rev-parse", "HEAD")
    repository.write(".gitmodules", f'[submodule "x"]\n\tpath = x\n\turl = ext::{program}\n')
    repository.git("config", "submodule.x.url", f"ext::{program}")
    repository.git("config", "protocol.ext.allow", "always")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{head},x")
    (repository.root / "x").mkdir()
    repository.git("add", ".gitmodules")
    repository.git("commit", "--quiet", "--message", "submodule")
    found = take(repository)
    kept = Path(trees.ensure(str(tmp_path / "store"), found))
    assert list((kept / "x").iterdir()) == []
    assert not trace.exists()


def test_a_missing_object_of_a_partial_clone_is_not_fetched(tmp_path: Path, repository: Repository) -> None:
    program, trace = _program(tmp_path)
    found = take(repository)
    repository.git("config", "remote.origin.url", f"ext::{program}")
    repository.git("config", "remote.origin.promisor", "true")
    repository.git("config", "remote.origin.uploadpack", program)
    repository.git("config", "extensions.partialClone", "origin")
    repository.git("config", "core.repositoryFormatVersion", "1")
    repository.git("config", "protocol.ext.allow", "always")
    blob = repository.git("rev-parse", "HEAD:train.py")
    (repository.root / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(MllaunchError):
        trees.ensure(str(tmp_path / "store"), found)
    assert not trace.exists()


def _tree(repository: Repository, *entries: tuple[str, str, str]) -> str:
    """A tree with entries that git itself would not make."""
    import hashlib
    import zlib

    body = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(oid) for mode, name, oid in entries)
    raw = b"tree %d\0" % len(body) + body
    oid = hashlib.sha1(raw).hexdigest()
    path = repository.root / ".git/objects" / oid[:2] / oid[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(zlib.compress(raw))
    return oid


@pytest.mark.parametrize("name", ["..", ".", ".git", ".GIT", "../evil", "/evil", "a/b"])
def test_a_tree_that_leads_out_of_its_folder_is_refused(
    tmp_path: Path, repository: Repository, name: str
) -> None:
    blob = repository.git("rev-parse", "HEAD:train.py")
    tree = _tree(repository, ("100644", name, blob))
    with pytest.raises(MllaunchError) as caught:
        trees.ensure(str(tmp_path / "store"), take(repository)._replace(tree=tree))
    assert caught.value.code == "hostile-tree"
    assert list((tmp_path / "store").iterdir()) == []


def test_a_tree_that_writes_through_its_own_link_is_refused(tmp_path: Path, repository: Repository) -> None:
    blob = repository.git("rev-parse", "HEAD:train.py")
    (tmp_path / "victim").mkdir()
    repository.write("target", str(tmp_path / "victim"))
    link = repository.git("hash-object", "-w", "target")
    inner = _tree(repository, ("100644", "stolen", blob))
    tree = _tree(repository, ("120000", "a", link), ("40000", "a", inner))
    (repository.root / "target").unlink()
    with pytest.raises((MllaunchError, OSError)):
        trees.ensure(str(tmp_path / "store"), take(repository)._replace(tree=tree))
    assert list((tmp_path / "victim").iterdir()) == []


def test_no_git_and_an_old_git_are_said_clearly(
    tmp_path: Path, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f".:{tmp_path}/nothing")
    assert refusal(repository.root).code == "git-missing"
    old = tmp_path / "old"
    old.mkdir()
    (old / "git").write_text("#!/bin/sh\nprintf 'core.bare\\nfalse\\0'\n")
    (old / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{old}:/bin:/usr/bin")
    assert refusal(repository.root).code == "git-too-old"


def test_a_path_with_a_line_break_is_refused(tmp_path: Path) -> None:
    made = make_repository(tmp_path / "two\nlines")
    made.write("x", "x\n")
    made.commit()
    assert refusal(made.root).code == "odd-path"


def test_the_plan_never_trusts_an_entry_below_no_folder() -> None:
    with pytest.raises(MllaunchError):
        files.make_plan([b"100644 blob " + b"0" * 40 + b"\tnofolder/x"], [])
