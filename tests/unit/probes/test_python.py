from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from mllaunch_agent.probes import processes, python


def distribution(folder: Path, name: str, version: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nName: not-this\n"
    (info / "METADATA").write_text(text)


def script(path: Path, text: str) -> str:
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return str(path)


def test_the_interpreter_and_every_distribution_in_it_are_recorded() -> None:
    facts, missing = python.facts(sys.executable, os.environ)
    assert missing == []
    assert facts["version"] == "{}.{}.{}".format(*sys.version_info[:3])
    assert facts["implementation"] == sys.implementation.name
    assert facts["executable"] == sys.executable
    assert facts["prefix"] == sys.prefix
    names = {package["name"]: package["version"] for package in facts["packages"]}
    assert names["pytest"] == metadata.version("pytest")
    assert len(facts["packages"]) == len({d.metadata["Name"].lower() for d in metadata.distributions()})
    keys = [package["name"].lower().replace("_", "-").replace(".", "-") for package in facts["packages"]]
    assert keys == sorted(keys)


def test_of_two_versions_the_one_that_is_imported_is_recorded(tmp_path: Path) -> None:
    distribution(tmp_path / "first", "Some_Thing", "2.0")
    distribution(tmp_path / "second", "some-thing", "1.0")
    environ = {**os.environ, "PYTHONPATH": f"{tmp_path / 'first'}:{tmp_path / 'second'}"}
    facts, _ = python.facts(sys.executable, environ)
    assert {"name": "Some_Thing", "version": "2.0"} in facts["packages"]
    assert not [p for p in facts["packages"] if p["version"] == "1.0" and "thing" in p["name"].lower()]


def test_relative_python_paths_count_from_the_tasks_folder(tmp_path: Path) -> None:
    distribution(tmp_path / "vendored", "tucked_away", "3.0")
    facts, _ = python.facts(sys.executable, {**os.environ, "PYTHONPATH": "vendored"}, str(tmp_path))
    assert {"name": "tucked_away", "version": "3.0"} in facts["packages"]


def test_code_in_the_working_folder_is_not_executed(tmp_path: Path) -> None:
    for name in ("json", "re", "importlib"):
        (tmp_path / f"{name}.py").write_text("open('was-executed', 'w').close()")
    facts, missing = python.facts(sys.executable, os.environ, str(tmp_path))
    assert missing == []
    assert facts["packages"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["importlib.py", "json.py", "re.py"]


def test_what_a_sitecustomize_prints_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('hello', end='')")
    facts, missing = python.facts(sys.executable, {**os.environ, "PYTHONPATH": str(tmp_path)})
    assert missing == []
    assert facts["packages"]
    assert not (tmp_path / "__pycache__").exists()


def test_a_damaged_distribution_costs_nothing_but_itself(tmp_path: Path) -> None:
    (tmp_path / "damaged-1.0.dist-info").mkdir()
    distribution(tmp_path, "sound", "1.0")
    facts, _ = python.facts(sys.executable, {**os.environ, "PYTHONPATH": str(tmp_path)})
    assert {"name": "sound", "version": "1.0"} in facts["packages"]


def test_a_missing_interpreter_is_said() -> None:
    facts, missing = python.facts("/nowhere/python", os.environ)
    assert facts == {}
    assert missing == [{"what": "python", "why": "/nowhere/python: No such file or directory"}]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("exit 0", "does not answer as a Python interpreter"),
        ("echo usage: me; exit 3", "ended with 3: usage: me"),
        ("echo 'mllaunch-python-facts:{'", "does not answer as a Python interpreter"),
        ("echo 'mllaunch-python-facts:[]'", "does not answer as a Python interpreter"),
    ],
)
def test_a_program_that_is_no_python_is_said(tmp_path: Path, body: str, why: str) -> None:
    path = script(tmp_path / "python", body)
    assert python.facts(path, os.environ) == ({}, [{"what": "python", "why": f"{path} {why}"}])


def test_an_interpreter_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    path = script(tmp_path / "python", f"echo $$ >{tmp_path}/pid; sleep 1000 & sleep 1000")
    facts, missing = python.facts(path, os.environ, timeout_s=0.3)
    assert facts == {}
    assert missing == [{"what": "python", "why": f"{path} did not answer in time"}]
    pid = int((tmp_path / "pid").read_text())
    assert processes.stat(pid) is None
    listed = subprocess.run(["ps", "-eo", "pgid,stat"], stdout=subprocess.PIPE, text=True, check=True).stdout
    groups = [line.split() for line in listed.splitlines()[1:]]
    assert not [state for group, state in groups if int(group) == pid and not state.startswith("Z")]


def test_a_program_that_writes_without_end_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(python, "MAX_ANSWER_BYTES", 1 << 16)
    path = script(tmp_path / "python", "exec yes")
    facts, missing = python.facts(path, os.environ)
    assert facts == {}
    assert missing == [{"what": "python", "why": f"{path} writes without end"}]
