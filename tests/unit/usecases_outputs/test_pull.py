from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from mllaunch.errors import Unreachable
from mllaunch.usecases.layout import layout
from mllaunch.usecases.outputs import OpenOutput, OutputFile, OutputFolder
from mllaunch.usecases.pull import Outcome, pull
from mllaunch_agent.node import AttemptFolder


class Attempt:
    """An attempt's folder with what its tasks wrote, and the record of it."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.work.mkdir()
        self.folder = AttemptFolder(str(folder))
        self.files: list[OutputFile] = []

    def wrote(self, path: str, content: bytes, *, recorded: bool = True) -> None:
        place = self.work / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest() if recorded else None
        self.files.append(OutputFile(path, "file", len(content), None, digest, None, None, "here"))

    def linked(self, path: str, target: str) -> None:
        self.files.append(OutputFile(path, "symlink", None, None, None, None, target, "here"))

    def pull(self, dest: Path, *, force: bool = False) -> list[Outcome]:
        seen: list[tuple[int, int]] = []
        outcomes = pull(
            layout(self.files).wanted,
            {"here": self.folder},
            str(dest),
            force=force,
            progress=lambda count, size: seen.append((count, size)),
        )
        assert seen == sorted(seen) and seen[-1][0] == len(self.files)
        parts = [path for path in dest.rglob("*") if path.name.endswith(".part")]
        assert not parts
        return outcomes


@pytest.fixture
def attempt(tmp_path: Path) -> Attempt:
    (tmp_path / "attempt").mkdir()
    return Attempt(tmp_path / "attempt")


def problems(outcomes: list[Outcome]) -> dict[str, str]:
    return {outcome.file.path: outcome.problem for outcome in outcomes if outcome.problem}


def test_files_keep_their_paths_bytes_times_and_the_right_to_be_executed(
    attempt: Attempt, tmp_path: Path
) -> None:
    attempt.wrote("outputs/deep/a.pt", b"a" * 3_000_000)
    attempt.wrote("run.sh", b"#!/bin/sh\n")
    (attempt.work / "run.sh").chmod(0o755)
    os.utime(attempt.work / "run.sh", ns=(1, 1_000_000_007))
    assert not problems(attempt.pull(tmp_path / "d" / "e"))
    assert (tmp_path / "d/e/outputs/deep/a.pt").read_bytes() == b"a" * 3_000_000
    info = (tmp_path / "d/e/run.sh").stat()
    assert info.st_mode & 0o100 and info.st_mtime_ns == 1_000_000_007
    assert not (tmp_path / "d/e/outputs/deep/a.pt").stat().st_mode & 0o100


def test_repeating_a_pull_copies_nothing_again(attempt: Attempt, tmp_path: Path) -> None:
    attempt.wrote("a", b"one")
    attempt.wrote("unrecorded", b"two", recorded=False)
    attempt.linked("link", "a")
    assert [outcome.was_there for outcome in attempt.pull(tmp_path / "d")] == [False, False, False]
    before = (tmp_path / "d/a").stat()
    assert [outcome.was_there for outcome in attempt.pull(tmp_path / "d")] == [True, True, True]
    assert (tmp_path / "d/a").stat() == before


@pytest.mark.parametrize("recorded", [True, False])
def test_another_file_in_the_way_stays_unless_forced(
    attempt: Attempt, tmp_path: Path, recorded: bool
) -> None:
    attempt.wrote("a", b"one", recorded=recorded)
    (tmp_path / "d").mkdir()
    (tmp_path / "d/a").write_bytes(b"mine")
    assert "--force" in problems(attempt.pull(tmp_path / "d"))["a"]
    assert (tmp_path / "d/a").read_bytes() == b"mine"
    assert not problems(attempt.pull(tmp_path / "d", force=True))
    assert (tmp_path / "d/a").read_bytes() == b"one"


def test_a_changed_or_missing_file_is_said_and_the_others_are_copied(
    attempt: Attempt, tmp_path: Path
) -> None:
    for name in ("changed", "missing", "a-link-now", "fine"):
        attempt.wrote(name, b"content")
    (attempt.work / "changed").write_bytes(b"CONTENT")
    (attempt.work / "missing").unlink()
    (attempt.work / "a-link-now").unlink()
    (attempt.work / "a-link-now").symlink_to("fine")
    said = problems(attempt.pull(tmp_path / "d"))
    assert set(said) == {"changed", "missing", "a-link-now"}
    assert "changed" in said["changed"] and "missing" in said["missing"]
    assert sorted(path.name for path in (tmp_path / "d").iterdir()) == ["fine"]


def test_no_link_leads_the_copy_out_of_either_folder(attempt: Attempt, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"content")
    attempt.wrote("sub/secret", b"content")
    attempt.wrote("out/file", b"content")
    (attempt.work / "sub/secret").unlink()
    (attempt.work / "sub").rmdir()
    (attempt.work / "sub").symlink_to(outside)
    (tmp_path / "d").mkdir()
    (tmp_path / "d/out").symlink_to(outside)
    assert set(problems(attempt.pull(tmp_path / "d"))) == {"sub/secret", "out/file"}
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_links_are_copied_as_links_when_they_stay_inside(attempt: Attempt, tmp_path: Path) -> None:
    attempt.linked("outputs/last.pt", "a.pt")
    attempt.linked("outputs/up", "../x")
    attempt.linked("outputs/away", "../../x")
    attempt.linked("abs", "/etc/passwd")
    assert set(problems(attempt.pull(tmp_path / "d"))) == {"outputs/away", "abs"}
    assert str((tmp_path / "d/outputs/last.pt").readlink()) == "a.pt"
    assert not (tmp_path / "d/abs").is_symlink()


def test_a_pipe_is_not_opened(attempt: Attempt, tmp_path: Path) -> None:
    attempt.wrote("pipe", b"x")
    (attempt.work / "pipe").unlink()
    os.mkfifo(attempt.work / "pipe")
    assert set(problems(attempt.pull(tmp_path / "d"))) == {"pipe"}


def test_a_name_of_the_longest_length_and_odd_bytes_is_copied(attempt: Attempt, tmp_path: Path) -> None:
    attempt.wrote("x" * 255, b"1")
    attempt.wrote(os.fsdecode(b"caf\xe9\n\x1b[31m"), b"2")
    assert not problems(attempt.pull(tmp_path / "d"))
    assert (tmp_path / "d" / os.fsdecode(b"caf\xe9\n\x1b[31m")).read_bytes() == b"2"


class Silent:
    """A node that does not answer."""

    def output_now(self) -> list[dict[str, Any]]:
        raise Unreachable("unreachable", "b cannot be reached: it does not answer")

    def open_output(self, path: str) -> OpenOutput:
        raise Unreachable("unreachable", "b cannot be reached: it does not answer")


def recorded(node: str, path: str, content: bytes) -> OutputFile:
    return OutputFile(path, "file", len(content), None, hashlib.sha256(content).hexdigest(), None, None, node)


def copy(
    files: list[OutputFile], folders: dict[str, OutputFolder], dest: Path, *, force: bool = False
) -> list[Outcome]:
    return pull(layout(files).wanted, folders, str(dest), force=force, progress=lambda count, size: None)


def test_what_nodes_wrote_differently_lies_side_by_side_and_is_found_there_again(
    attempt: Attempt, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Attempt(tmp_path / "other")
    attempt.wrote("outputs/model", b"of here")
    attempt.linked("outputs/last", "../outputs/model")
    attempt.linked("away", "../x")
    other.wrote("outputs/model", b"of there")
    files = [*attempt.files, *(file._replace(node="there") for file in other.files)]
    folders: dict[str, OutputFolder] = {"here": attempt.folder, "there": other.folder}
    for force in (False, True):
        for was_there in (False, True):
            outcomes = copy(files, folders, tmp_path / f"d{force}", force=force)
            assert set(problems(outcomes)) == {"away"}  # no link leads from one node's folder into another's
            assert [outcome.was_there for outcome in outcomes if not outcome.problem] == [was_there] * 3
        assert (tmp_path / f"d{force}/here/outputs/model").read_bytes() == b"of here"
        assert (tmp_path / f"d{force}/here/outputs/last").read_bytes() == b"of here"
        assert (tmp_path / f"d{force}/there/outputs/model").read_bytes() == b"of there"


def test_a_node_that_does_not_answer_keeps_no_others_files_back(attempt: Attempt, tmp_path: Path) -> None:
    attempt.wrote("a", b"of a")
    attempt.wrote("same", b"same")
    files = [recorded("b", "b", b"of b"), recorded("b", "same", b"same"), *attempt.files]
    outcomes = copy(files, {"here": attempt.folder, "b": Silent()}, tmp_path / "d")
    assert [(outcome.place, outcome.is_silent) for outcome in outcomes if outcome.problem] == [("b", True)]
    assert (tmp_path / "d/a").read_bytes() == b"of a"
    assert (tmp_path / "d/same").read_bytes() == b"same"  # whoever has it gives it
    # What is there already is nothing to ask a node for.
    (tmp_path / "d/b").write_bytes(b"of b")
    assert not problems(copy(files, {"here": attempt.folder, "b": Silent()}, tmp_path / "d"))


def test_a_file_that_one_node_has_lost_comes_from_another_with_the_same(
    attempt: Attempt, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = Attempt(tmp_path / "other")
    attempt.wrote("same", b"same")
    (attempt.work / "same").unlink()
    other.wrote("same", b"same")
    files = [*attempt.files, *(file._replace(node="there") for file in other.files)]
    [outcome] = copy(files, {"here": attempt.folder, "there": other.folder}, tmp_path / "d")
    assert (outcome.problem, outcome.file.node) == (None, "there")


def test_the_silence_of_the_only_node_ends_the_pull(tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        copy([recorded("b", "b", b"of b")], {"b": Silent()}, tmp_path / "d")
