"""Room for output on a disk that gets full: what is reserved, when, and how much of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from mllaunch_agent import system
from mllaunch_agent.diskguard import DiskGuard
from mllaunch_agent.streams import EventLog

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


class Disk:
    """A disk with so much room as it is told; what is reserved on it is counted, not made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
        self.free = free
        self.shown: int | None = None  # instead of what is free
        self.error = errno.ENOSPC
        self.held: dict[str, int] = {}
        self.asked: list[int] = []
        self.punched: list[str] = []
        monkeypatch.setattr(os, "statvfs", self._statvfs)
        monkeypatch.setattr(system, "reserve", self._reserve)
        monkeypatch.setattr(system, "punch", lambda fd, offset, size: self.punched.append(name_of(fd)))

    def _statvfs(self, path: str) -> SimpleNamespace:
        free = self.free if self.shown is None else self.shown
        return SimpleNamespace(f_bavail=free, f_blocks=100 * GIB, f_frsize=1)

    def _reserve(self, fd: int, offset: int, size: int) -> None:
        self.asked.append(size)
        if size > self.free:
            raise OSError(self.error, os.strerror(self.error))
        self.free -= size
        self.held[name_of(fd)] = self.held.get(name_of(fd), 0) + size

    def outputs(self) -> dict[str, int]:
        return {name: size for name, size in self.held.items() if name[:3] == "std"}


def name_of(fd: int) -> str:
    return Path(f"/proc/self/fd/{fd}").readlink().name


def guard(folder: Path, ranks: int = 1) -> DiskGuard:
    (folder / "streams").mkdir(exist_ok=True)
    return DiskGuard(str(folder), range(ranks), EventLog(str(folder)))


def test_before_there_is_output_a_short_disk_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, 0)
    made = guard(tmp_path)
    made.tick()
    disk.free = 100 * MIB
    made.tick()
    made.release()
    assert set(disk.held) == {"events"}
    made.prepare()
    assert set(disk.held) == {"events", "ballast", "stdout.0", "stderr.0"}


def test_a_later_supervisor_reserves_for_the_streams_that_it_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, 100 * MIB)
    guard(tmp_path).prepare()
    disk.held.clear()
    guard(tmp_path).tick()
    assert set(disk.outputs()) == {"stdout.0", "stderr.0"}


def test_a_later_supervisor_learns_that_nothing_can_be_reserved_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, 0)
    (tmp_path / "streams").mkdir()
    (tmp_path / "streams" / "stdout.0").write_bytes(b"line\n" * 100_000)
    disk.error = errno.EOPNOTSUPP
    made = guard(tmp_path)
    made.tick()
    made.tick()
    assert len(disk.asked) == 1
    assert not made.is_short
    assert made.gaps() == {}


def test_many_ranks_together_leave_the_job_most_of_the_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, 800 * MIB)
    guard(tmp_path, ranks=8).prepare()
    assert len(disk.outputs()) == 16
    assert sum(disk.outputs().values()) <= 100 * MIB
    assert min(disk.outputs().values()) > 5 * MIB


def test_less_is_reserved_before_any_output_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, 700 * KIB)
    disk.shown = 800 * MIB  # as where a quota is what is short
    made = guard(tmp_path)
    (tmp_path / "streams" / "stdout.0").write_bytes(b"line\n" * 100_000)
    made.prepare()
    assert made.gaps() == {}
    assert all(size >= 64 * KIB for size in disk.outputs().values())
    assert len(disk.outputs()) == 2
    disk.free = 0
    with (tmp_path / "streams" / "stdout.0").open("ab") as file:
        file.write(b"line\n" * 100_000)
    made.tick()
    (gap,) = made.gaps()["stdout.0"]
    assert gap["offset"] == 0
    assert disk.punched


def test_what_prints_fast_has_more_reserved_than_the_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, 100 * MIB)
    disk.shown = 0
    made = guard(tmp_path)
    made.prepare()
    assert set(disk.outputs().values()) == {64 * KIB}
    with (tmp_path / "streams" / "stdout.0").open("ab") as file:
        file.write(b"x" * MIB)
    made.tick()
    assert disk.outputs()["stdout.0"] >= 16 * MIB
    assert disk.outputs()["stderr.0"] == 64 * KIB


def test_once_there_is_room_again_nothing_is_hurried_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, 100 * MIB)
    made = guard(tmp_path)
    made.prepare()
    assert made.is_short
    disk.free = GIB + GIB // 2  # a little more is no reason to go to and fro
    made.tick()
    assert made.is_short
    disk.free = 3 * GIB
    made.tick()
    assert not made.is_short
    asked = len(disk.asked)
    made.tick()
    assert len(disk.asked) == asked
    assert disk.punched == [], "the job may be writing there"
    made.release()
    assert sorted(disk.punched) == ["stderr.0", "stdout.0"]


def test_what_a_supervisor_before_had_reserved_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard(tmp_path).prepare()
    path = tmp_path / "streams" / "stdout.0"
    with path.open("r+b") as file:
        try:
            system.reserve(file.fileno(), 0, MIB)
        except OSError as e:
            pytest.skip(f"no fallocate here: {e}")
    disk = Disk(monkeypatch, 0)
    guard(tmp_path).release()
    assert disk.punched == ["stdout.0"]
