from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from mllaunch.domain.job import JobSpec, Resources
from mllaunch.domain.run import Run, RunStatus
from mllaunch.domain.snapshot import Snapshot
from mllaunch.domain.state import State
from mllaunch.errors import InternalError, MllaunchError, NameTaken, NotFound, Unreachable
from mllaunch.ports import AttemptRef
from mllaunch.usecases import submit
from mllaunch_agent.protocol import TaskSpec

GITHUB = "ghp_" + "n8Kd72LmQp4Rt6Vw9Xz1Bc3Df5Gh7Jk0AbCd"
SNAPSHOT = Snapshot("c" * 40, "t" * 40, "c" * 40, False, (), "main", "/repo", "/repo/.git", None, "refs/x")
ENVIRON = {"PATH": "/bin", "HF_TOKEN": "a token of six words only"}


class Ids:
    def __init__(self) -> None:
        self._names: Iterator[str] = iter(["brave-otter-1", "calm-fox-2", "dry-owl-3"] + ["last-gnu-4"] * 100)

    def run_id(self) -> str:
        return "01a1fda8-4fdf-7b40-87d1-8265aab3f1cc"

    def run_name(self) -> str:
        return next(self._names)


class Clock:
    def now(self) -> str:
        return "2026-01-01T00:00:00.000Z"


class Log:
    """The part of a run log that a submission writes to."""

    def __init__(self, *taken: str) -> None:
        self.taken = set(taken)
        self.statuses: list[tuple[str, RunStatus]] = []
        self.run: Run | None = None

    def add(self, run: Run, status: RunStatus) -> None:
        if run.name in self.taken:
            raise NameTaken(run.name)
        self.statuses.append((run.name, status))
        self.run = run

    def get(self, run_id: str) -> tuple[Run, RunStatus]:
        if self.run is None:
            raise NotFound("run", "there is none")
        return self.run, self.statuses[-1][1]

    def set_status(self, run_id: str, status: RunStatus) -> None:
        self.statuses.append((run_id, status))

    def note_started(self, run_id: str) -> None:
        self.statuses.append((run_id, RunStatus(State.QUEUED)))


def job(**changes: Any) -> JobSpec:
    made = JobSpec(("python", "train.py"), "train.py", (), "", Resources(), "digits")
    return made._replace(**changes)


def made(asked: JobSpec) -> Run:
    return submit.make_run(asked, SNAPSHOT, submit.Submitter("ann", "here"), ENVIRON, Ids(), Clock())


def test_a_run_records_who_asked_for_what_and_when() -> None:
    run = made(job(args=("--lr", "3e-4")))
    assert (run.name, run.submitted_at) == ("brave-otter-1", "2026-01-01T00:00:00.000Z")
    assert (run.submitted_by_user, run.submitted_by_host) == ("ann", "here")
    assert run.params == (("lr", "3e-4"),)


def test_secrets_are_masked_in_the_record_and_whole_in_what_the_task_gets() -> None:
    typed = ("--token", GITHUB, ENVIRON["HF_TOKEN"])
    asked = job(
        argv=("python", "train.py", *typed),
        args=typed,
        note=f"with {GITHUB}",
        environment=(("API_KEY", "short"), ("PLAIN", f"x{ENVIRON['HF_TOKEN']}")),
    )
    run = made(asked)
    assert GITHUB not in repr(run) and ENVIRON["HF_TOKEN"] not in repr(run) and "short" not in repr(run)
    assert [len(word) for word in run.spec.argv[:2]] == [6, 8]
    spec = task_spec(run, asked)
    assert spec["argv"] == ["python", "train.py", *typed]
    assert spec["environment"] == {**ENVIRON, "API_KEY": "short", "PLAIN": f"x{ENVIRON['HF_TOKEN']}"}
    assert set(spec["secrets"]) >= {"short", ENVIRON["HF_TOKEN"]}


def task_spec(run: Run, asked: JobSpec) -> TaskSpec:
    known = {
        "node": "n", "folder": "/attempt", "cache": "/cache", "lease_dir": None, "import_path": ["/site"]
    }  # fmt: skip
    place = submit.Place(**{name: known[name] for name in submit.Place._fields})  # type: ignore[arg-type]
    return submit.task_spec(run, asked, "/tree", place, ENVIRON, "/usr/bin/python")


def test_the_task_is_told_its_place_and_limits() -> None:
    asked = job(
        resources=Resources(gpus=2, procs_per_node=0), data=("data/train",), timeout_s=60.0, grace_s=5.0
    )
    spec = task_spec(made(asked), asked)
    assert spec["tasks"] == [{"rank": 0, "local_rank": 0}, {"rank": 1, "local_rank": 1}]
    assert (spec["world_size"], spec["gpus"], spec["timeout_s"], spec["grace_s"]) == (2, 2, 60.0, 5.0)
    assert spec["data"] == [{"path": "data/train", "source": "/repo/data/train"}]
    assert (spec["tree"], spec["in_place"]) == ("/tree", None)


def test_a_run_in_place_is_compared_with_the_kept_tree_and_has_no_checkout() -> None:
    asked = job(in_place=True)
    spec = task_spec(made(asked), asked)
    assert (spec["tree"], spec["in_place"]) == ("/tree", "/repo")


