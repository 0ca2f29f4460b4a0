"""Fixtures of the end-to-end tests: `home`, `repo`, `mllaunch`, `terminal`; see harness.py for what they can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e import harness
from tests.e2e.harness import Home, Mllaunch, Repo, Result


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """A user's home; at the end no process of it may be left."""
    made = Home(tmp_path / "h")
    yield made
    left = made.close()
    assert not left, f"processes were left behind (and have been killed): {left}"
    assert not made.complaints()


@pytest.fixture
def other_home(tmp_path: Path, home: Home) -> Iterator[Home]:
    """A second user's home, on the same node: it shares the GPU leases and nothing else."""
    made = Home(tmp_path / "other")
    made.environ["MLLAUNCH_LEASE_DIR"] = str(home.leases)
    yield made
    left = made.close()
    assert not left, f"processes were left behind (and have been killed): {left}"
    assert not made.complaints()


@pytest.fixture
def repo(tmp_path: Path, home: Home) -> Repo:
    """A git repository with one commit and nothing to run yet."""
    return Repo(tmp_path / "project", home.environ)


@pytest.fixture
def mllaunch(home: Home, repo: Repo) -> Iterator[Mllaunch]:
    """The console script, called in the repository."""
    made = Mllaunch(home, repo.root)
    yield made
    made.close()


@pytest.fixture
def terminal(home: Home, repo: Repo) -> Callable[..., Result]:
    """Call the console script on a pseudo-terminal: ``terminal("ps", type_after=("RUN", "\\x03"))``."""

    def call(
        *args: str,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        type_after: tuple[str, str] | None = None,
        size: tuple[int, int] = (24, 80),
    ) -> Result:
        environ = {**home.environ, **(env or {})}
        return harness.run_in_terminal(
            [str(harness.SCRIPT), *args], environ, cwd or repo.root, type_after, size
        )

    return call
