"""What was changed in a run's code is kept in the run log's own repository, and comes back as patches for git."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from mllaunch.capture import codechanges, codestore, snapshot
from mllaunch.domain.codeuse import Edit
from mllaunch.domain.snapshot import Snapshot

from .conftest import Repository, make_repository

RUN = "0192d3c0-0000-7000-8000-000000000001"


class Store:
    """The code of one run, preserved."""

    def __init__(self, repository: Repository, code_git: Path) -> None:
        self.repository = repository
        self.path = str(code_git)
        self.snapshot: Snapshot = snapshot.decide(
            snapshot.begin(str(repository.root)).inspection.finish(),
            allow_dirty=True,
            now="2026-11-21T09:00:00Z",
        )
        codestore.preserve(self.path, self.snapshot)

    def record(self, *edits: Edit, run: str = RUN) -> list[tuple[bytes, str | None]]:
        return codechanges.record(self.path, self.snapshot.commit, run, edits)

    def git(self, *args: str) -> str:
        done = subprocess.run(["git", "--git-dir", self.path, *args], capture_output=True, check=True)
        return os.fsdecode(done.stdout).rstrip("\n")

    def refs(self) -> list[str]:
        return self.git("for-each-ref", "--format=%(refname)", "refs/changes/").split()

    def checkout(self, folder: Path) -> Path:
        codestore.checkout(self.path, self.snapshot.commit, str(folder))
        return folder

    def tree_of(self, folder: Path) -> str:
        """What git makes of a folder's files."""
        index = {
            **os.environ,
            "GIT_INDEX_FILE": str(folder.with_name("index")),
            "GIT_DIR": self.path,
            "GIT_WORK_TREE": str(folder),
        }
        subprocess.run(["git", "add", "--all", "--force", "."], cwd=folder, env=index, check=True)
        done = subprocess.run(["git", "write-tree"], cwd=folder, env=index, check=True, capture_output=True)
        return done.stdout.decode().strip()


@pytest.fixture
def store(repository: Repository, tmp_path: Path) -> Store:
    return Store(repository, tmp_path / "code.git")


def edit(path: str, content: bytes | None, *, is_live: bool = True) -> Edit:
    return Edit(path, content, is_live, f"{os.fsencode(path)!r} changed\n")


def apply(folder: Path, patch: bytes) -> None:
    """`git apply`, outside of any repository."""
    ceiling = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    done = subprocess.run(["git", "apply", "-"], cwd=folder, input=patch, capture_output=True, env=ceiling)
    assert done.returncode == 0, (done.stderr, patch)


def test_patches_are_accepted_by_git_apply_in_order_and_lead_to_the_trees_that_were_live(
    store: Store, tmp_path: Path
) -> None:
    edits = [
        edit("train.py", b"print('one')\n"),
        edit("new/deep.py", b"made = 1\n"),
        edit("train.py", b"print('two')"),  # without a newline at its end
        edit("src/model.py", None),
        edit("train.py", b""),
    ]
    folder = store.checkout(tmp_path / "then")
    for number, (change, (patch, tree)) in enumerate(zip(edits, store.record(*edits), strict=True)):
        apply(folder, patch)
        file = folder / change.path
        assert (file.read_bytes() if file.exists() else None) == change.content, number
        assert tree == store.tree_of(folder)


@pytest.mark.parametrize(
    "name",
    [
        b'it\'s "quoted".py',
        b"back\\slash.py",
        b"new\nline.py",
        b"tab\there.py",
        b"latin-\xe9.py",
        "snö/weiß 雪.py".encode(),
        b" leading and trailing ",
        b"-dash",
        b"$(touch x)",
        b"\x01\x1f\x7f",
        b"a b/c d",
        b"@{0}",
    ],
)
def test_any_name_that_a_file_can_have_is_kept(store: Store, tmp_path: Path, name: bytes) -> None:
    folder = store.checkout(tmp_path / "then")
    path = os.fsdecode(name)
    for content, (patch, tree) in zip(
        (b"one\n", b"two\n", None),
        store.record(edit(path, b"one\n"), edit(path, b"two\n"), edit(path, None)),
        strict=True,
    ):
        apply(folder, patch)
        file = folder / path
        assert (file.read_bytes() if file.exists() else None) == content
        assert tree == store.tree_of(folder)


