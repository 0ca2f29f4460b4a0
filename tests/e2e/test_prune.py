from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness import Mllaunch, Repo, Result, until

SECRET = "hunter2-very-secret"


def finished(mllaunch: Mllaunch, *args: str, **env: str) -> tuple[str, str]:
    run_id, name = mllaunch.submit(*args, "train.py", env=env)
    mllaunch.wait_sealed(name)
    return run_id, name


@pytest.fixture
def writing(repo: Repo) -> Repo:
    repo.script(
        """
        import os
        print("hello " * 10000)
        open(os.environ["MLLAUNCH_OUTPUT_DIR"] + "/a.pt", "wb").write(os.urandom(100_000))
        """
    )
    return repo


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_prune_frees_the_copies_of_streams_and_the_trees_and_keeps_outputs_logs_and_code(
    mllaunch: Mllaunch, writing: Repo, tmp_path: Path
) -> None:
    run_id, name = finished(mllaunch, API_TOKEN=SECRET)
    logs = mllaunch("logs", name, "--raw", check=True).stdout
    done = mllaunch("prune", "--older-than", "0s", "--yes", check=True)
    assert name in done.stdout and "outputs stay" in done.stdout and "freed" in done.stderr
    attempt = mllaunch.home.attempt(run_id)
    assert not (attempt / "streams").exists()
    assert (attempt / "work/outputs/a.pt").stat().st_size == 100_000
    assert SECRET not in (attempt / "spec.json").read_text()
    assert not [path for path in names(mllaunch.home.path / "trees") if len(path) == 40]
    assert mllaunch("logs", name, "--raw", check=True).stdout == logs
    mllaunch("pull", name, str(tmp_path / "d"), check=True)
    mllaunch("checkout", name, str(tmp_path / "code"), check=True)
    assert "nothing to free" in mllaunch("prune", "--older-than", "0s", "--yes", check=True).stderr
    finished(mllaunch)  # the next run makes its tree again


def test_outputs_go_when_asked_for_and_the_record_of_them_stays(mllaunch: Mllaunch, writing: Repo) -> None:
    run_id, name = finished(mllaunch)
    mllaunch("prune", "--older-than", "0s", "--outputs", "--yes", check=True)
    assert not (mllaunch.home.path / "runs" / run_id).exists()
    assert mllaunch("files", name, "--json", check=True).document["files"][0]["size_bytes"] == 100_000
    pulled = mllaunch("pull", name, str(mllaunch.home.user / "d"))
    assert pulled.rc == 1 and "missing" in pulled.stderr


def test_without_an_age_the_configuration_decides_and_young_runs_stay(
    mllaunch: Mllaunch, writing: Repo
) -> None:
    run_id, name = finished(mllaunch)
    assert "nothing to free" in mllaunch("prune", "--yes", check=True).stderr
    assert (mllaunch.home.attempt(run_id) / "streams").is_dir()
    writing.write("mllaunch.yaml", "keep: 0s\n")
    assert name in mllaunch("prune", "--yes", check=True).stdout
    assert not (mllaunch.home.attempt(run_id) / "streams").exists()


def test_the_newest_runs_are_spared_and_a_named_run_is_freed(mllaunch: Mllaunch, writing: Repo) -> None:
    older, _ = finished(mllaunch)
    newer, newer_name = finished(mllaunch)
    mllaunch("prune", "--older-than", "0s", "--keep-last", "1", "--yes", check=True)
    assert not (mllaunch.home.attempt(older) / "streams").exists()
    assert (mllaunch.home.attempt(newer) / "streams").is_dir()
    mllaunch("prune", newer_name, "--yes", check=True)
    assert not (mllaunch.home.attempt(newer) / "streams").exists()


def test_a_dry_run_and_a_pipe_without_yes_free_nothing(mllaunch: Mllaunch, writing: Repo) -> None:
    run_id, name = finished(mllaunch)
    looked = mllaunch("prune", "--older-than", "0s", "--dry-run", check=True)
    assert name in looked.stdout
    document = mllaunch("prune", "--older-than", "0s", "--dry-run", "--json", check=True).document
    assert (
        document["done"] is False and document["runs"][0]["frees_bytes"] > 0 and len(document["trees"]) == 1
    )
    refused = mllaunch("prune", "--older-than", "0s")
    assert refused.rc == 2 and "error[not_confirmed]" in refused.stderr
    assert (mllaunch.home.attempt(run_id) / "streams").is_dir()


def test_a_terminal_is_asked(mllaunch: Mllaunch, writing: Repo, terminal: Callable[..., Result]) -> None:
    run_id, _ = finished(mllaunch)
    refused = terminal("prune", "--older-than", "0s", type_after=("Free it?", "n\n"))
    assert (refused.rc, refused.stdout.splitlines()[-1]) == (1, "nothing was freed")
    assert (
        terminal("prune", "--older-than", "0s", type_after=("Free it?", "\x03\n")).rc == 130
    )  # a signal just before a read is heeded after it
    assert (mllaunch.home.attempt(run_id) / "streams").is_dir()
    assert terminal("prune", "--older-than", "0s", type_after=("Free it?", "y\n")).rc == 0
    assert not (mllaunch.home.attempt(run_id) / "streams").exists()


