from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.e2e.harness import Mllaunch, Repo


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file's bytes and every link's target, by relative path; git's own folder left out."""
    found: dict[str, bytes | str] = {}
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if relative.parts[0] == ".git" or (path.is_dir() and not path.is_symlink()):
            continue
        found[str(relative)] = str(path.readlink()) if path.is_symlink() else path.read_bytes()
    return found


def test_checkout_gives_exactly_the_runs_tree_after_the_repository_is_gone(
    mllaunch: Mllaunch, repo: Repo, tmp_path: Path
) -> None:
    repo.write("package/data.bin", bytes(range(256)))
    repo.write("run.sh", "#!/bin/sh\n").chmod(0o755)
    (repo.root / "link").symlink_to("package/data.bin")
    repo.script("print('hi')")
    expected = contents(repo.root)
    _, name = mllaunch.submit("train.py")
    mllaunch.wait_sealed(name)
    commit = repo.git("rev-parse", "HEAD")
    shutil.rmtree(repo.root)
    done = mllaunch("checkout", name, str(tmp_path / "out" / "code"), cwd=tmp_path, check=True)
    assert contents(tmp_path / "out" / "code") == expected
    assert os.access(tmp_path / "out" / "code" / "run.sh", os.X_OK)
    assert done.stdout == f"{commit} {tmp_path / 'out' / 'code'}\n"
    assert list((tmp_path / "out").iterdir()) == [tmp_path / "out" / "code"]


def test_a_dirty_snapshot_comes_with_its_uncommitted_changes_and_says_so(
    mllaunch: Mllaunch, repo: Repo, tmp_path: Path
) -> None:
    repo.script("print('committed')")
    repo.write("train.py", "print('edited')")
    repo.write("new.py", "")
    _, name = mllaunch.submit("--allow-dirty", "train.py")
    mllaunch.wait_sealed(name)
    (tmp_path / "empty").mkdir()
    done = mllaunch("checkout", name, str(tmp_path / "empty"), check=True)
    assert (tmp_path / "empty" / "train.py").read_text() == "print('edited')"
    assert (tmp_path / "empty" / "new.py").exists()
    assert "uncommitted changes" in done.stderr and "2 files" in done.stderr
    document = mllaunch("checkout", name, str(tmp_path / "other"), "--json", check=True).document
    assert document["dirty"] is True and document["uncommitted"] == ["train.py", "new.py"]


def test_code_that_was_not_copied_yet_is_copied_first(mllaunch: Mllaunch, repo: Repo, tmp_path: Path) -> None:
    repo.script("print('hi')")
    _, name = mllaunch.submit("train.py")
    mllaunch.wait_sealed(name)
    shutil.rmtree(mllaunch.home.path / "code.git")
    mllaunch("checkout", name, str(tmp_path / "code"), check=True)
    assert (tmp_path / "code" / "train.py").read_text() == "print('hi')"
    assert (mllaunch.home.path / "code.git").is_dir()


def test_code_that_nobody_has_any_more_is_said_and_leaves_nothing(
    mllaunch: Mllaunch, repo: Repo, tmp_path: Path
) -> None:
    repo.script("print('hi')")
    _, name = mllaunch.submit("train.py")
    mllaunch.wait_sealed(name)
    shutil.rmtree(mllaunch.home.path / "code.git")
    shutil.rmtree(repo.root)
    before = sorted(tmp_path.iterdir())
    done = mllaunch("checkout", name, str(tmp_path / "code"), cwd=tmp_path)
    assert done.rc == 3
    assert "error[no_such_code]" in done.stderr and str(repo.root) in done.stderr
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("kind", ["full", "file", "link"])
def test_a_place_that_is_taken_is_refused_and_stays_as_it_is(
    mllaunch: Mllaunch, repo: Repo, tmp_path: Path, kind: str
) -> None:
    repo.script("print('hi')")
    _, name = mllaunch.submit("train.py")
    mllaunch.wait_sealed(name)
    place = tmp_path / "place"
    if kind == "full":
        place.mkdir()
        (place / "mine").write_text("mine")
    elif kind == "file":
        place.write_text("mine")
    else:
        place.symlink_to(tmp_path)
    done = mllaunch("checkout", name, str(place))
    assert done.rc == 2 and "error[not-empty]" in done.stderr
    if kind == "full":
        assert list(place.iterdir()) == [place / "mine"]
    elif kind == "file":
        assert place.read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_an_error_in_words(
    mllaunch: Mllaunch, repo: Repo, tmp_path: Path
) -> None:
    repo.script("print('hi')")
    _, name = mllaunch.submit("train.py")
    mllaunch.wait_sealed(name)
    (tmp_path / "file").write_text("")
    done = mllaunch("checkout", name, str(tmp_path / "file" / "below"))
    assert done.rc == 1 and "error[cannot_write]" in done.stderr