def test_binary_content_is_kept(store: Store, tmp_path: Path) -> None:
    content = bytes(range(256)) * 20
    folder = store.checkout(tmp_path / "then")
    for patch, _ in store.record(edit("data.bin", content), edit("data.bin", content[::-1])):
        assert b"GIT binary patch" in patch
        apply(folder, patch)
    assert (folder / "data.bin").read_bytes() == content[::-1]


def test_content_that_looks_like_commands_of_the_import_is_only_content(store: Store, tmp_path: Path) -> None:
    evil = b"\ncommit refs/mllaunch/evil\nM 100644 inline x\ndata 1\nx\n\ndone\n"
    folder = store.checkout(tmp_path / "then")
    [(patch, _)] = store.record(Edit("train.py", evil, True, "message\nreset refs/heads/evil\n"))
    apply(folder, patch)
    assert (folder / "train.py").read_bytes() == evil
    assert "evil" not in store.git("for-each-ref")


def test_a_program_stays_a_program_and_a_new_file_is_none(store: Store) -> None:
    [(first, _), (second, _)] = store.record(
        edit("run.sh", b"#!/bin/sh\nexit 1\n"), edit("new.sh", b"#!/bin/sh\n")
    )
    assert b"old mode" not in first
    assert b"new file mode 100644" in second
    assert "100755" in store.git("ls-tree", f"refs/changes/{RUN}/all", "run.sh")


def test_a_link_stays_a_link_to_elsewhere_unless_a_file_took_its_place(store: Store, tmp_path: Path) -> None:
    folder = store.checkout(tmp_path / "then")
    [(turned, one), (written, two)] = store.record(
        edit("latest", b"train.py"), edit("latest", b"layers = 4\n")
    )
    apply(folder, turned)
    assert (folder / "latest").readlink() == Path("train.py")
    assert one == store.tree_of(folder)
    apply(folder, written)
    assert (folder / "latest").read_bytes() == b"layers = 4\n"
    assert not (folder / "latest").is_symlink()
    assert two == store.tree_of(folder)


def test_only_what_was_in_use_makes_a_tree(store: Store, tmp_path: Path) -> None:
    found = store.record(
        edit("train.py", b"one\n", is_live=False),
        edit("src/model.py", b"two\n"),
        edit("x", b"3", is_live=False),
    )
    assert [tree is not None for _, tree in found] == [False, True, False]
    tree = found[1][1]
    assert tree is not None
    assert store.git("cat-file", "blob", f"{tree}:src/model.py") == "two"
    assert store.git("cat-file", "blob", f"{tree}:train.py") == "print('training')"  # as it was executed


def test_a_change_that_changes_nothing_has_an_empty_patch_and_does_not_shift_the_others(store: Store) -> None:
    same = b"print('training')\n"
    found = store.record(
        edit("train.py", same), edit("gone.py", None), edit("train.py", b"x\n"), edit("train.py", b"x\n")
    )
    assert [bool(patch) for patch, _ in found] == [False, False, True, False]
    assert found[0][1] == found[1][1] == store.snapshot.tree
    assert found[2][1] == found[3][1]


def test_repeated_calls_give_the_same_and_later_ones_may_know_more(store: Store) -> None:
    edits = [edit("train.py", b"one\n"), edit("b.py", b"two\n", is_live=False)]
    first = store.record(*edits)
    commits = store.git("for-each-ref", "refs/changes/")
    assert store.record(*edits) == first
    assert store.git("for-each-ref", "refs/changes/") == commits
    more = store.record(*edits, edit("c.py", b"three\n"))
    assert more[:2] == first
    assert store.record(*edits) == first


