"""What trials added up to."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple


class Report(NamedTuple):
    """How one trial went. kills: delivered ones, by victim. faults: one line each; none when all is well."""

    number: int
    kills: tuple[str, ...]
    outcome: str  # "ran", "absent", "interrupted", "refused"
    bytes_checked: int
    lost: int
    duplicated: int
    wrong_exits: int
    unknown_exits: int
    unsealed: int
    faults: tuple[str, ...]


class Tally:
    """Sums of reports, and of what was found wrong with a whole home."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.leftovers = 0
        self.faults: list[str] = []

    def add(self, reports: list[Report], leftovers: int, faults: list[str]) -> None:
        self.reports += reports
        self.leftovers += leftovers
        self.faults += faults

    @property
    def kills(self) -> int:
        return sum(len(report.kills) for report in self.reports)

    @property
    def all_faults(self) -> list[str]:
        return [f"trial {r.number}: {fault}" for r in self.reports for fault in r.faults] + self.faults

    def table(self) -> str:
        victims = Counter(victim for report in self.reports for victim in report.kills)
        outcomes = Counter(report.outcome for report in self.reports)
        rows: list[tuple[str, object]] = [("trials", len(self.reports))]
        rows += [(f"  {outcome}", count) for outcome, count in sorted(outcomes.items())]
        rows += [("kills", self.kills)]
        rows += [(f"  {victim}", count) for victim, count in sorted(victims.items())]
        rows += [
            ("bytes checked", sum(r.bytes_checked for r in self.reports)),
            ("bytes lost", sum(r.lost for r in self.reports)),
            ("bytes duplicated", sum(r.duplicated for r in self.reports)),
            ("wrong exit codes", sum(r.wrong_exits for r in self.reports)),
            ("unknown exit codes, said so", sum(r.unknown_exits for r in self.reports)),
            ("unsealed", sum(r.unsealed for r in self.reports)),
            ("leftover processes, mounts, leases", self.leftovers),
            ("faults in all", len(self.all_faults)),
        ]
        return "\n".join(f"{name:<36} {value!s:>14}" for name, value in rows)
