from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MLLAUNCH = [sys.executable, "-c", "from mllaunch.cli.main import main; main()"]


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """A user who has configured nothing, git included."""
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home"), "GIT_CONFIG_NOSYSTEM": "1"}


def mllaunch(
    *args: str, cwd: Path, environ: dict[str, str], **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MLLAUNCH, *args], cwd=cwd, env={**environ, **variables}, capture_output=True, text=True
    )


def git(*args: str, cwd: Path) -> str:
    return subprocess.run(["git", *args], cwd=cwd, capture_output=True, text=True, check=True).stdout


def test_config_shows_values_and_origins_from_a_folder_below_the_root(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    git("init", "--quiet", cwd=tmp_path)
    (tmp_path / "mllaunch.yaml").write_text("keep: 3d\n")
    (tmp_path / "below").mkdir()
    shown = mllaunch(
        "config", "--show-origin", cwd=tmp_path / "below", environ=environ, MLLAUNCH_BACKEND="ssh"
    )
    assert shown.returncode == 0
    lines = {tuple(line.split()[:2]): line.partition("# ")[2] for line in shown.stdout.splitlines()}
    assert lines["keep:", "3d"] == "mllaunch.yaml:1:7"
    assert lines["backend:", "ssh"] == "MLLAUNCH_BACKEND"
    document = json.loads(mllaunch("config", "--json", cwd=tmp_path, environ=environ).stdout)
    assert document["config"]["keep_s"] == 3 * 86400


def test_config_works_outside_of_a_repository(tmp_path: Path, environ: dict[str, str]) -> None:
    shown = mllaunch("config", cwd=tmp_path, environ=environ)
    assert (shown.returncode, shown.stderr) == (0, "")


def test_a_faulty_configuration_ends_with_exit_code_2_and_every_place(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    git("init", "--quiet", cwd=tmp_path)
    (tmp_path / "mllaunch.yaml").write_text("kep: 3d\nbackend: vm\n")
    shown = mllaunch("config", cwd=tmp_path, environ=environ)
    assert shown.returncode == 2
    assert shown.stdout == ""
    assert shown.stderr.splitlines() == [
        "error[config-invalid]: the configuration has 2 faults",
        "  mllaunch.yaml:1:1: unknown key 'kep'; did you mean keep?",
        "  mllaunch.yaml:2:10: expected local | ssh | ray, not 'vm'",
        "hint: correct what is named, then: mllaunch config --show-origin",
    ]


def test_init_makes_a_repository_and_a_configuration_that_loads(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    said = mllaunch("init", "true", cwd=tmp_path, environ=environ)  # a name that YAML would take for no text
    assert said.returncode == 0
    assert "made a git repository" in said.stderr
    shown = mllaunch("config", cwd=tmp_path / "true", environ=environ)
    assert 'project: "true"\n' in shown.stdout


def test_the_commented_settings_of_the_template_are_valid(tmp_path: Path, environ: dict[str, str]) -> None:
    mllaunch("init", cwd=tmp_path, environ=environ)
    path = tmp_path / "mllaunch.yaml"
    text = path.read_text()
    path.write_text("".join(line.removeprefix("# ") for line in text.splitlines(True)[1:]))
    shown = mllaunch("config", cwd=tmp_path, environ=environ)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "dirty: snapshot" in shown.stdout


def test_init_writes_to_the_root_and_overwrites_nothing(tmp_path: Path, environ: dict[str, str]) -> None:
    git("init", "--quiet", cwd=tmp_path)
    (tmp_path / "below").mkdir()
    assert mllaunch("init", cwd=tmp_path / "below", environ=environ).returncode == 0
    (tmp_path / "mllaunch.yaml").write_text("keep: 1d\n")
    again = mllaunch("init", cwd=tmp_path, environ=environ)
    assert again.returncode == 2
    assert f"{tmp_path}/mllaunch.yaml is there already" in again.stderr
    assert (tmp_path / "mllaunch.yaml").read_text() == "keep: 1d\n"


def test_init_leaves_no_repository_behind_where_the_file_exists(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / "mllaunch.yaml").write_text("keep: 1d\n")
    assert mllaunch("init", cwd=tmp_path, environ=environ).returncode == 2
    assert not (tmp_path / ".git").exists()


def test_init_refuses_a_bare_repository_and_a_file_in_place_of_the_folder(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    git("init", "--quiet", "--bare", "bare.git", cwd=tmp_path)
    (tmp_path / "file").write_text("")
    for name in ("bare.git", "file", "file/below"):
        refused = mllaunch("init", name, cwd=tmp_path, environ=environ)
        assert refused.returncode == 2
        assert refused.stderr.startswith("error[")


def test_the_example_is_a_clean_repository_with_one_commit_even_where_git_knows_no_user(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    said = mllaunch("init", "--example", "digits", "new/digits", cwd=tmp_path, environ=environ)
    assert said.returncode == 0, said.stderr
    assert said.stderr.splitlines()[1:] == [
        "next:",
        f"  cd {tmp_path}/new/digits",
        "  pip install -r requirements.txt   # only where no Docker answers, "
        "and numpy and scikit-learn are not there yet",
        "  mllaunch run train.py",
        "  mllaunch provenance @last",
    ]
    folder = tmp_path / "new" / "digits"
    assert git("rev-list", "--count", "HEAD", cwd=folder).strip() == "1"
    assert git("status", "--porcelain", cwd=folder) == ""
    assert {"train.py", "README.md", "mllaunch.yaml", "requirements.txt"} <= set(
        git("ls-files", cwd=folder).split()
    )
    shown = mllaunch("config", "--json", cwd=folder, environ=environ)
    assert json.loads(shown.stdout)["config"]["project"] == "digits"


def test_the_next_steps_name_what_the_other_example_needs(tmp_path: Path, environ: dict[str, str]) -> None:
    said = mllaunch("init", "--example", "torch", cwd=tmp_path, environ=environ)
    assert said.returncode == 0, said.stderr
    assert f"  cd {tmp_path}/torch\n" in said.stderr
    assert "and torch and numpy are not there yet\n" in said.stderr


def test_the_example_goes_into_no_folder_that_holds_something(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / "mine").write_text("")
    refused = mllaunch("init", "--example", "digits", cwd=tmp_path, environ=environ)
    assert refused.returncode == 2
    assert "digits is not empty" in refused.stderr
    assert [path.name for path in (tmp_path / "digits").iterdir()] == ["mine"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_the_script_and_says_how_to_install_it(
    tmp_path: Path, environ: dict[str, str], shell: str
) -> None:
    printed = mllaunch("completion", shell, cwd=tmp_path, environ=environ)
    assert printed.returncode == 0
    assert "_MLLAUNCH_COMPLETE" in printed.stdout
    assert printed.stderr.startswith("install it with: ")


def test_the_completion_script_gets_the_commands(tmp_path: Path, environ: dict[str, str]) -> None:
    asked = mllaunch(
        cwd=tmp_path,
        environ=environ,
        _MLLAUNCH_COMPLETE="bash_complete",
        COMP_WORDS="mllaunch comp",
        COMP_CWORD="1",
    )
    assert asked.stdout.splitlines() == ["plain,completion"]


def test_an_unknown_shell_is_refused(tmp_path: Path, environ: dict[str, str]) -> None:
    assert mllaunch("completion", "tcsh", cwd=tmp_path, environ=environ).returncode == 2
