from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.engine import FakeEngine


@pytest.fixture
def fake() -> Iterator[FakeEngine]:
    with FakeEngine() as engine:
        yield engine
