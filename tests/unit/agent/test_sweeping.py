"""Code on a node that nothing uses any more goes, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from mllaunch_agent import codewatch, sweeping, system
from mllaunch_agent.codekeeping import CodeKeeping, key_of
from mllaunch_agent.codewatch import Listed, blob_id_of
from mllaunch_agent.node import disk_bytes

WEEK_S = 7 * 86400.0
KEY = "{}-python3.11.7-linux-x86_64"  # of an environment
PLAIN, EXECUTABLE, LINK = "100644", "100755", "120000"
Files = dict[str, tuple[str, bytes]]
COMMON: Files = {"common.py": (PLAIN, b"c" * 5000), "run.sh": (EXECUTABLE, b"#!/bin/sh\n")}
ONE: Files = {**COMMON, "one.py": (PLAIN, b"1" * 9000), "at": (LINK, b"one.py")}
TWO: Files = {**COMMON, "pkg/two.py": (PLAIN, b"2" * 9000)}


class Home:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.keeping = CodeKeeping(str(path))

    def send(self, files: Files) -> Path:
        text = codewatch.format_tree({p: Listed(mode, blob_id_of(c)) for p, (mode, c) in files.items()})
        lacking = self.lacking(files)
        for _, content in files.values():
            if blob_id_of(content) in lacking:
                self.keeping.keep(blob_id_of(content), content)
        self.keeping.make(key_of(text), text)
        tree = Path(self.keeping.tree(key_of(text)))
        os.utime(tree, (1, 1))
        return tree

    def lacking(self, files: Files) -> list[str]:
        text = codewatch.format_tree({p: Listed(mode, blob_id_of(c)) for p, (mode, c) in files.items()})
        return self.keeping.lacking(text)

    def attempt(self, tree: Path, name: str = "r", **spec: object) -> Path:
        folder = self.path / "runs" / name / "1"
        (folder / "streams").mkdir(parents=True)
        (folder / "spec.json").write_text(json.dumps({"tree": str(tree), **spec}))
        return folder

    def agent(self, letter: str, age_s: float = 2 * WEEK_S) -> Path:
        folder = self.path / "agents" / (letter * 64)
        (folder / "mllaunch_agent").mkdir(parents=True)
        (folder / "used").touch()
        at = time.time() - age_s
        for path in (folder / "used", folder):
            os.utime(path, (at, at))
        return folder

    def contents(self) -> int:
        return len([path for path in (self.path / "contents").rglob("*") if path.is_file()])


@pytest.fixture
def home(tmp_path: Path) -> Home:
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home")


def test_a_tree_that_nothing_uses_goes_with_what_it_alone_has(home: Home) -> None:
    one, two = home.send(ONE), home.send(TWO)
    home.attempt(two)
    before = disk_bytes(str(home.path))
    found = sweeping.sweep(str(home.path), WEEK_S)
    assert found is not None and found.trees == [str(one)]
    assert not one.exists() and (two / "pkg/two.py").read_bytes() == b"2" * 9000
    assert before - disk_bytes(str(home.path)) == found.size_bytes
    assert home.lacking(TWO) == []
    assert blob_id_of(b"1" * 9000) in home.lacking(ONE)
    assert home.send(ONE).is_dir()  # it is sent again


def test_an_attempt_uses_its_tree_for_as_long_as_its_launcher_may_go_on_with_it(home: Home) -> None:
    tree = home.send(ONE)
    attempt = home.attempt(tree)
    (attempt / "seal.json").write_text("{}")
    assert sweeping.find(str(home.path), WEEK_S).trees == []
    (attempt / "streams").rmdir()  # freed, once the run log had them
    assert sweeping.find(str(home.path), WEEK_S).trees == [str(tree)]


def test_a_tree_that_was_used_of_late_stays_and_one_look_is_use(home: Home) -> None:
    tree = home.send(ONE)
    assert home.keeping.has(tree.name)
    found = sweeping.sweep(str(home.path), WEEK_S)
    assert found is not None and found.trees == []
    assert home.send(ONE).is_dir() and home.contents() == 5


def test_nothing_goes_while_somebody_is_about_to_use_it(home: Home) -> None:
    tree = home.send(ONE)
    home.keeping.hold()
    assert sweeping.sweep(str(home.path), 0) is None
    assert tree.is_dir()
    home.keeping.let_go()
    assert sweeping.sweep(str(home.path), 0) is not None
    assert not tree.exists() and home.contents() == 0


def test_it_is_done_seldom_if_that_is_wished(home: Home) -> None:
    assert sweeping.sweep(str(home.path), WEEK_S, seldom=True) is not None
    assert sweeping.sweep(str(home.path), WEEK_S, seldom=True) is None
    assert sweeping.sweep(str(home.path), WEEK_S) is not None


def test_an_agent_s_folder_goes_when_nothing_of_it_lives(home: Home) -> None:
    old, young, of_attempt = home.agent("a"), home.agent("b", WEEK_S - 60), home.agent("c")
    of_process = home.agent("d")
    attempt = home.attempt(Path("none"), import_path=[str(of_attempt / "lib")])
    with subprocess.Popen(["sh", "-c", "read line", str(of_process)], stdin=subprocess.PIPE) as process:
        assert sweeping.find(str(home.path), WEEK_S).agents == [str(old)]
        assert process.stdin is not None
        process.stdin.close()
    (attempt / "seal.json").write_text("{}")
    (attempt / "streams").rmdir()  # as once the run log has all of it
    found = sweeping.sweep(str(home.path), WEEK_S)
    assert found is not None
    assert [path.exists() for path in (old, young, of_attempt, of_process)] == [False, True, False, False]


def test_an_agent_that_is_about_to_be_started_stays_whatever_is_asked_for(home: Home) -> None:
    started = home.agent("a", 1800)
    sweeping.sweep(str(home.path), 0)
    assert started.is_dir()


def test_what_died_half_way_has_left_goes_and_what_is_being_made_stays(home: Home) -> None:
    left = [
        home.path / "trees/tmp-1-00/pkg",
        home.path / "contents/part-00-1",
        home.path / "agents" / ("a" * 64 + ".17"),
    ]
    for path in left:
        path.mkdir(parents=True)
        os.utime(path if path.name != "pkg" else path.parent, (1, 1))
    made = home.path / "trees/tmp-2-00"
    made.mkdir()
    sweeping.sweep(str(home.path), WEEK_S)
    assert [path.exists() for path in (*left, made)] == [False, False, False, True]


def test_where_nothing_is_there_is_nothing_to_free(home: Home) -> None:
    assert sweeping.sweep(str(home.path), 0) == sweeping.Unused([], [], [], [], [], 0)


def test_checkpoints_of_other_nodes_go_once_nothing_has_used_them_for_so_long(home: Home) -> None:
    used, idle, part = (home.path / "checkpoints" / name for name in ("a" * 64, "b" * 64, "part-" + "c" * 64))
    for folder in (used, idle, part):
        folder.mkdir(parents=True)
        (folder / "m.pt").write_bytes(b"w" * 5000)
        os.utime(folder, (1, 1))
    home.attempt(home.path / "no-tree", checkpoint={"source": str(used / "m.pt"), "sha256": "a" * 64})
    before = disk_bytes(str(home.path))
    found = sweeping.sweep(str(home.path), WEEK_S)
    assert found is not None and found.others == [str(idle), str(part)]
    assert used.exists() and not idle.exists() and not part.exists()
    assert before - disk_bytes(str(home.path)) == found.size_bytes


@pytest.mark.parametrize("age_s", [0.0, 2 * WEEK_S])
def test_environments_go_once_nothing_has_used_them_for_so_long(home: Home, age_s: float) -> None:
    folder = home.path / "environments"
    used, idle = KEY.format("a" * 32), KEY.format("b" * 32)
    for key in (used, idle):
        (folder / key / "bin").mkdir(parents=True)
        (folder / (key + ".files")).mkdir()
        (folder / (key + ".lock")).touch()
        (folder / key / "made.json").write_text("{}")
        for path in (folder / key / "made.json", *folder.iterdir()):
            os.utime(path, (time.time() - age_s, time.time() - age_s))
    home.attempt(home.path / "no-tree", python=str(folder / used / "bin/python"))
    sweeping.sweep(str(home.path), WEEK_S)
    left = sorted(path.name for path in folder.iterdir())
    kept = [idle, idle + ".files"] if age_s == 0 else []
    assert left == sorted([*kept, idle + ".lock", used, used + ".files", used + ".lock"])


def test_an_environment_that_is_being_made_stays(home: Home) -> None:
    folder = home.path / "environments"
    new = KEY.format("c" * 32)
    (folder / new).mkdir(parents=True)
    lock = system.try_lock(str(folder / (new + ".lock")))
    for path in folder.iterdir():
        os.utime(path, (1, 1))
    sweeping.sweep(str(home.path), 0)
    assert (folder / new).exists()
    assert lock is not None
    os.close(lock)


def test_what_an_attempt_needs_that_may_be_tried_again_stays(home: Home) -> None:
    tree = home.send(ONE)
    python = home.path / "environments" / KEY.format("d" * 32) / "bin/python"
    python.parent.mkdir(parents=True)
    python.touch()
    for path in (home.path / "environments").iterdir():
        os.utime(path, (1, 1))
    elsewhere = Path("/another/name/of/this/home/trees") / tree.name
    failed = home.attempt(elsewhere, python=str(python))
    (failed / "seal.json").write_text("{}")
    sweeping.sweep(str(home.path), WEEK_S)
    assert tree.exists() and python.exists()
    (failed / "streams").rmdir()  # as once the run log has all of it
    sweeping.sweep(str(home.path), WEEK_S)
    assert not tree.exists() and not python.exists()
