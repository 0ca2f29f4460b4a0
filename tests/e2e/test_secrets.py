"""Bad input 36: secrets in arguments, environment, output, uncommitted code and the remote's URL stay on the node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.harness import Home, Mllaunch, Repo, Result

# Put together here, so that no scanner of source code takes these for real ones.
AWS = "AKIA" + "Q3EGRZ7WPLH5NVXC"
GITHUB = "ghp_" + "n8Kd72LmQp4Rt6Vw9Xz1Bc3Df5Gh7Jk0AbCd"
HUGGING_FACE = "hf_" + "TnPqRsVwXyZaBcDeFgHiJkLmNoQrStUvWx"
OPENAI = "sk-" + "proj-Zx9Cv8Bn7Mq6Lk5Jh4Gf3Ds2Ap1Qw0Er"
PASSWORD = "correct-horse-9"
DECLARED = "value with spaces, known by its name only"
ALL = (AWS, GITHUB, HUGGING_FACE, OPENAI, PASSWORD, DECLARED)

LEAK = f"""
    import os, sys, time
    print("key {AWS} in a line")
    sys.stderr.write("Bearer {GITHUB}\\n")
    print("url https://user:{PASSWORD}@example.org/x")
    print("declared", os.environ["MY_SECRET"], os.environ["HF_TOKEN"])
    out = open(1, "wb", buffering=0, closefd=False)
    for secret in ({OPENAI!r}, os.environ["MY_SECRET"]):
        for cut in (2, len(secret) // 2, len(secret) - 1):
            out.write(secret[:cut].encode())
            time.sleep(0.7)  # the first half has been read, shipped and shown by now
            out.write(secret[cut:].encode() + b"\\n")
    print("args", sys.argv[1:])
"""


def leaks(text: str) -> list[str]:
    return [secret for secret in ALL if secret in text]


def files_with_secrets(folder: Path) -> list[str]:
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            data = path.read_bytes()
            found += [f"{path}: {secret}" for secret in ALL if secret.encode() in data]
    return found


def is_the_jobs_own(entry: str) -> bool:
    """The user's own code, byte for byte; what the job itself has written; the specification, for its owner alone."""
    path = Path(entry.partition(": ")[0])
    if "trees" in path.parts:
        return True
    return path.name == "spec.json" or (path.parent.name == "streams" and path.name.startswith("std"))


@pytest.mark.parametrize("through", ["pipe", "terminal"])
def test_36_secrets_are_masked_in_all_that_is_kept_shipped_or_shown(
    home: Home, mllaunch: Mllaunch, repo: Repo, terminal: Callable[..., Result], through: str
) -> None:
    repo.git("remote", "add", "origin", f"https://user:{PASSWORD}@example.org/project.git")
    repo.script("")
    repo.write("train.py", LEAK)  # uncommitted
    env = {"MY_SECRET": DECLARED, "HF_TOKEN": HUGGING_FACE, "PLAIN": f"has {AWS} inside"}
    options = ["--name", "leaky", "--allow-dirty", "--note", f"uses {GITHUB}", "--env", "PLAIN"]
    options += ["--env", f"OPENAI_API_KEY={OPENAI}"]
    typed = ["train.py", "--token", GITHUB, f"--key={OPENAI}", f"https://user:{PASSWORD}@example.org/data"]
    command = [*options, *typed]
    planned = mllaunch("submit", "--dry-run", "--json", *command, env=env, check=True)
    assert not leaks(planned.stdout + planned.stderr)
    call = terminal if through == "terminal" else mllaunch
    done = call("run", *command, env=env)
    assert done.rc == 0, done
    assert not leaks(done.stdout + done.stderr)
    run = mllaunch.wait_sealed("leaky")

    asked = [
        ["ps"], ["ps", "--json"], ["logs", "leaky"], ["logs", "--raw", "leaky"], ["logs", "--stderr", "leaky"],
        ["show", "leaky"], ["show", "leaky", "--json"], ["provenance", "leaky"], ["provenance", "leaky", "--json"],
        ["files", "leaky"],
    ]  # fmt: skip
    for args in asked:
        for shown in (mllaunch(*args), terminal(*args)):
            assert not leaks(shown.stdout + shown.stderr), args

    attempt = home.attempt(run["id"])
    for stream, option in (("stdout.0", []), ("stderr.0", ["--stderr"])):
        raw = (attempt / "streams" / stream).read_bytes()
        stored = mllaunch("logs", "--raw", *option, "leaky", check=True).stdout_bytes
        assert len(stored) == len(raw) and stored.count(b"\n") == raw.count(b"\n")
        # What is no secret is untouched, in its place; the job's own file has everything.
        assert all(b == a or b == ord("*") for a, b in zip(raw, stored, strict=True))
        assert leaks(raw.decode())
    assert (attempt / "spec.json").stat().st_mode & 0o077 == 0

    exported = mllaunch("export", "leaky", str(home.folder / "exported"))
    assert not leaks(exported.stdout + exported.stderr)
    assert [entry for entry in files_with_secrets(home.folder) if not is_the_jobs_own(entry)] == []


def test_36_our_own_processes_show_no_secret_in_their_command_line(mllaunch: Mllaunch) -> None:
    _, name = mllaunch.submit("--", "sh", "-c", "echo begun; sleep 1000; :", "sh", GITHUB)
    mllaunch.wait(name, "running")
    for pid in mllaunch.home.processes():
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            command = Path(f"/proc/{pid}/cmdline").read_text()
        except FileNotFoundError:
            continue
        if b"MLLAUNCH_AGENT=1" in environ:
            assert not leaks(command)
    mllaunch("stop", "--now", name, check=True)
