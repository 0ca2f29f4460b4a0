"""What a node does about an image that it has not got, and how an engine is asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mllaunch.domain.image import Image
from mllaunch.images.asking import ask
from mllaunch.ports import AttemptRef
from mllaunch.schedulers.local import LocalScheduler
from mllaunch_agent.protocol import TaskSpec
from mllaunch_containers.engine import Docker
from tests.conformance.images import Maker, spec
from tests.e2e.harness import until
from tests.testbed.engine import Engine
from tests.testbed.registry import Registry
from tests.unit.agent_core import specs

pytestmark = pytest.mark.real("engine", "busybox")


def task_spec(folder: str, engine: Engine, image: Image, credentials: str | None = None) -> TaskSpec:
    """A task that prints the code, in a container of the image."""
    in_registry = "@" in image.reference
    return specs.spec(
        run_id=str(uuid.uuid4()),
        folder=folder,
        argv=["cat", "train.py"],
        tree=None,
        grace_s=5.0,
        cache=folder + "-cache",
        container={
            "engine": str(engine.socket),
            "image": image.id,
            "reference": image.reference if in_registry else None,
            "credentials": credentials,
            "environment": image.environment,
            "workspace": "/workspace",
            "network": "none",
            "mounts": [],
            "shm_bytes": None,
            "memory_bytes": None,
            "cpus": None,
        },
    )


def run(tmp_path: Path, engine: Engine, image: Image, credentials: str | None = None) -> tuple[Any, bytes]:
    """Run it to its seal: (seal's last event, stdout)."""
    folder = tmp_path / "runs" / "one" / "1"
    folder.mkdir(parents=True)
    scheduler = LocalScheduler(str(tmp_path), "node")
    scheduler.start(task_spec(str(folder), engine, image, credentials))
    until((folder / "seal.json").exists, "the attempt to be sealed")
    assert scheduler.files(AttemptRef("one", 1))
    events = [json.loads(line) for line in (folder / "streams" / "events").read_text().splitlines()]
    (ended,) = [event for event in events if event["kind"] == "attempt_ended"]
    printed = folder / "streams" / "stdout.0"
    return ended, printed.read_bytes() if printed.exists() else b""


@pytest.mark.real("docker-registry")
def test_a_node_pulls_an_image_by_its_digest(
    engine: Engine, new_engine: Callable[..., Engine], registry: Registry, tiny_image: str, tmp_path: Path
) -> None:
    maker = Maker(engine, tmp_path / "m", layers=True, registry=f"{registry.url}/team")
    maker.write("train.py", "pulled\n")
    image = maker.build(spec(tiny_image, project="pulled"))
    node = new_engine()
    ended, printed = run(tmp_path, node, image)
    assert (ended["state"], printed) == ("succeeded", b"pulled\n")


@pytest.mark.real("docker-registry")
def test_a_registry_that_demands_a_login_gets_the_submitters(
    engine: Engine,
    new_engine: Callable[..., Engine],
    private_registry: Registry,
    tiny_image: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert private_registry.login
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "login"))
    engine.docker(
        *("login", "--username", private_registry.login.user, "--password-stdin", private_registry.url),
        stdin=private_registry.login.secret.encode(),
        env={"DOCKER_CONFIG": str(tmp_path / "login")},
    )
    maker = Maker(engine, tmp_path / "m", layers=True, registry=f"{private_registry.url}/team")
    maker.write("train.py", "secretly\n")
    image = maker.build(spec(tiny_image, project="secret"))
    node = new_engine()
    ended, _ = run(tmp_path / "without", node, image)
    assert ended["state"] == "failed"
    assert "cannot be pulled" in ended["reason"]["message"]
    credentials = Docker(str(engine.socket)).credentials(private_registry.url)
    assert credentials is not None
    ended, printed = run(tmp_path / "with", node, image, credentials)
    assert (ended["state"], printed) == ("succeeded", b"secretly\n")


def test_an_image_that_is_nowhere_fails_the_start_with_its_name(
    engine: Engine, tiny_image: str, tmp_path: Path
) -> None:
    absent = Image("gone:1", "sha256:" + "0" * 64, "sha256:" + "0" * 64, "e" * 64, tiny_image, None, 0)
    ended, _ = run(tmp_path, engine, absent)
    assert ended["reason"]["code"] == "not_started"
    assert "sha256:000" in ended["reason"]["message"]


@pytest.mark.real("root")
def test_an_engine_that_this_user_may_not_use_is_told_from_one_that_is_not_there(engine: Engine) -> None:
    program = (
        "import os, sys, socket\n"
        "from mllaunch.images.asking import ask\n"
        "import mllaunch_agent.engine\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "print(ask({'DOCKER_HOST': sys.argv[1]}).is_denied)\n"
    )
    engine.folder.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", program, engine.environment["DOCKER_HOST"]],
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "True\n", done.stderr
    answer = ask({"DOCKER_HOST": "unix:///nowhere/docker.sock"})
    assert (answer.version, answer.is_denied) == (None, False)
