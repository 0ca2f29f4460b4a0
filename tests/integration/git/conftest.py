"""Real git repositories, each in its own folder, with a configuration that owes nothing to the machine."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest


class Repository:
    """A git repository that a user works in, driven as the user would."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def git(self, *args: str, **variables: str) -> str:
        environment = {**os.environ, **variables}
        done = subprocess.run(["git", *args], cwd=self.root, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr
        return os.fsdecode(done.stdout).removesuffix("\n")

    def write(self, path: str | bytes, content: str | bytes = "") -> Path:
        file = self.root / os.fsdecode(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def commit(self, message: str = "work") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")


def make_repository(root: Path) -> Repository:
    root.mkdir(parents=True)
    repository = Repository(root)
    repository.git("init", "--quiet", "--initial-branch=main")
    return repository


@pytest.fixture(autouse=True)
def _own_git_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    configuration = tmp_path / "gitconfig"
    configuration.write_text("[user]\n\tname = A User\n\temail = user@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(configuration))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """One commit of a script, a program and a link."""
    made = make_repository(tmp_path / "project")
    made.write("train.py", "print('training')\n")
    made.write("src/model.py", "layers = 3\n")
    made.write("run.sh", "#!/bin/sh\n").chmod(0o755)
    (made.root / "latest").symlink_to("src/model.py")
    made.write(".gitignore", "outputs/\n")
    made.commit()
    return made


def files_of(folder: Path) -> dict[str, tuple[str, bytes]]:
    """What a working tree or kept tree holds: (kind, content) by path; git's own folders left out."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if ".git" in path.relative_to(folder).parts:
            continue
        if path.is_symlink():
            found[name] = ("link", os.fsencode(path.readlink()))
        elif path.is_file():
            found[name] = ("program" if path.stat().st_mode & 0o100 else "file", path.read_bytes())
    return found
