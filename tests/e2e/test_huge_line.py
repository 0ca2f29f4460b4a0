"""Bad input 17: one line without an end, larger than anybody wants to hold in memory.

A gigabyte takes a minute; a fifth of it shows the same, since the bound is far below it.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.e2e.harness import SCRIPT, Mllaunch, Repo, until

SIZE = 200 << 20
BOUND_KIB = 100 * 1024  # half of the line


def peak_kib(process: Path) -> int:
    """VmHWM: the most memory that a process ever had."""
    found = re.search(r"VmHWM:\s+(\d+)", (process / "status").read_text())
    return int(found[1]) if found else 0


def test_17_a_line_without_an_end_is_kept_and_shown_in_bounded_memory(mllaunch: Mllaunch, repo: Repo) -> None:
    repo.script(
        f"""
        import os
        for _ in range({SIZE >> 20}):
            os.write(1, b"x" * (1 << 20))
        os.write(1, b"the end")
        """
    )
    run_id, _ = mllaunch.submit("train.py")
    peaks: dict[str, int] = {}

    def sealed() -> bool:
        for pid, what in mllaunch.home.processes().items():
            try:
                if b"MLLAUNCH_AGENT=1" in Path(f"/proc/{pid}/environ").read_bytes():
                    peaks[what] = max(peaks.get(what, 0), peak_kib(Path(f"/proc/{pid}")))
            except OSError:
                continue
        # Asked of the disk: `ps` would start a process for each look.
        return not mllaunch.home.processes() and (mllaunch.home.attempt(run_id) / "seal.json").exists()

    until(sealed, "the record to be sealed and collected", 300)
    assert mllaunch.row(run_id)["seal"] == "sealed-complete"
    assert peaks and max(peaks.values()) < BOUND_KIB, peaks
    for option, size in (("--raw", SIZE + 7), ("--grep=end", None)):
        shown = subprocess.Popen(
            [SCRIPT, "logs", option, run_id],
            env=mllaunch.home.environ,
            cwd=mllaunch.cwd,
            stdout=subprocess.PIPE,
        )
        assert shown.stdout is not None
        length, last, peak = 0, b"", 0
        with shown.stdout:
            while data := shown.stdout.read(1 << 20):
                length += len(data)
                last = data[-100:]
                peak = max(peak, peak_kib(Path(f"/proc/{shown.pid}")))
        assert shown.wait(60) == 0
        assert last.rstrip(b"\n").endswith(b"the end")
        assert size is None or length == size
        assert peak < BOUND_KIB, (option, peak)
