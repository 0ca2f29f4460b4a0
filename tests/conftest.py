"""What holds for every test: real parts are there or the test says so, and a developer's settings stay outside.

``@pytest.mark.real("gcc")`` marks a test that needs a real part. Where the part is missing the test is skipped
with the reason; with MLLAUNCH_REQUIRE_REAL=1 that, and every other skip, is a failure.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.testbed import engine as engines
from tests.testbed import hosts, images
from tests.testbed import podman as podmen
from tests.testbed.fixtures import (  # noqa: F401  fixtures for all tests
    _session_hook,
    bare_image,
    compiler_image,
    engine,
    foreign_image,
    gpu_hook,
    new_engine,
    podman,
    private_registry,
    python_image,
    registry,
    tiny_image,
    torch_image,
)

REQUIRE_REAL = os.environ.get("MLLAUNCH_REQUIRE_REAL") == "1"


def pytest_configure(config: pytest.Config) -> None:
    for name in [name for name in os.environ if name.startswith("MLLAUNCH_")]:
        if name != "MLLAUNCH_REQUIRE_REAL":
            del os.environ[name]
    # Start-up time is measured and files are compiled as they are for a user.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def _program(name: str) -> Callable[[], str | None]:
    return lambda: None if shutil.which(name) else f"{name} is not installed"


def _busybox() -> str | None:
    return None if images.busybox() else "no busybox that needs no libraries is installed"


def _torch() -> str | None:
    return None if images.torch_wheel() else f"no wheel of torch {images.TORCH} on this machine's disk"


def _root() -> str | None:
    return None if os.geteuid() == 0 else "not root"


def _overlay() -> str | None:
    from mllaunch_agent import overlay

    with tempfile.TemporaryDirectory() as folder:
        paths = [str(Path(folder, name)) for name in ("tree", "upper", "scratch", "target")]
        for path in paths:
            Path(path).mkdir()
        if not overlay.mount(*paths):
            return "no overlay can be mounted here"
        overlay.unmount(paths[3])
    return None


# Each answers None if the part is there, else what is missing.
PARTS: dict[str, Callable[[], str | None]] = {
    "busybox": _busybox,
    "docker-registry": _program("docker-registry"),
    "engine": engines.missing,
    "gcc": _program("gcc"),
    "git-lfs": _program("git-lfs"),
    "hosts": hosts.missing,
    "mmdebstrap": _program("mmdebstrap"),
    "overlay": _overlay,
    "podman": podmen.missing,
    "root": _root,
    "torch": _torch,
}


@cache
def missing(part: str) -> str | None:
    return PARTS[part]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    unknown = {
        part
        for item in items
        for mark in item.iter_markers("real")
        for part in mark.args
        if part not in PARTS
    }
    if unknown:
        raise pytest.UsageError(f"real: no such part: {', '.join(sorted(unknown))}; see tests/conftest.py")


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("real"):
        for part in mark.args:
            why = missing(part)
            if why:
                pytest.skip(f"needs {part}: {why}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped:
        _refuse_skip(report)
    return report


def _refuse_skip(report: Any) -> None:
    if REQUIRE_REAL:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{reason} (MLLAUNCH_REQUIRE_REAL=1: nothing may be skipped)"
