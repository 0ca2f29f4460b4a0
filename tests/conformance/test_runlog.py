"""What every RunLog does."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mllaunch.domain.artifact import Artifact
from mllaunch.domain.run import Parent, RunStatus, Silence
from mllaunch.domain.state import Reason, State
from mllaunch.errors import NameTaken, NotFound, UsageError
from mllaunch.ports import AttemptRef, RunQuery

from .runs import QUEUED, RUNNING, SPEC, SUCCEEDED, make_run
from .stores import RUN_LOGS, ClosableRunLog, start


@pytest.fixture(params=sorted(RUN_LOGS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def log(kind: str, tmp_path: Path) -> Iterator[ClosableRunLog]:
    log = RUN_LOGS[kind](str(tmp_path / "home"))
    yield log
    log.close()


def reopened(kind: str, tmp_path: Path) -> ClosableRunLog:
    return RUN_LOGS[kind](str(tmp_path / "home"))


def names(log: ClosableRunLog, **query: object) -> list[str]:
    return [row.name for row in log.rows(RunQuery(**query))]  # type: ignore[arg-type]


@pytest.mark.parametrize(("nodes", "why"), [(1, "exited with 7"), (2, "exited with 7 (rank 0 on gpu01)")])
def test_a_listing_says_why_and_of_several_tasks_whose_failure_it_was(
    log: ClosableRunLog, nodes: int, why: str
) -> None:
    spec = SPEC._replace(resources=SPEC.resources._replace(nodes=nodes))
    log.add(
        make_run(1, spec=spec), RunStatus(State.FAILED, Reason("exit", "exited with 7", "user", "gpu01", 0))
    )
    log.add(make_run(2), SUCCEEDED)
    assert [row.why for row in log.rows(RunQuery())] == [None, why]


def test_what_was_added_is_read_back_by_another_connection(
    log: ClosableRunLog, kind: str, tmp_path: Path
) -> None:
    run = make_run(1, params=(("lr", "0.1"),))
    status = RunStatus(
        State.FAILED,
        Reason("oom", "ran out of memory", "infrastructure", node="gpu01", rank=3, retryable=True),
        exit_code=137,
        attempt=2,
        started_at="2026-11-21T09:00:00.000Z",
        ended_at="2026-11-21T09:01:00.000Z",
        waiting="for a GPU that \udcff holds",
        seal="sealed-with-gaps",
    )
    log.add(run, status)
    other = reopened(kind, tmp_path)
    assert other.get(run.id) == (run, status)
    [row] = other.rows(RunQuery())
    assert row.status == status
    assert (row.id, row.name, row.project, row.command) == (run.id, run.name, "digits", "train.py --lr 0.1")
    other.close()


def test_a_store_that_nobody_wrote_to_is_empty_and_stays_uncreated(
    log: ClosableRunLog, tmp_path: Path
) -> None:
    assert log.rows(RunQuery()) == []
    assert log.views("none") == {}
    assert log.view(AttemptRef("none", 1), "node") == ({}, 0)
    with pytest.raises(NotFound):
        log.get("@last")
    assert not (tmp_path / "home").exists()


def test_a_taken_name_is_refused_and_the_first_run_keeps_it(log: ClosableRunLog) -> None:
    log.add(make_run(1, name="mine"), QUEUED)
    with pytest.raises(NameTaken) as caught:
        log.add(make_run(2, name="mine"), QUEUED)
    assert caught.value.code == "name_taken"
    assert log.get("mine")[0] == make_run(1, name="mine")
    assert len(log.rows(RunQuery())) == 1


@pytest.mark.parametrize(
    "name", ["", "@last", "../x", "a b", "a\n", "-x", "a..b", "a.lock", "a" * 65, "ö", "a\0"]
)
def test_a_name_that_could_mean_something_else_is_refused(log: ClosableRunLog, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        log.add(make_run(1, name=name), QUEUED)
    assert caught.value.code == "bad_name"
    assert log.rows(RunQuery()) == []


def test_a_run_is_found_by_name_id_prefix_and_place_from_the_end(log: ClosableRunLog) -> None:
    for number, name in enumerate(["calm-fox-1", "calm-fox-17", "bold-owl-2", "wise-emu-3"]):
        log.add(make_run(number, name=name, id=f"{number}aa-{number}"), QUEUED)

    def found(reference: str) -> str:
        return log.get(reference)[0].name

    assert found("calm-fox-1") == "calm-fox-1"  # a whole name wins over being the beginning of another
    assert found("calm-fox-17") == found("calm-fox-17"[:11]) == "calm-fox-17"
    assert found("bo") == "bold-owl-2"
    assert found("3aa-3") == found("3a") == "wise-emu-3"
    assert found("@last") == found("@{0}") == "wise-emu-3"
    assert found("@{2}") == "calm-fox-17"  # the one before the one before last


def test_an_ambiguous_prefix_names_ten_candidates_at_most(log: ClosableRunLog) -> None:
    for number in range(12):
        log.add(make_run(number), QUEUED)
    with pytest.raises(UsageError) as caught:
        log.get("brave")
    assert caught.value.code == "ambiguous"
    assert len(caught.value.evidence) == 11
    assert caught.value.evidence[-1] == "and others"
    assert make_run(0).id in caught.value.evidence[0]


def test_a_run_whose_name_and_id_begin_alike_is_not_ambiguous_with_itself(log: ClosableRunLog) -> None:
    log.add(make_run(1, name="abc-name", id="abc-id"), QUEUED)
    assert log.get("abc")[0].id == "abc-id"


@pytest.mark.parametrize(
    "reference",
    [
        "../../x", "%2e%2e", "#", "x" * 10_000, "a\0b", "\0", "\udcff", "brave\udcff", "%", "_", "' OR 1=1",
        "*", "@{999999999}", "-x", "brave-otter-1\n", "\u202ebrave", "nobody",
    ],
)  # fmt: skip
def test_a_reference_that_means_nothing_is_not_found_and_shown_harmlessly(
    log: ClosableRunLog, reference: str
) -> None:
    log.add(make_run(1), QUEUED)
    with pytest.raises(NotFound) as caught:
        log.get(reference)
    assert caught.value.message.isascii()
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 120
    assert caught.value.hint


@pytest.mark.parametrize(
    "reference", ["", "@", "@first", "@{}", "@{-1}", "@{x}", "@{1", "@{9999999999}", "@{1}\n"]
)
def test_a_malformed_reference_is_a_usage_error(log: ClosableRunLog, reference: str) -> None:
    log.add(make_run(1), QUEUED)
    with pytest.raises(UsageError):
        log.get(reference)


def test_a_misspelt_name_gets_the_near_ones_as_a_hint(log: ClosableRunLog) -> None:
    log.add(make_run(1, name="brave-otter-17"), QUEUED)
    with pytest.raises(NotFound) as caught:
        log.get("brave-oter-17")
    assert "brave-otter-17" in (caught.value.hint or "")


def test_runs_are_listed_newest_first_up_to_the_limit(log: ClosableRunLog) -> None:
    for number in (3, 1, 2, 5, 4):
        log.add(make_run(number), QUEUED)
    assert names(log, limit=3) == ["brave-otter-5", "brave-otter-4", "brave-otter-3"]
    same_time = "2027-01-01T00:00:00.000Z"
    log.add(make_run(8, submitted_at=same_time), QUEUED)
    log.add(make_run(7, submitted_at=same_time), QUEUED)
    assert names(log, limit=2) == ["brave-otter-8", "brave-otter-7"]


def test_all_conditions_of_a_query_must_hold(log: ClosableRunLog) -> None:
    odd = (("parity", "odd"), ("seed", "1"))
    for number in range(8):
        run = make_run(
            number,
            params=odd if number % 2 else (("parity", "even"), ("seed", "1")),
            spec=SPEC._replace(
                project="a" if number < 4 else "b", tags=("t",) if number in (1, 3, 5) else ()
            ),
        )
        log.add(run, SUCCEEDED if number in (1, 2) else RUNNING)

    def numbers(**query: object) -> list[int]:
        return [int(name.rpartition("-")[2]) for name in names(log, **query)]

    assert numbers(params=(("parity", "odd"),)) == [7, 5, 3, 1]
    assert numbers(params=odd, limit=2) == [7, 5]
    assert numbers(params=(("parity", "odd"), ("parity", "even"))) == []
    assert numbers(unsettled=True) == [7, 6, 5, 4, 3, 0]
    assert numbers(project="a") == [3, 2, 1, 0]
    assert numbers(tag="t") == [5, 3, 1]
    assert numbers(tag="t", params=odd, project="a", unsettled=True) == [3]
    assert numbers(tag="' OR 1=1 --") == numbers(project="%") == []


def test_text_that_is_not_unicode_is_kept_and_found(log: ClosableRunLog) -> None:
    odd = "caf\udce9\0"
    run = make_run(
        1, spec=SPEC._replace(args=(odd,), project=odd, note=odd, tags=(odd,)), params=(("file", odd),)
    )
    log.add(run, QUEUED._replace(waiting=odd))
    assert log.get("@last")[0] == run
    [row] = log.rows(RunQuery(project=odd, tag=odd, params=(("file", odd),)))
    assert (row.project, row.note, row.tags, row.status.waiting) == (odd, odd, (odd,), odd)
    assert odd in row.command


def test_a_status_is_replaced_and_a_sealed_run_leaves_the_unsettled(log: ClosableRunLog) -> None:
    run = make_run(1)
    log.add(run, QUEUED)
    log.set_status(run.id, RUNNING)
    assert log.get(run.id) == (run, RUNNING)
    log.set_status(run.id, SUCCEEDED._replace(seal=None))  # it ended, but its last bytes have not come
    assert len(log.rows(RunQuery(unsettled=True))) == 1
    log.set_status(run.id, SUCCEEDED)
    assert log.rows(RunQuery(unsettled=True)) == []
    with pytest.raises(NotFound):
        log.set_status("nobody", RUNNING)


def test_that_a_run_has_started_is_noted_unless_more_is_known(log: ClosableRunLog) -> None:
    log.add(make_run(1), RunStatus(State.PACKAGING))
    log.add(make_run(2), RUNNING)
    for number in (1, 2):
        log.note_started(make_run(number).id)
    assert [row.status for row in log.rows(RunQuery())] == [RUNNING, RunStatus(State.QUEUED)]


def test_a_view_is_replaced_only_by_who_saw_the_newest(
    log: ClosableRunLog, kind: str, tmp_path: Path
) -> None:
    run = make_run(1)
    log.add(run, QUEUED)
    attempt = AttemptRef(run.id, 1)
    assert log.view(attempt, "a") == ({}, 0)
    assert log.set_view(attempt, "a", {"x": [1, None, "\udcff"]}, was=0, now=10, status=RUNNING)
    late = reopened(kind, tmp_path)
    assert not late.set_view(attempt, "a", {"x": 2}, was=0, now=20, status=SUCCEEDED)
    assert not late.set_view(attempt, "a", {"x": 2}, was=9, now=20, status=SUCCEEDED)
    assert late.view(attempt, "a") == ({"x": [1, None, "\udcff"]}, 10)
    assert late.get(run.id)[1] == RUNNING
    assert late.set_view(attempt, "a", {"x": 3}, was=10, now=10, status=SUCCEEDED)
    late.close()
    assert log.view(attempt, "a") == ({"x": 3}, 10)
    assert log.get(run.id)[1] == SUCCEEDED


def test_views_come_by_attempt_and_node_in_order(log: ClosableRunLog) -> None:
    run = make_run(1)
    log.add(run, QUEUED)
    for number, node in ((10, "a"), (2, "b"), (2, "a")):
        view = {"at": f"{number}{node}"}
        assert log.set_view(AttemptRef(run.id, number), node, view, was=0, now=1, status=RUNNING)
    assert list(log.views(run.id).items()) == [
        ((2, "a"), {"at": "2a"}),
        ((2, "b"), {"at": "2b"}),
        ((10, "a"), {"at": "10a"}),
    ]


def test_a_view_of_an_unknown_run_is_not_found_and_not_stored(log: ClosableRunLog) -> None:
    log.add(make_run(1), QUEUED)
    with pytest.raises(NotFound):
        log.set_view(AttemptRef("nobody", 1), "a", {}, was=0, now=1, status=RUNNING)
    assert log.views("nobody") == {}


def test_notes_are_replaced_and_tags_added_once(log: ClosableRunLog) -> None:
    run = make_run(1, spec=SPEC._replace(note="first", tags=("a",)))
    log.add(run, QUEUED)
    assert log.notes(run.id) == ("first", ("a",))
    log.annotate(run.id, add_tags=("b", "a"))
    log.annotate(run.id, note="second")
    assert log.notes(run.id) == ("second", ("a", "b"))
    [row] = log.rows(RunQuery(tag="b"))
    assert (row.note, row.tags) == ("second", ("a", "b"))
    assert log.get(run.id)[0] == run  # what was submitted never changes
    with pytest.raises(NotFound):
        log.annotate("nobody", note="x")
    with pytest.raises(NotFound):
        log.notes("nobody")


def test_a_removed_run_is_gone_from_every_answer_and_its_name_is_free(log: ClosableRunLog) -> None:
    run = make_run(1, params=(("lr", "1"),), spec=SPEC._replace(tags=("a",)))
    log.add(run, QUEUED)
    log.annotate(run.id, add_tags=("b",))
    log.set_view(AttemptRef(run.id, 1), "n", {}, was=0, now=1, status=RUNNING)
    log.add(make_run(2, params=(("lr", "1"),)), QUEUED)
    log.remove(run.id)
    assert log.views(run.id) == {}
    assert names(log) == names(log, params=(("lr", "1"),)) == ["brave-otter-2"]
    assert names(log, tag="a") == names(log, tag="b") == []
    with pytest.raises(NotFound):
        log.remove(run.id)
    log.add(run, QUEUED)
    assert log.view(AttemptRef(run.id, 1), "n") == ({}, 0)


def together(*programs: tuple[str, ...]) -> None:
    """Run programs at once, released at the same moment, and see that each ends well."""
    children = [start(*program) for program in programs]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        child.communicate(timeout=60)
        assert child.returncode == 0


def check_integrity(kind: str, place: Path) -> None:
    if kind == "sqlite":
        connection = sqlite3.connect(place / "runlog.sqlite3")
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()


def test_four_processes_write_at_once_and_nothing_is_lost(
    kind: str, log: ClosableRunLog, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    together(*[("add_runs", kind, str(home), str(1000 * writer), "100") for writer in range(4)])
    assert len(log.rows(RunQuery(limit=1000))) == 400
    for number in (0, 99, 1000, 3099):
        assert names(log, params=(("number", str(number)),)) == [f"brave-otter-{number}"]
    log.close()
    check_integrity(kind, home)


def test_racing_collectors_of_one_view_never_lose_an_update(
    kind: str, log: ClosableRunLog, tmp_path: Path
) -> None:
    run = make_run(1)
    log.add(run, QUEUED)
    together(*[("count_up", kind, str(tmp_path / "home"), run.id, "100") for _ in range(3)])
    assert log.view(AttemptRef(run.id, 1), "node") == ({"count": 300}, 300)


def test_what_a_killed_writer_acknowledged_is_there(kind: str, log: ClosableRunLog, tmp_path: Path) -> None:
    home = tmp_path / "home"
    chance = random.Random(20261121)
    acknowledged: list[str] = []
    for round_ in range(8):
        child = start("add_runs", kind, str(home), str(100_000 * (round_ + 1)), "100000")
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.stdin.write("go\n")
        child.stdin.flush()
        for _ in range(chance.randrange(1, 150)):
            acknowledged.append(child.stdout.readline().strip())
        child.kill()
        with child:  # not communicate(), which passes over what was read ahead
            acknowledged += child.stdout.read().split()
        check_integrity(kind, home)
    for name in acknowledged:
        assert log.get(name)[0].name == name
    stored = len(log.rows(RunQuery(limit=10**6)))
    assert len(acknowledged) <= stored <= len(acknowledged) + 8  # the last of each may not have been told


def test_the_children_of_these_tests_do_run() -> None:
    """A program that does not exist must not pass for one that did its work."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.conformance.stores", "add_runs", "none", "x"],
        cwd=Path(__file__).parents[2],
        input="go\n",
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0


