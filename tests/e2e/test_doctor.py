from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from tests.e2e.harness import Mllaunch, Repo, until
from tests.testbed.nvml import FakeNvml, fake_nvml

__all__ = ["fake_nvml"]


def findings(mllaunch: Mllaunch, *, rc: int, **env: str) -> dict[str, dict[str, Any]]:
    """The findings that are not ok, by what was checked."""
    done = mllaunch("doctor", "--json", env=env)
    assert done.rc == rc, done
    assert done.document["ok"] is (rc == 0)
    return {f["check"]: f for f in done.document["findings"] if f["status"] != "ok"}


def test_a_sound_machine_is_ok_and_nothing_is_left_of_the_check(mllaunch: Mllaunch, repo: Repo) -> None:
    assert findings(mllaunch, rc=0) == {}
    shown = mllaunch("doctor", check=True)
    assert "agent: starts and answers" in shown.stdout and "checkouts: " in shown.stdout
    assert "\x1b" not in shown.stdout and shown.stderr == ""
    assert list(mllaunch.home.path.iterdir()) == []
    repo.script("print('hi')")
    mllaunch.wait_sealed(mllaunch.submit("train.py")[1])
    assert findings(mllaunch, rc=0) == {}
    assert "run log: sound" in mllaunch("doctor").stdout


def test_uncommitted_files_are_a_warning_with_the_way_out(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.write("new.py", "")
    found = findings(mllaunch, rc=0)
    assert found["repository"]["status"] == "warning" and "--allow-dirty" in found["repository"]["fix"]


def test_outside_of_a_repository_the_rest_is_still_checked(mllaunch: Mllaunch, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    done = mllaunch("doctor", cwd=tmp_path / "elsewhere", check=True)
    assert "is not in a git repository" in done.stdout and "agent: starts and answers" in done.stdout


def test_a_machine_without_git_and_python_is_told_so(mllaunch: Mllaunch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    found = findings(mllaunch, rc=1, PATH=str(tmp_path / "bin"))
    assert found["git"]["status"] == "problem" and found["python for runs"]["status"] == "problem"


def test_a_home_that_cannot_be_written_is_a_problem(mllaunch: Mllaunch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = findings(mllaunch, rc=1, MLLAUNCH_HOME=str(tmp_path / "file"))
    assert found["home"]["status"] == "problem" and "MLLAUNCH_HOME" in found["home"]["fix"]


def test_a_faulty_configuration_is_named_with_its_place(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.write("mllaunch.yaml", "keep: soon\n")
    repo.commit()
    found = findings(mllaunch, rc=1)
    assert set(found) == {"configuration"} and "mllaunch.yaml:1:7" in found["configuration"]["says"]


def test_a_damaged_run_log_and_store_of_code_are_found(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script("print('hi')")
    mllaunch.wait_sealed(mllaunch.submit("train.py")[1])
    until(lambda: not mllaunch.home.processes(), "the collector to end")
    database = mllaunch.home.path / "runlog.sqlite3"
    for name in ("runlog.sqlite3-wal", "runlog.sqlite3-shm"):
        (mllaunch.home.path / name).unlink(missing_ok=True)
    database.write_bytes(b"not a database at all" * 100)
    for pack in (mllaunch.home.path / "code.git/objects/pack").glob("*.pack"):
        pack.unlink()
    found = findings(mllaunch, rc=1)
    assert found["run log"]["status"] == "problem" and ".recover" in found["run log"]["fix"]
    assert found["code"]["status"] == "problem"


def test_a_run_whose_agent_was_killed_is_named_until_somebody_looks_after_it(
    mllaunch: Mllaunch, repo: Repo
) -> None:
    repo.script("print('hi')")
    run_id, name = mllaunch.submit("train.py")
    mllaunch.wait_sealed(name)
    until(lambda: not mllaunch.home.processes(), "the collector to end")
    # What is left on the node when a machine lost power while the run went on.
    other = run_id[:-1] + ("0" if run_id[-1] != "0" else "1")
    shutil.copytree(
        mllaunch.home.attempt(run_id),
        mllaunch.home.attempt(other),
        ignore=shutil.ignore_patterns("supervisor.*"),
    )
    (mllaunch.home.attempt(other) / "seal.json").unlink()
    import sqlite3

    with sqlite3.connect(mllaunch.home.path / "runlog.sqlite3") as database:
        columns = [row[1] for row in database.execute("PRAGMA table_info(run)")]
        values = [
            {"id": "?", "name": "'lost-otter-1'", "seal": "NULL", "state": "'running'"}.get(c, c)
            for c in columns
        ]
        database.execute(f"INSERT INTO run SELECT {', '.join(values)} FROM run WHERE id = ?", (other, run_id))
    database.close()
    found = findings(mllaunch, rc=0)
    assert "lost-otter-1" in found["stale"]["says"] and "mllaunch ps" in found["stale"]["fix"]


def test_what_killed_processes_left_is_named(mllaunch: Mllaunch) -> None:
    left = mllaunch.home.path / "trees" / "tmp-1-abc"
    left.mkdir(parents=True)
    found = findings(mllaunch, rc=0)
    assert str(left) in found["stale"]["says"]
    mllaunch("prune", "--yes", check=True)
    assert not left.exists() and findings(mllaunch, rc=0) == {}


def test_gpus_and_their_foreign_users_are_named(mllaunch: Mllaunch, fake_nvml: FakeNvml) -> None:
    fake_nvml.set("", f"pid={os.getpid()}:1000000")
    shown = mllaunch("doctor", env=fake_nvml.environment, check=True).stdout
    assert "GPUs: 2 GPUs, driver " in shown
    assert f"is used by pid {os.getpid()}" in shown and "without a lease" in shown


def test_a_broken_driver_is_a_problem(mllaunch: Mllaunch, fake_nvml: FakeNvml) -> None:
    fake_nvml.break_driver()
    found = findings(mllaunch, rc=1, **fake_nvml.environment)
    assert found["GPUs"]["status"] == "problem" and "nvidia-smi" in found["GPUs"]["fix"]


def test_a_lease_folder_that_cannot_be_used_is_a_problem(mllaunch: Mllaunch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = findings(mllaunch, rc=1, MLLAUNCH_LEASE_DIR=str(tmp_path / "file"))
    assert found["GPU leases"]["status"] == "problem"
