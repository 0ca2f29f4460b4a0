"""What a task can rely on, whatever starts it. Through the command line, once for each runtime."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Home, Mllaunch, Repo, until
from tests.testbed import images
from tests.testbed.engine import Engine

RUNTIMES = [
    "process",
    pytest.param("docker", marks=pytest.mark.real("engine", "busybox")),
    pytest.param("podman", marks=pytest.mark.real("podman", "busybox")),
]


class User:
    """Somebody who runs shell commands with one runtime."""

    def __init__(self, runtime: str, home: Home, repo: Repo) -> None:
        self.runtime = runtime
        self.home = home
        self.repo = repo
        self.mllaunch = Mllaunch(home, repo.root)

    def run(self, script: str, *options: str) -> Any:
        """Run a shell script to its end; how the command ended, and what it showed."""
        return self.mllaunch("run", *options, "--", "sh", "-c", script)

    def submit(self, script: str, *options: str) -> str:
        return self.mllaunch("submit", *options, "--", "sh", "-c", script).run_name

    def row(self, run: str) -> Any:
        return self.mllaunch.row(run)

    def ended(self, run: str) -> Any:
        """Its row, once its record is sealed."""
        until(lambda: self.provenance(run)["seal"]["status"], f"{run} to be sealed")
        return self.row(run)

    def provenance(self, run: str) -> Any:
        return self.mllaunch("provenance", run, "--json").document

    def attempt(self, run: str) -> Path:
        return self.home.attempt(self.provenance(run)["run"]["id"])

    def printed(self, run: str) -> bytes:
        return bytes(self.mllaunch("logs", run, "--raw").stdout_bytes)

    def agents(self) -> list[int]:
        return [pid for pid, what in self.home.processes().items() if "mllaunch_agent" in what]


@pytest.fixture(params=RUNTIMES)
def user(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[User]:
    home = Home(tmp_path / "h")
    repo = Repo(tmp_path / "project", home.environ)
    made = User(request.param, home, repo)
    repo.write("code.txt", "as committed\n")
    engine: Engine | None = None
    if made.runtime != "process":
        engine = request.getfixturevalue("engine" if made.runtime == "docker" else "podman")
        assert engine
        repo.write("mllaunch.yaml", f"image: {{base: {images.load_tiny(engine)}}}\n")
        home.environ.update(engine.environment)
        home.environ["DOCKER_CONFIG"] = str(tmp_path / "docker-config")
    home.environ["MLLAUNCH_RUNTIME"] = "process" if made.runtime == "process" else "docker"
    repo.commit()
    yield made
    made.mllaunch.close()
    left = home.close()
    assert not left, f"processes were left behind (and have been killed): {left}"
    assert not home.complaints()
    if engine:
        containers = engine.docker("ps", "--all", "--quiet", "--filter", "label=mllaunch.folder").stdout
        assert not containers, f"containers were left behind: {containers}"


def test_the_exit_code_is_the_programs(user: User) -> None:
    assert user.run("exit 0").rc == 0
    assert user.run("exit 41").rc == 41
    assert user.row("@last")["exit_code"] == 41


def test_every_byte_of_both_streams_is_kept_as_it_was_written(user: User) -> None:
    script = r"printf 'a\000b\377\033[2J\r no newline at the end'; printf 'err\n' >&2"
    run = user.submit(script)
    user.ended(run)
    assert user.printed(run) == b"a\0b\xff\x1b[2J\r no newline at the end"
    assert user.mllaunch("logs", run, "--raw", "--stderr").stdout_bytes == b"err\n"


def test_it_starts_in_the_committed_code_and_not_in_what_has_been_edited_since(user: User) -> None:
    run = user.submit("cat code.txt; ls -a | tr '\\n' ' '; sleep 1; cat code.txt")
    user.repo.write("code.txt", "edited while it runs\n")
    user.ended(run)
    printed = user.printed(run).decode()
    assert printed.count("as committed") == 2
    assert "edited" not in printed
    assert ".git " not in printed


def test_it_finds_its_variables(user: User) -> None:
    run = user.submit("env", "--env", "MINE=a value")
    user.ended(run)
    found = dict(line.split("=", 1) for line in user.printed(run).decode().splitlines() if "=" in line)
    assert found["MINE"] == "a value"
    assert found["MLLAUNCH_RUN_NAME"] == run
    assert found["MLLAUNCH_ATTEMPT"] == "1"
    assert found["MLLAUNCH_OUTPUT_DIR"].endswith("/outputs")
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
    assert [found[name] for name in ranks] == ["0", "0", "0", "1", "1"]
    assert found["MASTER_ADDR"] == "127.0.0.1"
    assert int(found["MASTER_PORT"]) > 0
    assert "MLLAUNCH_AGENT" not in found


def test_what_it_writes_can_be_listed_and_is_the_submitters(user: User) -> None:
    run = user.submit(
        "echo m > $MLLAUNCH_OUTPUT_DIR/model.bin; mkdir -p deep/er; echo x > deep/er/x.txt; echo more >> code.txt"
    )
    user.ended(run)
    listed = user.mllaunch("files", run, "--json").document
    paths = {entry["path"]: entry for entry in listed["files"]}
    assert set(paths) == {"outputs/model.bin", "deep/er/x.txt", "code.txt"}
    assert all(entry["sha256"] for entry in paths.values())
    work = user.attempt(run) / "work"
    assert (work / "code.txt").read_text() == "as committed\nmore\n"
    assert {(work / path).stat().st_uid for path in paths} == {os.getuid()}


def test_a_file_of_the_code_that_it_deletes_is_on_record(user: User) -> None:
    run = user.submit("rm code.txt")
    user.ended(run)
    deleted = [
        e["path"] for e in user.mllaunch("files", run, "--json").document["files"] if e["kind"] == "deleted"
    ]
    assert deleted == ["code.txt"]


def test_a_program_that_is_not_there_fails_with_127(user: User) -> None:
    done = user.mllaunch("run", "--", "./no-such-program")
    assert done.rc == 127


def test_stop_lets_the_program_end_itself(user: User) -> None:
    run = user.submit(
        "trap 'echo asked; exit 9' TERM; echo ready; while :; do sleep 0.1; done", "--grace", "20s"
    )
    until(lambda: user.printed(run) == b"ready\n", "the program to be ready")
    assert user.mllaunch("stop", run).rc == 0
    row = user.ended(run)
    assert (row["state"], row["exit_code"]) == ("cancelled", 9)
    assert user.printed(run) == b"ready\nasked\n"


def test_a_program_that_ignores_the_stop_is_killed_after_its_grace(user: User) -> None:
    run = user.submit("trap '' TERM; echo ready; while :; do sleep 0.1; done", "--grace", "1s")
    until(lambda: user.printed(run) == b"ready\n", "the program to be ready")
    user.mllaunch("stop", run)
    row = user.ended(run)
    assert (row["state"], row["exit_code"]) == ("cancelled", 137)


def test_a_timeout_ends_it_and_is_the_reason(user: User) -> None:
    done = user.run("echo on; sleep 60", "--timeout", "1s", "--grace", "1s")
    assert done.rc == 143  # the program died of the SIGTERM, which is its own exit code
    assert user.row("@last")["reason"]["code"] == "timeout"


def test_when_one_task_fails_the_others_are_stopped_and_its_failure_is_the_reason(user: User) -> None:
    script = 'if [ "$RANK" = 1 ]; then exit 5; fi; exec sleep 60'
    began = time.monotonic()
    done = user.run(script, "--procs-per-node", "2", "--grace", "2s")
    assert done.rc == 5
    assert time.monotonic() - began < 30
    assert user.row("@last")["reason"]["rank"] == 1


def test_ssh_leads_to_where_it_runs(user: User, tmp_path: Path) -> None:
    # Of the programs that lead into a container, the node has that of its engine alone.
    (tmp_path / "bin").mkdir()
    for program in {"process": (), "docker": ("docker",), "podman": ("podman",)}[user.runtime]:
        (tmp_path / "bin" / program).symlink_to(str(shutil.which(program)))
    run = user.submit("echo begun; while [ ! -e enough ]; do sleep 0.1; done")
    until(lambda: user.printed(run) == b"begun\n", "it to begin")
    there = "cat code.txt; echo $RANK > enough; exit 7"
    done = user.mllaunch("ssh", run, "--", "/bin/sh", "-c", there, env={"PATH": str(tmp_path / "bin")})
    assert (done.rc, done.stdout) == (7, "as committed\n")
    assert user.ended(run)["state"] == "succeeded"


def test_killing_everything_of_ours_loses_no_byte_and_no_exit_code(user: User) -> None:
    script = "i=0; while [ $i -lt 60 ]; do echo line $i; i=$((i+1)); sleep 0.05; done; exit 6"
    run = user.submit(script)
    until(lambda: b"line 5\n" in user.printed(run), "the program to print")
    for pid in user.agents():
        os.kill(pid, signal.SIGKILL)
    row = user.ended(run)
    assert user.printed(run) == b"".join(b"line %d\n" % i for i in range(60))
    assert row["exit_code"] in ((6, None) if user.runtime == "process" else (6,))


def test_the_death_of_a_shim_changes_nothing(user: User) -> None:
    script = "i=0; while [ $i -lt 40 ]; do echo line $i; i=$((i+1)); sleep 0.05; done; exit 6"
    run = user.submit(script)
    until(lambda: b"line 5\n" in user.printed(run), "the program to print")
    record = json.loads((user.attempt(run) / "task-0.json").read_text())
    os.kill(record["shim_pid"], signal.SIGKILL)
    row = user.ended(run)
    assert user.printed(run) == b"".join(b"line %d\n" % i for i in range(40))
    assert row["exit_code"] == 6


def test_a_failed_attempt_is_repeated_as_often_as_allowed(user: User) -> None:
    done = user.run('echo "attempt $MLLAUNCH_ATTEMPT"; [ "$MLLAUNCH_ATTEMPT" = 2 ]', "--max-retries", "3")
    assert done.rc == 0
    assert [a["exit_code"] for a in user.provenance("@last")["attempts"]] == [1, 0]


def test_data_appears_where_it_lies_and_is_fingerprinted(user: User) -> None:
    user.repo.write(".gitignore", "outputs/\ndata/\n")
    user.repo.commit()
    user.repo.write("data/train/a.csv", "1,2\n")
    run = user.submit("cat data/train/a.csv", "--data", "data/train")
    user.ended(run)
    assert user.printed(run) == b"1,2\n"
    (data,) = [entry for entry in user.provenance(run)["inputs"] if entry["kind"] == "data"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", data["digest"])
