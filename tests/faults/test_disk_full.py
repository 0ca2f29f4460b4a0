"""The disk that holds everything of ours is full: the job's exit is its own, and what is missing is said exactly."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mllaunch.ports import AttemptRef, StreamRef
from mllaunch.wiring import App
from tests.e2e.harness import Home, Mllaunch, Repo, mounts_below, until

pytestmark = pytest.mark.real("root")

MIB = 1 << 20
DISK_BYTES = 24 * MIB

# Prints TOTAL bytes of numbered lines at about RATE bytes per second; exits with CODE.
TALK = """
import os, sys, time
total, rate, code = map(int, sys.argv[1:4])
began, printed, number = time.monotonic(), 0, 0
while printed < total:
    block = b"".join(b"%09d %s\\n" % (number + i, b"x" * 53) for i in range(1024))
    number += 1024
    while block:
        count = os.write(1, block)
        printed += count
        block = block[count:]
    time.sleep(max(0.0, began + printed / rate - time.monotonic()))
sys.exit(code)
"""
LINE_BYTES = 64

# Prints a little, fills the disk to its last byte through FILLER, prints no more, and exits with 3.
FILL_AND_END = """
import os, sys
os.write(1, b"before\\n")
filler = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
size = 1 << 20
while size:
    try:
        size = os.write(filler, b"f" * size) and size
    except OSError:
        size //= 2
