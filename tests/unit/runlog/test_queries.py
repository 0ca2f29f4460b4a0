"""Every question that is asked often is answered from one end of an index, however many runs there are."""

from __future__ import annotations

from pathlib import Path

import pytest

from mllaunch.errors import UsageError
from mllaunch.ports import RunQuery
from mllaunch.runlog.sqlite import SqliteRunLog
from tests.conformance.runs import QUEUED, make_run

LISTINGS = [
    RunQuery(),
    RunQuery(unsettled=True),
    RunQuery(project="digits"),
    RunQuery(project="digits", unsettled=True),
    RunQuery(tag="a"),
    RunQuery(params=(("lr", "1"),)),
    RunQuery(params=(("lr", "1"), ("seed", "2")), tag="a", project="digits", unsettled=True),
]


def plans(log: SqliteRunLog, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The query plans of all reads from now on, filled in as they happen."""
    found: list[str] = []
    read = log._database.read

    def explained(sql: str, values: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
        found.extend(str(row[3]) for row in read(f"EXPLAIN QUERY PLAN {sql}", values))
        return read(sql, values)

    monkeypatch.setattr(log._database, "read", explained)
    return found


@pytest.mark.parametrize("query", LISTINGS)
def test_a_listing_reads_an_index_in_order_and_sorts_nothing(
    query: RunQuery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SqliteRunLog(tmp_path)
    log.add(make_run(1), QUEUED)
    found = plans(log, monkeypatch)
    log.rows(query)
    log.close()
    assert found
    for step in found:
        assert "TEMP B-TREE" not in step
        assert step.startswith("SEARCH") or "USING INDEX run_" in step, step


@pytest.mark.parametrize("reference", ["brave-otter-1", "brave-otter-", "@last", "@{1}", make_run(1).id])
def test_a_reference_is_looked_up_in_an_index(
    reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SqliteRunLog(tmp_path)
    for number in (1, 2):
        log.add(make_run(number), QUEUED)
    found = plans(log, monkeypatch)
    try:
        log.get(reference)
    except UsageError as error:
        assert error.code == "ambiguous"
    log.close()
    tables = [step for step in found if step.startswith(("SCAN", "SEARCH")) and "subquery" not in step]
    assert tables
    for step in tables:
        assert "INDEX" in step, step
        assert step.startswith("SEARCH") or "run_newest" in step, step


def test_a_files_content_is_looked_up_in_the_order_of_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = SqliteRunLog(tmp_path)
    log.add(make_run(1), QUEUED)
    found = plans(log, monkeypatch)
    log.artifacts("ab" * 32)
    log.close()
    assert found == ["SEARCH artifact USING PRIMARY KEY (sha256=?)"]
