"""docs/capture-coverage.md says what the capture sees and what it does not. Here it is held to that."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.coverage import packages, page
from tests.coverage.__main__ import c_layer
from tests.coverage.running import Finding, run
from tests.coverage.target import Target
from tests.coverage.targets import TARGETS

LIBRARIES = {"torch", "safetensors", "h5py", "joblib", "keras"}
ROWS = page.rows()


def needs_libraries(target: Target) -> bool:
    return bool(LIBRARIES & set(target.needs))


def case(target: Target) -> object:
    parts = [*(["torch"] if needs_libraries(target) else []), *(["gcc"] if "gcc" in target.needs else [])]
    return pytest.param(target, id=target.name, marks=[pytest.mark.real(*parts)] if parts else [])


@pytest.fixture(scope="session")
def libraries() -> str:
    """A Python that has this machine's torch and what goes with it."""
    python, problem = packages.python()
    if python is None:
        pytest.skip(f"torch, safetensors, h5py, joblib and keras cannot be installed: {problem}")
    return python


def told(finding: Finding) -> str:
    return f"{finding.problem or ''} missed: {finding.missed}, told too much: {finding.false}"


@pytest.mark.parametrize("target", [case(target) for target in TARGETS])
def test_a_target_is_seen_or_missed_as_the_page_says(
    target: Target, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    python = request.getfixturevalue("libraries") if needs_libraries(target) else sys.executable
    finding = run(target, tmp_path, python)
    assert finding.problem is None, finding.problem
    assert page.verdict(finding) == ROWS[target.name].hook, told(finding)


@pytest.mark.real("gcc")
def test_with_the_c_layer_too_where_the_page_says_what_is_seen_then(tmp_path: Path) -> None:
    """Without the libraries, which take long."""
    known = [t for t in TARGETS if ROWS[t.name].c_layer != page.UNKNOWN and not needs_libraries(t)]
    preload = c_layer(tmp_path) if known else None
    wrong = []
    for number, target in enumerate(known):
        folder = tmp_path / str(number)
        folder.mkdir()
        finding = run(target, folder, sys.executable, preload)
        if finding.problem or page.verdict(finding) != ROWS[target.name].c_layer:
            wrong.append(f"{target.name}: {told(finding)}")
    assert not wrong, "\n".join(wrong)


def test_the_page_has_one_row_for_each_target() -> None:
    assert list(ROWS) == [target.name for target in TARGETS]


def test_the_page_gives_a_reason_for_every_miss() -> None:
    unexplained = [row.target for row in ROWS.values() if row.hook != page.SEEN and not row.why]
    assert not unexplained


def test_there_are_enough_targets_and_no_two_have_one_name() -> None:
    assert len({target.name for target in TARGETS}) == len(TARGETS) >= 55
