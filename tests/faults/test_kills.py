"""The short form of ``python -m tests.faults``, with a seed that never changes."""

from __future__ import annotations

from tests.faults.__main__ import attack


def test_sixty_kills_at_random_moments_lose_no_byte_and_no_exit_code() -> None:
    tally = attack(kills=60, seed=7)

    assert not tally.all_faults, "\n".join([tally.table(), *tally.all_faults])
    assert tally.kills >= 60
    assert {victim for report in tally.reports for victim in report.kills} == {
        "supervisor",
        "shim",
        "collector",
        "submit",
    }
    assert sum(report.bytes_checked for report in tally.reports) > 1_000_000
