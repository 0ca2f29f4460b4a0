"""Repositories whose object names are SHA-256 (``git init --object-format=sha256``): all is as in the others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.e2e.harness import Home, Mllaunch, Repo
from tests.e2e.test_ten_scenes import RELOADING, Study


@pytest.fixture
def repo(tmp_path: Path, home: Home) -> Repo:
    return Repo(tmp_path / "project", home.environ, "sha256")


@pytest.fixture
def study(home: Home, repo: Repo, mllaunch: Mllaunch, tmp_path: Path) -> Study:
    return Study(home, repo, mllaunch, tmp_path / "signs")


def test_what_is_edited_in_mid_run_is_known_as_such(study: Study, tmp_path: Path) -> None:
    commit = study.code(RELOADING)
    assert len(commit) == 64
    name = study.begin("2")
    (study.work(name) / "recipe.py").write_text("RATE = 100.0\n")
    study.wait_for_change(name)
    told = study.finish(name, 2)
    code = told["code"]
    assert (code["commit"], code["tree"]) == (commit, study.repo.git("rev-parse", "HEAD^{tree}"))
    assert [node["matches_commit"] for node in code["nodes"]] == [True]
    assert study.changes(told) == [("recipe.py", "yes")]
    trees = {output["path"].rpartition("/")[2]: output["code"] for output in told["outputs"]}
    assert trees["model-1.npz"] == [code["tree"]]
    study.repo.write("../patch", study.mllaunch("provenance", name, "--diff", check=True).stdout)
    study.repo.git("apply", "../patch")
    assert trees["model-2.npz"][1:] == [study.repo.git("rev-parse", f"{study.repo.commit()}^{{tree}}")]

    shutil.rmtree(study.repo.root / ".git")
    study.mllaunch("checkout", name, os.fspath(tmp_path / "then"), check=True)
    assert (tmp_path / "then" / "recipe.py").read_text() == "RATE = 1.0\n"


def test_an_untouched_run_has_no_changes_and_a_dirty_tree_is_a_commit(study: Study) -> None:
    study.code()
    study.repo.write("recipe.py", "RATE = 2.0\n")
    told = study.told(study.run("1", options=("--allow-dirty",)))
    assert told["code"]["uncommitted"] == ["recipe.py"]
    assert "+RATE = 2.0" in study.mllaunch("provenance", "@last", "--diff", check=True).stdout
    assert [node["matches_commit"] for node in told["code"]["nodes"]] == [True]
    assert told["code"]["changes"] == []


def test_its_code_is_compared_with_commits_of_both_kinds(study: Study, home: Home, tmp_path: Path) -> None:
    study.code()
    name = study.run("1")
    published = Repo(tmp_path / "published", home.environ)
    for file in ("train.py", "recipe.py"):
        shutil.copy(study.repo.root / file, published.root / file)
    published.commit("release")
    for root in (study.repo.root, published.root):
        same = study.mllaunch("provenance", name, "--against", "HEAD", "--json", cwd=root)
        assert same.document["same"] == ["recipe.py", "train.py"]
    study.repo.write("recipe.py", "RATE = 0.999\n")
    study.repo.commit()
    other = study.mllaunch("provenance", name, "--against", "HEAD", "--json")
    assert (other.rc, other.document["differs"]) == (1, ["recipe.py"])


def test_a_run_is_resumed_with_its_own_code(study: Study) -> None:
    commit = study.code()
    name = study.run("1")
    study.repo.write("recipe.py", "RATE = 2.0\n")
    study.repo.commit()
    study.mllaunch("resume", name, check=True)
    study.mllaunch.wait_sealed("@last")
    told = study.told("@last")
    assert (told["code"]["commit"], told["code"]["changes"]) == (commit, [])
    assert [node["matches_commit"] for node in told["code"]["nodes"]] == [True]
