from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness import Mllaunch, Repo, Result, until

WRITES = """
    import os
    out = os.environ["MLLAUNCH_OUTPUT_DIR"]
    os.makedirs(out + "/deep", exist_ok=True)
    open(out + "/model.pt", "wb").write(b"weights" * 1000)
    open(out + "/deep/metrics.json", "w").write("{}")
    os.symlink("model.pt", out + "/last.pt")
    os.symlink("/etc/passwd", out + "/away")
    open("notes.txt", "w").write("changed")
    os.remove("old.txt")
    open(out + "/\\x1b[31mred", "w").write("")
"""


@pytest.fixture
def run(mllaunch: Mllaunch, repo: Repo) -> str:
    repo.write("notes.txt", "as committed")
    repo.write("old.txt", "old")
    repo.script(WRITES)
    _, name = mllaunch.submit("train.py")
    assert mllaunch.wait_sealed(name)["state"] == "succeeded"
    return name


def test_files_lists_what_a_run_wrote_changed_and_deleted(mllaunch: Mllaunch, run: str) -> None:
    document = mllaunch("files", run, "--json", check=True).document
    assert (document["run"]["name"], document["attempt"], document["final"]) == (run, 1, True)
    assert document["faults"] == []
    files = {file["path"]: file for file in document["files"]}
    kinds = {path: file["kind"] for path, file in files.items()}
    assert kinds == {
        "notes.txt": "file",
        "old.txt": "deleted",
        "outputs/model.pt": "file",
        "outputs/last.pt": "symlink",
        "outputs/away": "symlink",
        "outputs/deep/metrics.json": "file",
        "outputs/\x1b[31mred": "file",
    }
    model = files["outputs/model.pt"]
    assert model["size_bytes"] == 7000
    assert model["sha256"] == hashlib.sha256(b"weights" * 1000).hexdigest()
    assert files["outputs/last.pt"]["target"] == "model.pt"


def test_a_pipe_gets_whole_digests_and_a_terminal_short_ones_both_without_control_characters(
    mllaunch: Mllaunch, run: str, terminal: Callable[..., Result]
) -> None:
    digest = hashlib.sha256(b"weights" * 1000).hexdigest()
    piped = mllaunch("files", run, check=True).stdout
    assert digest in piped and "7000" in piped and "\x1b" not in piped and "\\x1b[31mred" in piped
    shown = terminal("files", run, env={"NO_COLOR": "1"}, size=(24, 120)).stdout
    assert digest not in shown and digest[:12] in shown and "6.8 KiB" in shown and "deleted" in shown


def test_a_run_that_goes_on_shows_its_output_folder_and_says_that_it_is_not_final(
    mllaunch: Mllaunch, repo: Repo, tmp_path: Path
) -> None:
    repo.script(
        """
        import os, time
        open(os.environ["MLLAUNCH_OUTPUT_DIR"] + "/part.pt", "wb").write(b"so far")
        print("written", flush=True)
        while not os.path.exists(os.environ["HOME"] + "/go"):
            time.sleep(0.02)
        """
    )
    _, name = mllaunch.submit("train.py")
    until(lambda: "written" in mllaunch("logs", name).stdout, "the file to be written")
    shown = mllaunch("files", name, check=True)
    assert "outputs/part.pt" in shown.stdout and "not final" in shown.stderr
    document = mllaunch("files", name, "--json", check=True).document
    assert document["final"] is False and document["files"][0]["sha256"] is None
    pulled = mllaunch("pull", name, str(tmp_path / "d"), check=True)
    assert (tmp_path / "d/outputs/part.pt").read_bytes() == b"so far"
    assert "not final" in pulled.stderr and "no digest" in pulled.stderr
    (mllaunch.home.user / "go").touch()
    mllaunch.wait_sealed(name)
    assert mllaunch("files", name, "--json", check=True).document["final"] is True


def test_pull_copies_what_matches_and_checks_it(mllaunch: Mllaunch, run: str, tmp_path: Path) -> None:
    done = mllaunch("pull", run, "outputs/*.pt", str(tmp_path / "d"), check=True)
    assert (tmp_path / "d/outputs/model.pt").read_bytes() == b"weights" * 1000
    assert str((tmp_path / "d/outputs/last.pt").readlink()) == "model.pt"
    assert not (tmp_path / "d/notes.txt").exists()
    assert "2 files" in done.stderr
    again = mllaunch("pull", run, "outputs/*.pt", str(tmp_path / "d"), "--json", check=True).document
    assert [file["copied"] for file in again["files"]] == [False, False]


def test_pull_of_everything_names_what_it_cannot_copy_and_copies_the_rest(
    mllaunch: Mllaunch, run: str, tmp_path: Path
) -> None:
    run_id = mllaunch.row(run)["id"]
    (mllaunch.home.attempt(run_id) / "work/notes.txt").write_text("tampered with")
    done = mllaunch("pull", run, str(tmp_path / "d"))
    assert done.rc == 1
    assert "notes.txt: changed" in done.stderr and "outputs/away: a link that leads out" in done.stderr
    assert (tmp_path / "d/outputs/deep/metrics.json").read_text() == "{}"
    assert not (tmp_path / "d/notes.txt").exists()


def test_a_glob_without_a_match_is_an_error_with_the_one_that_would_match(
    mllaunch: Mllaunch, run: str, tmp_path: Path
) -> None:
    done = mllaunch("pull", run, "metrics.json", str(tmp_path / "d"))
    assert done.rc == 3 and "error[no_match]" in done.stderr and "'**/metrics.json'" in done.stderr
    assert not (tmp_path / "d").exists()


def test_pull_refuses_a_file_as_its_destination_and_a_glob_that_the_shell_expanded(
    mllaunch: Mllaunch, run: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    done = mllaunch("pull", run, str(tmp_path / "file"))
    assert done.rc == 2 and "error[not_a_folder]" in done.stderr
    done = mllaunch("pull", run, "a.pt", "b.pt", str(tmp_path / "d"))
    assert done.rc == 2 and "quotes" in done.stderr


def test_an_attempt_or_run_that_is_not_there_is_not_found(mllaunch: Mllaunch, run: str) -> None:
    assert mllaunch("files", run, "--attempt", "2").rc == 3
    assert mllaunch("files", "no-such-run").rc == 3


def test_files_that_the_task_left_in_a_run_in_place_are_pulled_from_there(
    mllaunch: Mllaunch, repo: Repo, tmp_path: Path
) -> None:
    repo.script("import os\nopen(os.environ['MLLAUNCH_OUTPUT_DIR'] + '/a.txt', 'w').write('here')")
    _, name = mllaunch.submit("--in-place", "train.py")
    mllaunch.wait_sealed(name)
    mllaunch("pull", name, "outputs/a.txt", str(tmp_path / "d"), check=True)
    assert (tmp_path / "d/outputs/a.txt").read_text() == "here"
