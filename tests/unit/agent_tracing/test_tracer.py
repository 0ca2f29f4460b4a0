from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mllaunch_agent import protocol, tracing
from tests.unit.agent_tracing.conftest import Attempt, blob, sha256

Said = list[tuple[str, dict[str, Any]]]


def told(attempt: Attempt, looks: int = 3, finish: bool = True) -> Said:
    """What a supervisor says that looks a few times, after 1.5 seconds each."""
    said: Said = []
    tracer = attempt.tracer()

    def say(kind: str, **fields: Any) -> None:
        said.append((kind, fields))

    for _ in range(looks):
        tracer.look(say)
        attempt.now_s += 1.5
    if finish:
        tracer.finish(say)
    return said


def a_whole_run(attempt: Attempt) -> None:
    attempt.committed = {"train.py": blob(b"old")}
    attempt.begin()
    attempt.process(7, "--key", "hunter2secret")
    attempt.process(8, rank="1")
    attempt.note("C", "run", blob(b"old"), "train.py")
    attempt.note("C", "source", blob(b"new"), "train.py", pid=8)
    attempt.write("train.py", b"new")
    attempt.write("table.csv", b"1")
    attempt.note("R", "table.csv")
    attempt.write("out/a.pt", b"weights")
    attempt.note("S", "torch.save", "5", "out/a.pt")
    attempt.note("W", "out/log.txt", pid=8)
    attempt.write("out/log.txt", b"lines")


def test_a_whole_run_is_told(attempt: Attempt) -> None:
    a_whole_run(attempt)
    said = told(attempt)
    (mixed,) = [fields for kind, fields in said if kind == protocol.CODE_MIXED]
    assert mixed == {
        "path": "train.py",
        "versions": [
            {"blob": blob(b"old"), "by": [{"rank": 0, "pid": 7}], "processes": 1},
            {"blob": blob(b"new"), "by": [{"rank": 1, "pid": 8}], "processes": 1},
        ],
    }
    assert [(line["pid"], line["rank"], line["version"]) for line in attempt.lines("process")] == [
        *((7, 0, "3.11"), (8, 1, "3.11"))
    ]
    code = [(line["blob"], line["committed"], line["how"], line["pid"]) for line in attempt.lines("code")]
    assert code == [(blob(b"old"), blob(b"old"), "run", 7), (blob(b"new"), blob(b"old"), "source", 8)]
    (checkpoint,) = attempt.lines("checkpoint")
    assert (checkpoint["path"], checkpoint["sha256"], checkpoint["step"]) == (
        "out/a.pt",
        sha256(b"weights"),
        5,
    )
    assert [line["path"] for line in attempt.lines("input")] == ["table.csv"]
    assert {line["path"] for line in attempt.lines("written")} == {"out/a.pt", "out/log.txt"}
    blobs = (attempt.folder / "streams" / protocol.BLOBS).read_text().splitlines()
    assert [json.loads(line)["blob"] for line in blobs] == [blob(b"new")]


def test_what_the_hook_kept_is_what_is_kept_where_the_file_is_another_by_now(attempt: Attempt) -> None:
    attempt.write("part.py", b"by now")
    Path(tracing.folder_of(str(attempt.folder)), f"code-{blob(b'then')}").write_bytes(b"then")
    attempt.note("C", "source", blob(b"then"), "part.py")
    told(attempt)
    (line,) = (attempt.folder / "streams" / protocol.BLOBS).read_text().splitlines()
    assert json.loads(line)["blob"] == blob(b"then")


def test_no_secret_is_told_and_no_half_of_one(attempt: Attempt) -> None:
    attempt.process(7, "--key", "hunter2secret", "x" * 990 + "hunter2secret")
    attempt.note("X", "environment", "python", "--key", "hunter2secret")
    said = told(attempt)
    text = (attempt.folder / "streams" / protocol.TRACE).read_text() + str(said)
    assert "hunter2" not in text


def test_a_python_with_both_layers_is_one_process_and_the_hook_tells_of_it(attempt: Attempt) -> None:
    attempt.process(7, layer="c")
    told(attempt, finish=False)
    assert attempt.folder.joinpath("streams", protocol.TRACE).exists() is False
    attempt.process(7)
    attempt.process(9, layer="c")  # the hook cannot get into this one
    told(attempt)
    assert [(line["pid"], line["version"]) for line in attempt.lines("process")] == [(7, "3.11"), (9, None)]


