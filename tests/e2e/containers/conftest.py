"""A user whose machine has a container engine: `home`, `repo`, `mllaunch` as elsewhere, with the session's engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Home
from tests.testbed.engine import Engine


@pytest.fixture
def home(tmp_path: Path, engine: Engine) -> Iterator[Home]:
    """At the end no process of it, and no container of anybody, may be left."""
    made = Home(tmp_path / "h")
    before = _nameless(engine)  # of other tests, which use the same engine otherwise
    made.environ.update(engine.environment)
    made.environ["DOCKER_CONFIG"] = str(tmp_path / "docker-config")
    yield made
    left = made.close()
    assert not left, f"processes were left behind (and have been killed): {left}"
    assert not made.complaints()
    containers = engine.docker("ps", "--all", "--format", "{{.Names}} {{.Status}}").stdout
    assert not containers, f"containers were left behind: {containers}"
    dangling = _nameless(engine) - before
    told = engine.docker("inspect", *dangling).stdout if dangling else ""
    assert not dangling, f"images without a name were left behind: {told}"


def _nameless(engine: Engine) -> set[str]:
    return set(engine.docker("images", "--quiet", "--filter", "dangling=true").stdout.split())