def test_runs_of_one_commit_have_changes_of_their_own(store: Store) -> None:
    store.record(edit("train.py", b"one\n"))
    store.record(edit("train.py", b"two\n"), run="other")
    assert store.git("cat-file", "blob", f"refs/changes/{RUN}/all:train.py") == "one"
    codechanges.forget(store.path, store.snapshot.commit, "other")
    assert store.refs() == [f"refs/changes/{RUN}/all", f"refs/changes/{RUN}/live"]


def test_forgotten_changes_are_gone_and_the_commit_stays(store: Store, tmp_path: Path) -> None:
    store.record(edit("train.py", b"one\n"))
    for _ in range(2):
        codechanges.forget(store.path, store.snapshot.commit, RUN)
        assert store.refs() == []
    codechanges.forget(str(tmp_path / "none.git"), store.snapshot.commit, RUN)
    assert (store.checkout(tmp_path / "then") / "train.py").exists()


def test_changes_survive_that_the_store_is_cleaned_up(store: Store) -> None:
    store.record(edit("train.py", b"one\n"))
    codestore.prune(store.path)
    assert store.git("cat-file", "blob", f"refs/changes/{RUN}/all:train.py") == "one"


def test_the_locks_of_a_killed_writer_are_in_nobodys_way(store: Store) -> None:
    store.record(edit("train.py", b"one\n"))
    lock = Path(store.path) / "refs" / "changes" / RUN / "all.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    [(patch, _)] = store.record(edit("train.py", b"two\n"))
    assert b"+two" in patch


def test_configuration_of_the_user_does_not_change_a_patch(store: Store, tmp_path: Path) -> None:
    before = store.record(edit("train.py", b"print('two')\n"), edit("new.py", b"print('training')\n"))
    with (tmp_path / "gitconfig").open("a") as file:
        file.write("[diff]\n\tnoprefix = true\n\tmnemonicPrefix = true\n\trenames = copies\n\tcontext = 0\n")
        file.write(
            "\texternal = false\n\talgorithm = patience\n[color]\n\tui = always\n[core]\n\tquotePath = true\n"
        )
    assert store.record(edit("train.py", b"print('two')\n"), edit("new.py", b"print('training')\n")) == before


def test_a_change_within_a_submodule_is_a_change_of_its_file(repository: Repository, tmp_path: Path) -> None:
    inner = make_repository(repository.root / "vendor/inner")
    inner.write("lib.py", "lib\n")
    inner.write("tool.sh", "#!/bin/sh\n").chmod(0o755)
    inner.commit()
    deeper = make_repository(inner.root / "deep er")
    deeper.write("deep.py", "deep\n")
    deeper.commit()
    inner.commit()
    other = make_repository(repository.root / "vendor/other")
    other.write("x.py", "x\n")
    other.commit()
    repository.commit()
    store = Store(repository, tmp_path / "code.git")
    folder = store.checkout(tmp_path / "then")
    edits = [
        edit("vendor/inner/lib.py", b"changed\n"),
        edit("train.py", b"x\n", is_live=False),
        edit("vendor/inner/tool.sh", b"#!/bin/sh\nexit 1\n"),
        edit("vendor/inner/deep er/deep.py", None),
    ]
    found = store.record(*edits)
    for change, (patch, _) in zip(edits, found, strict=True):
        assert b"Subproject" not in patch
        apply(folder, patch)
        file = folder / change.path
        assert (file.read_bytes() if file.exists() else None) == change.content
    assert (folder / "vendor/other/x.py").exists()
    assert [tree is not None for _, tree in found] == [True, False, True, True]
    assert store.git("cat-file", "blob", f"{found[2][1]}:vendor/inner/lib.py") == "changed"
    assert store.record(*edits) == found