def test_a_process_that_reads_before_it_writes_loses_nothing_to_one_that_leaves(
    log: ClosableRunLog, kind: str, tmp_path: Path
) -> None:
    log.add(make_run(1), QUEUED)
    log.close()
    log.rows(RunQuery())  # opens for reading
    log.set_status(make_run(1).id, RUNNING)  # then for writing
    # Another program looks at the file. Whoever closes it last of all deletes the WAL; that must not be this one.
    look = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1])
database.execute("SELECT count(*) FROM run").fetchall()
database.close()
"""
    subprocess.run([sys.executable, "-c", look, str(tmp_path / "home" / "runlog.sqlite3")], check=True)
    log.add(make_run(2), QUEUED)
    list_names = f"""
from mllaunch.ports import RunQuery
from tests.conformance.stores import RUN_LOGS
print(*sorted(row.name for row in RUN_LOGS[{kind!r}]({str(tmp_path / "home")!r}).rows(RunQuery())))
"""
    seen = subprocess.run([sys.executable, "-c", list_names], check=True, stdout=-1, text=True).stdout.split()
    assert seen == sorted(make_run(n).name for n in (1, 2))


def _artifact(run_id: str, path: str, sha256: str = "ab" * 32, kind: str = "file") -> Artifact:
    return Artifact(sha256, run_id, 1, "node", path, kind, 7)


def test_a_file_is_found_by_its_content_whatever_its_name(
    log: ClosableRunLog, kind: str, tmp_path: Path
) -> None:
    one, two = make_run(1), make_run(2)
    for run in (two, one):
        log.add(run, QUEUED)
    written = _artifact(one.id, "outputs/model\udcff.pt")
    read = _artifact(two.id, "data/model.pt", kind="data")
    log.add_artifacts([read, _artifact(two.id, "other", "cd" * 32)])
    log.add_artifacts([written])
    log.add_artifacts(iter([written, read]))  # once more, as a collector does that was killed half-way
    assert reopened(kind, tmp_path).artifacts("ab" * 32) == [written, read]
    assert log.artifacts("ef" * 32) == []


def test_a_removed_run_takes_its_files_from_the_index(log: ClosableRunLog) -> None:
    one, two = make_run(1), make_run(2)
    for run in (one, two):
        log.add(run, QUEUED)
        log.add_artifacts([_artifact(run.id, "model.pt")])
    log.remove(one.id)
    assert log.artifacts("ab" * 32) == [_artifact(two.id, "model.pt")]


def test_more_files_than_fit_into_one_transaction_are_all_found(log: ClosableRunLog) -> None:
    run = make_run(1)
    log.add(run, QUEUED)
    log.add_artifacts(_artifact(run.id, f"{number}", f"{number:064x}") for number in range(12_345))
    assert [len(log.artifacts(f"{number:064x}")) for number in (0, 4_999, 5_000, 12_344, 12_345)] == [
        1,
        1,
        1,
        1,
        0,
    ]


def _with_runs(log: ClosableRunLog, *numbers: int) -> list[str]:
    """Ids of new runs with these numbers."""
    runs = [make_run(number) for number in numbers]
    for run in runs:
        log.add(run, QUEUED)
    return [run.id for run in runs]


def test_the_files_of_a_run_are_listed_by_kind_with_their_steps(log: ClosableRunLog) -> None:
    one, two = _with_runs(log, 1, 2)
    saved = [
        _artifact(one, f"model-{step}\udcff.pt", f"{step:064x}", "checkpoint")._replace(step=step)
        for step in (3, 1)
    ]
    log.add_artifacts([*saved, _artifact(one, "log.txt"), _artifact(two, "other.pt", kind="checkpoint")])
    assert log.artifacts_of(one, ("checkpoint",)) == saved[::-1]  # by path
    assert log.artifacts_of(one, ("file", "checkpoint")) == [*saved[::-1], _artifact(one, "log.txt")]
    assert log.artifacts_of(one, ("data",)) == log.artifacts_of("none", ("file",)) == []


def test_who_read_what_a_run_wrote_is_found_by_content(log: ClosableRunLog) -> None:
    one, two, three = _with_runs(log, 1, 2, 3)
    log.add_artifacts(
        [
            _artifact(one, "model.pt"),
            _artifact(one, "model.pt", kind="checkpoint"),  # the same bytes, known twice over
            _artifact(one, "copy.pt"),
            _artifact(one, "model.pt", kind="input"),  # it reads again what it wrote
            _artifact(one, "empty")._replace(sha256="00" * 32, size_bytes=0),
            _artifact(one, "weights", "cd" * 32, kind="weights"),
            _artifact(two, "start.pt", kind="input"),
            _artifact(two, "empty", "00" * 32, kind="input")._replace(size_bytes=0),
            _artifact(two, "start.pt", "cd" * 32, kind="input-weights"),
            _artifact(three, "a.pt", kind="input"),
            _artifact(three, "b.pt", kind="data"),
            _artifact(three, "b.pt", kind="file"),  # written: no reading
        ]
    )
    assert log.readers(one, ("file", "checkpoint"), ("input", "data")) == [
        _artifact(two, "start.pt", kind="input"),
        _artifact(three, "b.pt", kind="data"),
        _artifact(three, "a.pt", kind="input"),
    ]
    assert log.readers(one, ("weights",), ("input-weights",)) == [
        _artifact(two, "start.pt", "cd" * 32, kind="input-weights")
    ]
    assert log.readers(two, ("file", "checkpoint"), ("input", "data")) == []
    assert log.readers("none", ("file",), ("input",)) == []


def _parent(run_id: str, kind: str) -> Parent:
    return Parent(
        run_id, "brave-otter-1", kind, 1, 2, "model\udcff.pt", "ab" * 32, "a" * 40, (("lr", None, "1"),)
    )


def test_runs_that_were_started_from_another_are_its_children_until_they_are_removed(
    log: ClosableRunLog, kind: str, tmp_path: Path
) -> None:
    [one] = _with_runs(log, 1)
    resumed = make_run(3)._replace(parent=_parent(one, "resume"))
    begun = make_run(2)._replace(parent=_parent(one, "weights"))
    for run in (resumed, begun):
        log.add(run, QUEUED)
    other = reopened(kind, tmp_path)
    assert other.children(one) == [(begun.id, "weights"), (resumed.id, "resume")]
    assert other.get(resumed.id)[0] == resumed
    other.close()
    assert log.children(begun.id) == log.children("none") == []
    log.remove(begun.id)
    assert log.children(one) == [(resumed.id, "resume")]
    log.remove(one)
    assert log.get(resumed.id)[0].parent == _parent(one, "resume")  # a run may outlive what it came from


def test_a_name_that_is_taken_leaves_no_child_behind(log: ClosableRunLog) -> None:
    [one] = _with_runs(log, 1)
    with pytest.raises(NameTaken):
        log.add(make_run(2, name="brave-otter-1")._replace(parent=_parent(one, "resume")), QUEUED)
    assert log.children(one) == []


def test_whether_its_processes_mixed_code_is_part_of_a_runs_status(
    log: ClosableRunLog, kind: str, tmp_path: Path
) -> None:
    one, two = _with_runs(log, 1, 2)
    mixed = RUNNING._replace(mixed=True)
    log.set_status(one, mixed)
    log.set_view(AttemptRef(two, 1), "n", {}, was=0, now=1, status=mixed)
    other = reopened(kind, tmp_path)
    assert [row.status for row in other.rows(RunQuery())] == [mixed, mixed]
    assert other.get(one)[1] == other.get(two)[1] == mixed
    other.close()
    log.set_status(one, SUCCEEDED)
    assert log.get(one)[1] == SUCCEEDED


def test_which_nodes_do_not_answer_is_kept_and_listed(log: ClosableRunLog) -> None:
    [one] = _with_runs(log, 1)
    nine, ten = "2026-11-28T09:00:00.000Z", "2026-11-28T10:00:00.000Z"
    silent = SUCCEEDED._replace(unreachable=(Silence("gpu01", nine, nine), Silence("gpu\udcff", ten, ten)))
    log.set_status(one, SUCCEEDED)
    for silence in silent.unreachable:
        log.set_unreachable(one, silence.node, silence)
    assert log.get(one)[1] == silent
    log.set_status(one, SUCCEEDED)  # another collector's, who has not seen it
    assert log.get(one)[1] == silent
    assert log.rows(RunQuery())[0].status == silent
    log.set_unreachable(one, "gpu01", Silence("gpu01", ten, ten))
    assert log.get(one)[1].unreachable[0] == Silence("gpu01", nine, ten)
    log.set_unreachable(one, "gpu01", Silence("gpu01", nine, nine))  # by who was slower
    assert log.get(one)[1].unreachable[0] == Silence("gpu01", nine, ten)
    log.set_unreachable(one, "gpu01", None)
    log.set_unreachable(one, "another", None)
    assert log.get(one)[1].unreachable == silent.unreachable[1:]
    log.set_unreachable(one, "gpu\udcff", None)
    assert log.get(one)[1] == SUCCEEDED


def test_threads_may_share_one(log: ClosableRunLog) -> None:
    runs = _with_runs(log, *range(1, 9))

    def write(run_id: str) -> None:
        for _ in range(10):
            log.set_status(run_id, RUNNING)
            log.set_view(AttemptRef(run_id, 1), "n", {}, was=0, now=0, status=SUCCEEDED)
            assert log.get(run_id)[1] == SUCCEEDED

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, runs))


def test_a_store_from_before_lineage_keeps_its_runs_and_files(
    log: ClosableRunLog, kind: str, tmp_path: Path
) -> None:
    if kind != "sqlite":
        pytest.skip("migrations are of the database")
    [one] = _with_runs(log, 1)
    log.add_artifacts([_artifact(one, "model\udcff.pt")])
    log.set_status(one, SUCCEEDED)
    log.close()
    old = sqlite3.connect(tmp_path / "home" / "runlog.sqlite3", isolation_level=None)
    for statement in (
        "DROP TABLE child",
        "ALTER TABLE run DROP COLUMN unreachable",
        "ALTER TABLE run DROP COLUMN mixed",
        "ALTER TABLE artifact DROP COLUMN step",
        "PRAGMA user_version = 2",
    ):
        old.execute(statement)
    old.close()
    migrated = reopened(kind, tmp_path)
    assert migrated.artifacts("ab" * 32) == [_artifact(one, "model\udcff.pt")]
    assert migrated.get(one) == (make_run(1), SUCCEEDED)
    assert migrated.children(one) == []
    migrated.add_artifacts([_artifact(one, "new.pt", "cd" * 32, "checkpoint")._replace(step=4)])
    assert [a.step for a in migrated.artifacts_of(one, ("checkpoint",))] == [4]
    migrated.add(make_run(2)._replace(parent=_parent(one, "resume")), QUEUED)
    assert migrated.children(one) == [(make_run(2).id, "resume")]
    migrated.close()
    check_integrity(kind, tmp_path / "home")
