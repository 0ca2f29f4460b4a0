"""`show`, `export`, `note` and `tag`: a run for people, and a folder per experiment for those who like folders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from tests.e2e.harness import Home, Mllaunch, Repo

WRITE = """\
    import os
    out = os.environ["MLLAUNCH_OUTPUT_DIR"]
    os.makedirs(os.path.join(out, "deep"))
    for name, text in (("model.bin", "weights"), ("deep/metrics.txt", "0.9")):
        with open(os.path.join(out, name), "w") as file:
            file.write(text)
    os.symlink("model.bin", os.path.join(out, "latest"))
    os.symlink("/etc/passwd", os.path.join(out, "passwd"))
    os.symlink("../train.py", os.path.join(out, "above"))
    with open("elsewhere.txt", "w") as file:
        file.write("beside")
    print("done")
"""


def finished(repo: Repo, mllaunch: Mllaunch, *options: str) -> str:
    repo.script(WRITE)
    name = mllaunch("run", *options, "train.py", "--lr", "3e-4", "--epochs", "3", check=True).run_name
    mllaunch.wait_sealed(name)
    return name


def test_show_says_on_one_screen_what_became_of_a_run(repo: Repo, mllaunch: Mllaunch) -> None:
    name = finished(repo, mllaunch, "--note", "first try", "--tag", "a", "--tag", "b")
    shown = mllaunch("show", name, check=True).stdout
    assert len(shown.splitlines()) <= 24
    for text in (
        name,
        "succeeded",
        "exit code 0",
        "first try",
        "a, b",
        "lr = 3e-4",
        "main, clean",
        "3 files",
    ):
        assert text in shown
    assert repo.git("rev-parse", "HEAD") in shown
    made = mllaunch("show", name, "--json", check=True).document
    assert made["run"]["state"] == "succeeded"
    assert made["outputs"] == {"files": 3, "size_bytes": 16}
    assert made["warnings"] == []


def test_show_explains_a_failure_and_names_the_missing_file(repo: Repo, mllaunch: Mllaunch) -> None:
    repo.write(".gitignore", "data/\noutputs/\n")
    repo.write("data/train.csv", "1\n")
    repo.script("open('data/train.csv')")
    name = mllaunch("run", "--max-retries", "1", "train.py").run_name
    mllaunch.wait_sealed(name)
    shown = mllaunch("show", name, check=True).stdout
    assert "failed: exited with 1" in shown
    assert "--data data" in shown
    assert "attempts      1  failed" in shown
    made = mllaunch("show", name, "--json", check=True).document
    assert [attempt["exit_code"] for attempt in made["attempts"]] == [1, 1]
    assert made["run"]["reason"]["code"] == "exit"


def test_show_warns_of_what_makes_a_result_doubtful(repo: Repo, mllaunch: Mllaunch) -> None:
    repo.write(".gitignore", "data/\noutputs/\n")
    repo.write("data/train.csv", "1\n")
    repo.script("""\
        import os, time
        while not any(name.startswith("manifest") for name in os.listdir("../streams")):
            time.sleep(0.02)
        with open("data/train.csv", "a") as file:
            file.write("2")
    """)
    name = mllaunch("run", "--data", "data", "train.py", check=True).run_name
    mllaunch.wait_sealed(name)
    [warning] = mllaunch("show", name, "--json", check=True).document["warnings"]
    assert warning == "data changed during the run: 1 modified (train.csv)"


def test_show_of_a_running_run_and_of_none(repo: Repo, mllaunch: Mllaunch) -> None:
    _, name = mllaunch.submit("--", "sleep", "60")
    mllaunch.wait(name, "running")
    shown = mllaunch("show", name, check=True).stdout
    assert shown.startswith(f"{name}  running")
    assert "not sealed yet" in shown
    mllaunch("stop", name, "--now", check=True)
    assert "cancelled: stopped by" in mllaunch("show", name, check=True).stdout
    missing = mllaunch("show", "nobody")
    assert missing.rc == 3
    assert "hint:" in missing.stderr


def test_notes_and_tags_are_written_at_submit_and_later(repo: Repo, mllaunch: Mllaunch) -> None:
    repo.script("")
    name = mllaunch("run", "--note", "first", "--tag", "a", "train.py", check=True).run_name
    assert (mllaunch.row(name)["note"], mllaunch.row(name)["tags"]) == ("first", ["a"])
    mllaunch("note", name, "second\nline", check=True)
    mllaunch("tag", name, "b", "a", "c d", check=True)
    assert (mllaunch.row(name)["note"], mllaunch.row(name)["tags"]) == ("second\nline", ["a", "b", "c d"])
    listed = mllaunch("ps", "--tag", "c d", "--json", check=True).document
    assert [row["name"] for row in listed] == [name]
    mllaunch("note", name, "", check=True)
    assert mllaunch.row(name)["note"] is None


@pytest.mark.parametrize("tag", ["", " ", "a,b", "a\nb", "\x1b[31m", "x" * 65, " a"])
def test_what_cannot_be_a_tag_is_refused_and_nothing_changes(
    repo: Repo, mllaunch: Mllaunch, tag: str
) -> None:
    repo.script("")
    name = mllaunch("run", "train.py", check=True).run_name
    refused = mllaunch("tag", name, "good", tag)
    assert refused.rc == 2
    assert "error[bad_tag]" in refused.stderr
    assert "\x1b" not in refused.stderr
    assert mllaunch.row(name)["tags"] == []
    assert mllaunch("submit", "--tag", tag, "train.py").rc == 2
    assert len(mllaunch("ps", "-a", "--json", check=True).document) == 1


def test_a_secret_in_a_note_is_masked_before_it_is_stored(repo: Repo, mllaunch: Mllaunch, home: Home) -> None:
    repo.script("")
    name = mllaunch("run", "train.py", check=True).run_name
    secret = "hf_" + "aB1c" * 9
    mllaunch("note", name, f"with {secret} and opensesame!", env={"MY_PASSWORD": "opensesame!"}, check=True)
    assert mllaunch.row(name)["note"] == f"with {'*' * len(secret)} and {'*' * 11}"
    assert secret.encode() not in b"".join(path.read_bytes() for path in home.path.glob("runlog*"))


def test_an_exported_run_is_a_folder_that_needs_no_mllaunch(
    repo: Repo, mllaunch: Mllaunch, tmp_path: Path
) -> None:
    name = finished(repo, mllaunch, "--note", "first try", "--tag", "a")
    dest = tmp_path / "experiment"
    answer = mllaunch("export", name, str(dest), check=True)
    assert yaml.safe_load((dest / "config.yaml").read_text()) == {"lr": "3e-4", "epochs": 3}
    assert "lr: 3e-4\n" in (dest / "config.yaml").read_text()
    assert (dest / "notes.txt").read_text() == "first try\ntags: a\n"
    info = (dest / "run_info.txt").read_text()
    for text in (name, "succeeded", repo.git("rev-parse", "HEAD"), os.uname().nodename, "submitted"):
        assert text in info
    assert "\x1b" not in info
    provenance = json.loads((dest / "provenance.json").read_text())
    assert provenance["schema"] == "mllaunch.provenance/1"
    assert (dest / "outputs/model.bin").read_text() == "weights"
    assert (dest / "outputs/deep/metrics.txt").read_text() == "0.9"
    assert (dest / "outputs/latest").read_text() == "weights"
    assert (dest / "work/elsewhere.txt").read_text() == "beside"
    assert (dest / "logs/stdout.0").read_bytes() == b"done\n"
    for link in ("passwd", "above"):
        assert not (dest / "outputs" / link).is_symlink()
        assert f"outputs/{link}: a link that leads out of the folder" in info
        assert f"outputs/{link}" in answer.stderr
    assert sorted(path.name for path in dest.iterdir()) == [
        "config.yaml",
        "logs",
        "notes.txt",
        "outputs",
        "provenance.json",
        "run_info.txt",
        "work",
    ]


def test_an_export_overwrites_nothing_and_a_failed_one_leaves_nothing(
    repo: Repo, mllaunch: Mllaunch, home: Home, tmp_path: Path
) -> None:
    name = finished(repo, mllaunch)
    place = tmp_path / "place"
    (place / "full").mkdir(parents=True)
    (place / "full/mine").write_text("mine")
    (place / "empty").mkdir()
    refused = mllaunch("export", name, str(place / "full"))
    assert (refused.rc, (place / "full/mine").read_text()) == (2, "mine")
    assert "error[not_empty]" in refused.stderr
    assert mllaunch("export", name, str(place / "none/there")).rc == 2
    mllaunch("export", name, str(place / "empty"), check=True)
    assert (place / "empty/outputs/model.bin").exists()

    [output] = home.path.glob("runs/*/1/work/outputs/model.bin")
    output.chmod(0o600)
    output.write_text("WEIGHTS")
    failed = mllaunch("export", name, str(place / "new"))
    assert failed.rc == 1
    assert "outputs/model.bin: changed" in failed.stderr
    assert "--partial" in failed.stderr
    assert sorted(path.name for path in place.iterdir()) == ["empty", "full"]

    mllaunch("export", "--partial", name, str(place / "new"), check=True)
    assert not (place / "new/outputs/model.bin").exists()
    assert (place / "new/outputs/deep/metrics.txt").exists()
    assert "outputs/model.bin: changed" in (place / "new/run_info.txt").read_text()


def test_a_run_that_goes_on_is_not_exported(repo: Repo, mllaunch: Mllaunch, tmp_path: Path) -> None:
    _, name = mllaunch.submit("--", "sleep", "60")
    mllaunch.wait(name, "running")
    refused = mllaunch("export", name, str(tmp_path / "dest"))
    assert refused.rc == 2
    assert "error[not_over]" in refused.stderr
    assert not (tmp_path / "dest").exists()
    mllaunch("stop", name, "--now", check=True)
    mllaunch("export", name, str(tmp_path / "dest"), check=True)
    assert list((tmp_path / "dest/outputs").iterdir()) == []


def test_every_attempt_and_rank_has_its_logs_in_the_export(
    repo: Repo, mllaunch: Mllaunch, tmp_path: Path
) -> None:
    repo.script("import os, sys; print(os.environ['MLLAUNCH_ATTEMPT']); sys.exit(3)")
    name = mllaunch("run", "--max-retries", "1", "train.py").run_name
    mllaunch.wait_sealed(name)
    mllaunch("export", name, str(tmp_path / "dest"), check=True)
    node = os.uname().nodename
    for attempt in ("1", "2"):
        log = tmp_path / "dest/logs" / f"attempt-{attempt}-{node}" / "stdout.0"
        assert log.read_text() == f"{attempt}\n"
    assert "failed: exited with 3" in (tmp_path / "dest/run_info.txt").read_text()