def test_a_run_that_goes_on_is_never_touched(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script(
        """
        import os, time
        print("begun", flush=True)
        while not os.path.exists(os.environ["HOME"] + "/go"):
            time.sleep(0.02)
        print(open("train.py").read() != "")
        """
    )
    run_id, name = mllaunch.submit("train.py")
    until(lambda: "begun" in mllaunch("logs", name).stdout, "the script to begin")
    kept = mllaunch("prune", "--older-than", "0s", "--outputs", "--yes", check=True)
    assert f"{name} stays: it is running" in kept.stderr
    for flags in ([], ["--forget"]):
        refused = mllaunch("prune", name, "--yes", *flags)
        assert refused.rc == 2 and "error[unfinished]" in refused.stderr
    assert (mllaunch.home.attempt(run_id) / "streams").is_dir()
    assert len([path for path in names(mllaunch.home.path / "trees") if len(path) == 40]) == 1
    (mllaunch.home.user / "go").touch()
    assert mllaunch.wait(name)["state"] == "succeeded"
    assert mllaunch("logs", name).stdout == "begun\nTrue\n"
    mllaunch.wait_sealed(name)


def test_a_stream_that_the_run_log_lost_keeps_the_only_copy(mllaunch: Mllaunch, writing: Repo) -> None:
    run_id, name = finished(mllaunch)
    stored = [p for p in (mllaunch.home.path / "blobs").rglob("stdout.0") if run_id in str(p)]
    os.truncate(stored[0], 10)
    kept = mllaunch("prune", name, "--yes", check=True)
    assert f"{name} stays" in kept.stderr and "stdout.0" in kept.stderr
    assert (mllaunch.home.attempt(run_id) / "streams/stdout.0").is_file()


def test_forget_removes_a_run_entirely_and_what_others_need_stays(
    mllaunch: Mllaunch, writing: Repo, tmp_path: Path
) -> None:
    _, same = finished(mllaunch)
    _, name = finished(mllaunch)
    writing.script("print('another')")
    other_id, other = finished(mllaunch)
    commit = writing.git("rev-parse", "HEAD")
    mllaunch("prune", other, "--forget", "--yes", check=True)
    assert mllaunch("files", other).rc == 3
    assert commit not in writing.git("for-each-ref", "refs/mllaunch/")
    assert not [path for path in mllaunch.home.path.rglob("*") if other_id in path.name]
    mllaunch("prune", name, "--forget", "--yes", check=True)
    assert [row["name"] for row in mllaunch("ps", "-a", "--json").document] == [same]
    shutil.rmtree(writing.root)
    mllaunch("checkout", same, str(tmp_path / "code"), cwd=tmp_path, check=True)
    assert (tmp_path / "code/train.py").is_file()


def test_forget_works_when_the_repository_is_gone_and_needs_names(
    mllaunch: Mllaunch, writing: Repo, tmp_path: Path
) -> None:
    refused = mllaunch("prune", "--forget", "--yes")
    assert refused.rc == 2 and "error[forget]" in refused.stderr
    _, name = finished(mllaunch)
    shutil.rmtree(writing.root)
    done = mllaunch("prune", name, "--forget", "--yes", "--json", cwd=tmp_path, check=True)
    assert json.loads(done.stdout)["done"] is True
    assert mllaunch("ps", "-a", "--json", cwd=tmp_path).document == []


def test_an_interrupted_prune_can_be_repeated(mllaunch: Mllaunch, writing: Repo) -> None:
    run_id, name = finished(mllaunch)
    attempt = mllaunch.home.attempt(run_id)
    (attempt / "streams/stdout.0").unlink()  # as if killed half-way
    (attempt / "ended").unlink()
    mllaunch("prune", name, "--yes", check=True)
    assert not (attempt / "streams").exists() and (attempt / "work/outputs/a.pt").is_file()


def test_empty_files_are_outputs_too_and_a_run_that_wrote_nothing_leaves_no_folder(
    mllaunch: Mllaunch, repo: Repo
) -> None:
    repo.script("import os\nopen(os.environ['MLLAUNCH_OUTPUT_DIR'] + '/done', 'w')")
    run_id, name = finished(mllaunch)
    mllaunch("prune", name, "--yes", check=True)
    assert (mllaunch.home.attempt(run_id) / "work/outputs/done").is_file()
    repo.script("pass")
    run_id, name = finished(mllaunch)
    mllaunch("prune", name, "--yes", check=True)
    assert not (mllaunch.home.path / "runs" / run_id).exists()
