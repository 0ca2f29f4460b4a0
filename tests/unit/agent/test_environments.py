"""Virtual environments on a node: which are the same, and what is told of one that is not there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mllaunch_agent import environments, system
from mllaunch_agent.environments import Environments

FILES = [("requirements.txt", b"tiny==1.0\n"), ("more/base.txt", b"other==2\n")]


def made(home: Path, key: str) -> Path:
    """As a finished installation leaves it."""
    place = home / "environments" / key
    (place / "bin").mkdir(parents=True)
    (place / "bin/python").touch()
    (place / "made.json").write_text(json.dumps({}))
    return place


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The environments whose making was started; nothing is really made."""
    places: list[str] = []
    monkeypatch.setattr(environments, "_start", lambda place, lock, environ: places.append(place))
    return places


def test_the_same_files_are_one_environment_and_others_another(tmp_path: Path, started: list[str]) -> None:
    kept = Environments(str(tmp_path))
    key = kept.make("requirements", FILES, {})
    assert kept.make("requirements", list(FILES), {}) == key
    assert kept.make("requirements", FILES[::-1], {}) != key  # the other one is to be installed
    assert kept.make("requirements", [FILES[0], ("more/base.txt", b"other==3\n")], {}) != key
    assert kept.make("pyproject.toml", FILES, {}) != key


def test_one_that_is_there_is_not_made_again(tmp_path: Path, started: list[str]) -> None:
    kept = Environments(str(tmp_path))
    key = kept.make("requirements", FILES, {})
    place = made(tmp_path, key)
    assert kept.make("requirements", FILES, {}) == key
    assert started == [str(place)]
    assert (kept.state(key, 0)["state"], kept.state(key, 0)["path"]) == ("ready", str(place))


@pytest.mark.parametrize("missing", ["made.json", "bin/python"])
def test_a_broken_half_is_made_anew(tmp_path: Path, started: list[str], missing: str) -> None:
    kept = Environments(str(tmp_path))
    key = kept.make("requirements", FILES, {})
    place = made(tmp_path, key)
    (place / missing).unlink()
    kept.make("requirements", FILES, {})
    assert started == [str(place)] * 2


def test_while_one_makes_it_others_wait(tmp_path: Path, started: list[str]) -> None:
    kept = Environments(str(tmp_path))
    key = kept.make("requirements", FILES, {})
    place = tmp_path / "environments" / key
    lock = system.try_lock(f"{place}.lock")
    assert lock is not None
    Path(f"{place}.log").write_text("step 1\nstep 2\n")
    assert kept.make("requirements", FILES, {}) == key
    assert started == [str(place)]
    assert kept.state(key, 7) == {
        "state": "making",
        "path": str(place),
        "why": None,
        "log": "step 2\n",
        "offset": 14,
    }
    os.close(lock)
    assert kept.state(key, 14)["why"] == "it was ended before it was done"
    Path(f"{place}.failed").write_text("pip: exit status 1")
    assert (kept.state(key, 14)["state"], kept.state(key, 14)["why"]) == ("failed", "pip: exit status 1")


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "", "plan.json"])
def test_files_stay_where_they_belong(tmp_path: Path, started: list[str], path: str) -> None:
    with pytest.raises(ValueError, match="not an environment"):
        Environments(str(tmp_path)).make("requirements", [(path, b"")], {})
    with pytest.raises(ValueError, match="not an environment"):
        Environments(str(tmp_path)).state("../runs", 0)
    assert not started


def test_a_process_finds_the_environment_before_everything_else() -> None:
    assert environments.variables("/e", {"PATH": "/bin"}) == {"VIRTUAL_ENV": "/e", "PATH": "/e/bin:/bin"}