# --- the death of a supervisor ------------------------------------------------------------------------------


@pytest.mark.parametrize("looks", [0, 1, 2, 3])
@pytest.mark.parametrize("torn", [0, 5, 150])
def test_a_supervisor_that_takes_over_tells_nothing_twice_and_loses_nothing(
    attempt: Attempt, looks: int, torn: int
) -> None:
    a_whole_run(attempt)
    told(attempt, looks, finish=False)
    for name in (protocol.TRACE, protocol.BLOBS):
        stream = attempt.folder / "streams" / name
        if stream.exists() and torn:
            stream.write_bytes(stream.read_bytes()[:-torn])
    told(attempt)
    lines = attempt.lines()
    found = sorted((line["record"], line.get("path") or "", line.get("pid") or 0) for line in lines)
    assert found == [
        ("checkpoint", "out/a.pt", 7),
        ("code", "train.py", 7),
        ("code", "train.py", 8),
        ("input", "table.csv", 0),
        ("process", "", 7),
        ("process", "", 8),
        ("written", "out/a.pt", 7),
        ("written", "out/log.txt", 8),
    ]
    assert len((attempt.folder / "streams" / protocol.BLOBS).read_text().splitlines()) == 1


def test_one_that_dies_in_the_midst_of_finishing_is_followed_by_one_that_adds_nothing(
    attempt: Attempt,
) -> None:
    a_whole_run(attempt)
    told(attempt)
    before = attempt.lines()
    told(attempt)
    assert attempt.lines() == before


def test_who_is_seen_first_to_take_a_version_may_be_another_for_the_next_supervisor(attempt: Attempt) -> None:
    attempt.process(7)
    attempt.process(8)
    attempt.note("C", "source", blob(b"1"), "a.py", pid=8)
    told(attempt, 1, finish=False)
    with Path(tracing.folder_of(str(attempt.folder)), "7-1-py").open("a") as file:  # seen late
        file.write(f"C\t{int(attempt.now_s * 1000) - 3000}\tsource\t{blob(b'1')}\t{attempt.path('a.py')}\n")
    told(attempt, 1, finish=False)
    told(attempt)
    assert [line["pid"] for line in attempt.lines("code")] == [8]


def test_an_input_that_has_changed_since_it_was_told_is_not_told_as_another(attempt: Attempt) -> None:
    attempt.write("table.csv", b"1")
    attempt.note("R", "table.csv")
    told(attempt, 3, finish=False)
    attempt.write("table.csv", b"22")
    told(attempt)
    assert [line["sha256"] for line in attempt.lines("input")] == [sha256(b"1")]


def test_a_line_that_is_damaged_is_passed_over(attempt: Attempt) -> None:
    a_whole_run(attempt)
    told(attempt)
    stream = attempt.folder / "streams" / protocol.TRACE
    lines = stream.read_bytes().splitlines(True)
    stream.write_bytes(lines[0] + b"\0\0\xff\n[]\n5\n" + b'{"record":[1],"path":{}}\n' + b"".join(lines[2:]))
    told(attempt)
    again = json.loads(stream.read_bytes().splitlines()[-1])
    assert (again["record"], again["pid"]) == ("process", 8)


# --- what could not be seen ---------------------------------------------------------------------------------


def missed(attempt: Attempt) -> list[str]:
    return [fields["what"] for kind, fields in told(attempt) if kind == protocol.NOT_CAPTURED]


def test_nothing_is_missing_from_a_run_that_python_did_alone(attempt: Attempt) -> None:
    a_whole_run(attempt)
    assert missed(attempt) == []


def test_a_hook_that_never_began_is_missed(attempt: Attempt) -> None:
    assert missed(attempt) == ["code, inputs: what the tasks' Python processes did"]


def test_programs_that_tell_nothing_are_named_unless_the_c_layer_saw_them(attempt: Attempt) -> None:
    attempt.note("N", "/usr/bin/ffmpeg")
    attempt.note("X", "isolated", "python", "-I", "x.py")
    attempt.note("E", "marks: no")
    assert missed(attempt) == [
        "inputs, outputs: files that programs other than Python opened (ffmpeg)",
        "code, inputs, outputs: of the child process `python -I x.py`",
        "part of the hook",
    ]
    attempt.process(9, layer="c")
    assert missed(attempt) == ["part of the hook"]