def test_a_name_that_is_taken_is_replaced_unless_it_was_chosen() -> None:
    ids = Ids()
    log: Any = Log("brave-otter-1", "calm-fox-2")
    run = submit.make_run(job(), SNAPSHOT, submit.Submitter("ann", "here"), ENVIRON, ids, Clock())
    assert submit.add(log, run, ids, None).name == "dry-owl-3"
    assert log.statuses == [("dry-owl-3", RunStatus(State.PACKAGING))]
    with pytest.raises(NameTaken):
        submit.add(log, run, ids, "brave-otter-1")
    with pytest.raises(MllaunchError, match="no free name"):
        submit.add(Log("brave-otter-1", "last-gnu-4"), run, ids, None)  # type: ignore[arg-type]


class Willing:
    """A scheduler that starts what it is given."""

    def start(self, spec: TaskSpec) -> None:
        pass


class Full(Log):
    """A run log whose disk is full by the time of the start."""

    def note_started(self, run_id: str) -> None:
        raise InternalError("disk_full", "no space left on device")


def test_a_run_that_was_handed_over_is_queued() -> None:
    log: Any = Log()
    scheduler: Any = Willing()
    run = made(job())
    submit.start(log, scheduler, Clock(), run, task_spec(run, job()))
    assert log.statuses == [(run.id, RunStatus(State.QUEUED))]


def test_a_start_is_not_said_to_have_failed_because_it_could_not_be_noted() -> None:
    log: Any = Full()
    scheduler: Any = Willing()
    run = made(job())
    submit.start(log, scheduler, Clock(), run, task_spec(run, job()))
    assert log.statuses == []


class Broken:
    """A scheduler that cannot start anything, or cannot say whether it has."""

    def __init__(self, has_perhaps_started: bool) -> None:
        self._has_perhaps_started = has_perhaps_started

    def start(self, spec: TaskSpec) -> None:
        raise InternalError("agent_start", "the agent did not take the run")

    def withdraw(self, attempt: AttemptRef) -> bool:
        return not self._has_perhaps_started


def test_a_start_that_fails_is_on_record_as_the_runs_end() -> None:
    log: Any = Log()
    run = made(job())
    scheduler: Any = Broken(has_perhaps_started=False)
    with pytest.raises(InternalError) as caught:
        submit.start(log, scheduler, Clock(), run, task_spec(run, job()))
    ((run_id, status),) = log.statuses
    assert (run_id, status.state, status.seal) == (run.id, State.FAILED, "unsealed")
    assert status.ended_at == Clock().now()
    assert caught.value.evidence == (f"{run.name} is on record as failed",)
    assert status.reason is not None and status.reason.origin == "launcher"


def test_a_start_that_may_have_succeeded_all_the_same_is_left_to_the_collector() -> None:
    log: Any = Log()
    run = made(job())
    scheduler: Any = Broken(has_perhaps_started=True)
    with pytest.raises(InternalError, match=f"{run.name} may have started all the same") as caught:
        submit.start(log, scheduler, Clock(), run, task_spec(run, job()))
    assert log.statuses == []
    assert run.name in (caught.value.hint or "")


class Interrupted:
    """A scheduler in the midst of whose start Ctrl-C comes. can_withdraw: what it then says, or raises."""

    def __init__(self, can_withdraw: bool | MllaunchError) -> None:
        self._can_withdraw = can_withdraw

    def start(self, spec: TaskSpec) -> None:
        raise KeyboardInterrupt

    def withdraw(self, attempt: AttemptRef) -> bool:
        if isinstance(self._can_withdraw, MllaunchError):
            raise self._can_withdraw
        return self._can_withdraw


@pytest.mark.parametrize("is_on_its_way", [False, True])
def test_a_run_that_was_interrupted_before_its_start_is_withdrawn(is_on_its_way: bool) -> None:
    log: Any = Log()
    run = submit.add(log, made(job()), Ids(), None)
    scheduler: Any = Interrupted(can_withdraw=True)
    if is_on_its_way:
        with pytest.raises(KeyboardInterrupt):
            submit.start(log, scheduler, Clock(), run, task_spec(run, job()))
    said = submit.give_up(log, scheduler, Clock(), run.id)
    assert said is not None and said.exit_code == 130
    assert said.message == f"Interrupted; {run.name} was withdrawn, and nothing was started"
    run_id, status = log.statuses[-1]
    assert (run_id, status.state, status.seal) == (run.id, State.CANCELLED, "unsealed")
    assert status.ended_at == Clock().now()


@pytest.mark.parametrize("answer", [False, Unreachable("unreachable", "a is away")])
def test_a_run_that_may_have_started_when_it_was_interrupted_is_named(answer: bool | MllaunchError) -> None:
    log: Any = Log()
    run = submit.add(log, made(job()), Ids(), None)
    scheduler: Any = Interrupted(answer)
    said = submit.give_up(log, scheduler, Clock(), run.id)
    assert said is not None
    assert said.message == (
        f"Interrupted; {run.name} was submitted and goes on, or is given up by itself."
        f"   look: mllaunch show {run.name}   end: mllaunch stop {run.name}"
    )
    assert log.statuses[-1][1] == RunStatus(State.PACKAGING)


def test_of_a_run_that_is_not_on_record_there_is_nothing_to_say_after_ctrl_c() -> None:
    log: Any = Log()
    scheduler: Any = Interrupted(can_withdraw=True)
    assert submit.give_up(log, scheduler, Clock(), "never-added") is None
    assert log.statuses == []
