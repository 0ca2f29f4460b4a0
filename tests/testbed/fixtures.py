"""Fixtures of the container testbed. tests/conftest.py imports them, and nothing else may: pytest would take a second
import of a session's fixture for another fixture, and start another engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.testbed import images
from tests.testbed import registry as registries
from tests.testbed.engine import Engine
from tests.testbed.gpus import GpuHook
from tests.testbed.podman import Podman
from tests.testbed.registry import Login, Registry


@pytest.fixture(scope="session")
def _session_hook(tmp_path_factory: pytest.TempPathFactory) -> GpuHook:
    return GpuHook(tmp_path_factory.mktemp("gpu-hook"))


@pytest.fixture(scope="session")
def engine(_session_hook: GpuHook) -> Iterator[Engine]:
    """The session's engine, with a network and GPUs. Tests remove their containers and leave it running."""
    with Engine(path=[_session_hook.folder]) as made:
        yield made


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """The session's Podman."""
    with Podman() as made:
        yield made


@pytest.fixture
def gpu_hook(_session_hook: GpuHook) -> Iterator[GpuHook]:
    """What the session's engine does for `--gpus`; changes last as long as the test."""
    yield _session_hook
    _session_hook.reset()


@pytest.fixture
def new_engine() -> Iterator[Callable[..., Engine]]:
    """``new_engine(live_restore=True)``: start another engine, with the arguments of Engine; ended with the test."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Engine(**options))


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """An empty registry that asks for no login."""
    yield from registries.running(tmp_path / "registry")


@pytest.fixture
def private_registry(tmp_path: Path) -> Iterator[Registry]:
    """An empty registry that asks for its ``login``."""
    yield from registries.running(tmp_path / "private-registry", Login("somebody", "a secret for tests"))


@pytest.fixture(scope="session")
def tiny_image(engine: Engine) -> str:
    """busybox; see images.py for what each is. Needs the part "busybox"."""
    return images.load_tiny(engine)


@pytest.fixture(scope="session")
def bare_image(engine: Engine) -> str:
    """No shell. Needs "gcc"."""
    return images.load_bare(engine)


@pytest.fixture(scope="session")
def python_image(engine: Engine) -> str:
    """Debian with Python and git. Needs "mmdebstrap"."""
    return images.load_python(engine)


@pytest.fixture(scope="session")
def compiler_image(engine: Engine) -> str:
    """Debian with gcc, and no Python. Needs "mmdebstrap"."""
    return images.load_compiler(engine)


@pytest.fixture(scope="session")
def torch_image(engine: Engine, python_image: str) -> str:
    """The same with a torch wheel. Needs "mmdebstrap" and "torch"."""
    return images.load_torch(engine)


@pytest.fixture(scope="session")
def foreign_image(engine: Engine) -> str:
    """For arm64. Needs "busybox"."""
    return images.load_foreign(engine)