sys.exit(3)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount(folder, "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def home(tmp_path: Path, disk: Path) -> Iterator[Home]:
    made = Home(tmp_path / "h")
    made.path = disk / "home"
    made.environ["MLLAUNCH_HOME"] = str(made.path)
    yield made
    enlarge(disk)  # whatever still waits for room can end
    left = made.close()
    assert not left, f"processes were left behind (and have been killed): {left}"
    assert not mounts_below(disk)


@pytest.fixture
def mllaunch(tmp_path: Path, home: Home) -> Mllaunch:
    repo = Repo(tmp_path / "project", home.environ)
    repo.write("talk.py", TALK)
    repo.script(FILL_AND_END, "fill_and_end.py")
    return Mllaunch(home, repo.root)


def mount(folder: Path, *arguments: str) -> None:
    subprocess.run(["mount", *arguments, str(folder)], check=True)


def enlarge(disk: Path) -> None:
    mount(disk, "-o", f"remount,size={40 * DISK_BYTES}")


def fill(path: Path) -> None:
    """Take all the room that is left."""
    with path.open("wb", buffering=0) as file:
        size = MIB
        while size:
            try:
                file.write(b"f" * size)
            except OSError:
                size //= 2


def python(*arguments: str) -> tuple[str, ...]:
    return ("--", sys.executable, "-I", "-S", *arguments)


def printed(total_bytes: int) -> bytes:
    """What talk.py prints."""
    blocks = -(-total_bytes // (1024 * LINE_BYTES))
    return b"".join(b"%09d %s\n" % (number, b"x" * 53) for number in range(blocks * 1024))


def view(mllaunch: Mllaunch, run: str) -> dict[str, Any]:
    (found,) = App(mllaunch.home.environ, str(mllaunch.cwd)).log.views(run).values()
    return found


def stored(mllaunch: Mllaunch, run: str, stream: str) -> bytes:
    app = App(mllaunch.home.environ, str(mllaunch.cwd))
    ref = StreamRef(run, 1, app.node, stream)
    return app.blobs.read(ref, 0, app.blobs.length(ref))


def outside(data: bytes, gaps: list[dict[str, Any]]) -> bytes:
    """The data with zeros in place of what the gaps name."""
    kept = bytearray(data)
    for gap in gaps:
        kept[gap["offset"] : gap["offset"] + gap["size_bytes"]] = bytes(gap["size_bytes"])
    return bytes(kept)


def gap_events(mllaunch: Mllaunch, run: str) -> list[dict[str, Any]]:
    lines = stored(mllaunch, run, "events").splitlines()
    return [event for event in map(json.loads, lines) if event["kind"] == "gap"]


def ended(mllaunch: Mllaunch, run: str) -> dict[str, Any]:
    """The exit record, once there is one; read from the node, since the run log may have no room."""
    path = mllaunch.home.attempt(run) / "exit-0.json"
    until(path.exists, "the exit record")
    return dict(json.loads(path.read_bytes()))


def test_a_job_that_prints_more_than_fits_ends_as_it_would_and_its_gaps_are_exact(
    mllaunch: Mllaunch, disk: Path
) -> None:
    total = 2 * DISK_BYTES
    run, _ = mllaunch.submit(*python("talk.py", str(total), str(6 * MIB), "0"))
    assert ended(mllaunch, run)["exit_code"] == 0
    enlarge(disk)
    row = mllaunch.wait_sealed(run)

    assert (row["state"], row["exit_code"], row["seal"]) == ("succeeded", 0, "sealed-with-gaps")
    sealed = view(mllaunch, run)["seal"]["streams"]["stdout.0"]
    truth = printed(total)
    assert sealed["size_bytes"] == len(truth)
    assert stored(mllaunch, run, "stdout.0") == outside(truth, sealed["gaps"])
    lost = sum(gap["size_bytes"] for gap in sealed["gaps"])
    assert total - DISK_BYTES <= lost < total

    claimed = gap_events(mllaunch, run)
    assert [event["stream"] for event in claimed] == ["stdout.0"] * len(claimed)
    ends = [event["offset"] + event["size_bytes"] for event in claimed]
    assert [event["offset"] for event in claimed] == [0, *ends[:-1]], "one gap follows the other"
    assert ends[-1] == sealed["gaps"][-1]["offset"] + sealed["gaps"][-1]["size_bytes"]
    node = (mllaunch.home.attempt(run) / "streams" / "stdout.0").read_bytes()
    assert node == outside(truth, claimed)


def test_a_disk_filled_by_others_and_freed_again_costs_the_oldest_output_only(
    mllaunch: Mllaunch, disk: Path
) -> None:
    total = 10 * MIB
    run, _ = mllaunch.submit(*python("talk.py", str(total), str(4 * MIB), "7"))
    output = mllaunch.home.attempt(run) / "streams" / "stdout.0"
    until(lambda: output.exists() and output.stat().st_size > 3 * MIB, "some output")
    fill(disk / "filler")
    until(lambda: output.stat().st_size > 7 * MIB, "output in spite of the full disk")
    (disk / "filler").unlink()

    assert ended(mllaunch, run)["exit_code"] == 7
    row = mllaunch.wait_sealed(run)
    assert (row["state"], row["exit_code"]) == ("failed", 7)
    sealed = view(mllaunch, run)["seal"]["streams"]["stdout.0"]
    truth = printed(total)
    assert stored(mllaunch, run, "stdout.0") == outside(truth, sealed["gaps"])
    claimed = gap_events(mllaunch, run)
    assert claimed, "something had to be given up"
    assert output.read_bytes() == outside(truth, claimed)
    assert sum(event["size_bytes"] for event in claimed) < 8 * MIB


def test_a_submission_onto_a_full_disk_is_refused_and_leaves_nothing_half_made(
    mllaunch: Mllaunch, disk: Path
) -> None:
    mllaunch.wait_sealed(mllaunch.submit("--", "true")[0])
    fill(disk / "filler")
    refused = mllaunch("submit", "--", "echo", "never")

    assert refused.rc == 125
    assert refused.stderr.startswith("error[") or "\nerror[" in refused.stderr
    assert "space" in refused.stderr
    assert "hint: " in refused.stderr
    (disk / "filler").unlink()
    until(
        lambda: all(row["seal"] for row in mllaunch("ps", "-a", "--json", check=True).document), "all settled"
    )
    rows = mllaunch("ps", "-a", "--json", check=True).document
    assert [row["state"] for row in rows][-1] == "succeeded"
    assert all(row["state"] == "failed" for row in rows[:-1])
    _, name = mllaunch.submit("--", "true")
    assert mllaunch.wait_sealed(name)["state"] == "succeeded"


def test_a_disk_that_is_full_at_the_end_keeps_the_exit_code_and_seals_once_there_is_room(
    mllaunch: Mllaunch, disk: Path
) -> None:
    filler = disk / "filler"
    run, _ = mllaunch.submit(*python("fill_and_end.py", str(filler)))
    assert ended(mllaunch, run)["exit_code"] == 3
    assert mllaunch.home.attempt(run).joinpath("ballast").exists() is False or filler.exists()
    filler.unlink()

    row = mllaunch.wait_sealed(run)
    assert (row["state"], row["exit_code"], row["seal"]) == ("failed", 3, "sealed-complete")
    assert row["reason"]["code"] == "exit"
    assert stored(mllaunch, run, "stdout.0") == b"before\n"
    assert AttemptRef(run, 1).number == row["attempt"]
