"""Which checkpoint a run is resumed from, and with which arguments: rules on values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mllaunch.domain.job import Resources
from mllaunch.domain.run import Parent, Run, RunStatus
from mllaunch.domain.state import State
from mllaunch.errors import MllaunchError, NotFound, UsageError
from mllaunch.usecases.resume import (
    RESUME,
    WEIGHTS,
    Candidate,
    Found,
    arguments,
    candidates,
    check_has,
    check_may_resume,
    choose,
    differences,
    environment_of,
    job_of,
    params_of,
    parent_of,
    resized,
)
from tests.unit.provenance.records import RUN, SPEC


def output(path: str, step: int | None = None, **fields: Any) -> dict[str, Any]:
    """An output as a provenance document has it."""
    known = {
        "path": path,
        "attempt": 1,
        "node": "gpu01",
        "digest": "sha256:" + "a" * 64,
        "size_bytes": 700,
        "step": step,
        "written_at": "2026-11-21T09:00:00Z",
        "form": "file",
        "kind": "checkpoint",
        "replaced": False,
    }
    return {**known, **fields}


def paths(*outputs: dict[str, Any]) -> list[str]:
    return [candidate.path for candidate in candidates(outputs)]


def started(*args: str, checkpoint: tuple[str, ...] = (), **fields: Any) -> Run:
    """A run with these arguments, of which some name the checkpoint that it was itself started from."""
    spec = SPEC._replace(argv=("/usr/bin/python3", "train.py", *args), args=args)
    run = RUN._replace(spec=spec, params=fields.pop("params", ()))
    if checkpoint:
        parent = Parent("p", "old-elk-1", RESUME, 1, 2, "m.pt", "a" * 64, "c" * 40, args=checkpoint)
        run = run._replace(parent=parent)
    return run


# --- candidates -----------------------------------------------------------------------------------------------------


def test_only_checkpoints_that_are_still_there_are_candidates() -> None:
    found = paths(
        output("a.pt", 1), output("log", kind="file"), output("a.pt", 0, replaced=True), output("b.pt", 2)
    )
    assert found == ["b.pt", "a.pt"]


def test_one_with_a_step_is_preferred_to_a_newer_one_without() -> None:
    late = "2026-11-21T10:00:00Z"
    assert paths(output("export.pt", None, written_at=late), output("m.pt", 3)) == ["m.pt", "export.pt"]


def test_the_newest_is_first_whatever_its_step() -> None:
    old, new = "2026-11-21T09:00:00Z", "2026-11-21T09:30:00Z"
    assert paths(output("a", 9, written_at=old), output("b", 1, written_at=new)) == ["b", "a"]
    assert paths(output("a", 1), output("b", 2)) == ["b", "a"]  # at the same moment the step counts
    assert paths(output("a", 9, written_at=new), output("b", 1, written_at=old, attempt=2)) == ["b", "a"]


def test_a_file_within_a_checkpoint_of_many_files_is_none_by_itself() -> None:
    found = paths(
        output("out/step2/rank0.pt", 2),
        output("out/step2", 2, form="folder"),
        output("out/step20.pt", 1),
        output("out/step2/deep/rank1.pt", 2, node="gpu02"),  # where no such folder is known
    )
    assert sorted(found) == ["out/step2", "out/step2/deep/rank1.pt", "out/step20.pt"]


def test_one_that_was_torn_is_a_candidate_without_a_digest() -> None:
    [torn] = candidates([output("a.pt", 1, digest=None)])
    assert torn.sha256 is None
    [whole] = candidates([output("a.pt", 1)])
    assert whole == Candidate("a.pt", 1, "gpu01", "a" * 64, 700, 1, "2026-11-21T09:00:00Z", is_folder=False)


# --- choose ---------------------------------------------------------------------------------------------------------


def verifier(faults: dict[str, str]) -> Callable[[Candidate], Found | str]:
    """Finds every checkpoint whole, but for these."""

    def verify(candidate: Candidate) -> Found | str:
        return faults.get(candidate.path) or Found(candidate, f"/work/{candidate.path}", [[1]])

    return verify


STEPS = candidates([output("m1", 1), output("m2", 2), output("m3", 3)])


def test_the_first_whole_one_is_chosen_and_others_are_passed_over_in_words() -> None:
    torn = [Candidate("m4", 1, "gpu01", None, None, 4, None, is_folder=False)]
    found, passed = choose(RUN, [*torn, *STEPS], None, verifier({"m3": "it is not there any more"}))
    assert found.candidate.path == "m2"
    assert passed == [
        "m4 (step 4): it was being written when the run ended",
        "m3 (step 3): it is not there any more",
    ]


def test_nothing_more_is_verified_once_one_is_whole() -> None:
    seen = []

    def verify(candidate: Candidate) -> Found:
        seen.append(candidate.path)
        return Found(candidate, "", [])

    choose(RUN, STEPS, None, verify)
    assert seen == ["m3"]


def test_a_step_that_was_asked_for_is_never_replaced_by_another() -> None:
    found, passed = choose(RUN, STEPS, 1, verifier({"m3": "gone"}))
    assert (found.candidate.path, passed) == ("m1", [])
    with pytest.raises(MllaunchError) as caught:
        choose(RUN, STEPS, 3, verifier({"m3": "gone"}))
    assert (caught.value.code, caught.value.exit_code) == ("no_whole_checkpoint", 1)
    assert caught.value.evidence == ("m3 (step 3): gone",)


def test_a_step_that_is_not_there_lists_those_that_are() -> None:
    with pytest.raises(NotFound) as caught:
        check_has(RUN, STEPS, 7)
    assert (caught.value.code, caught.value.evidence) == ("no_such_step", ("steps: 1, 2, 3",))
    many = candidates([output(f"m{step}", step) for step in range(1000)])
    with pytest.raises(NotFound) as caught:
        check_has(RUN, many, 5000)
    assert len(caught.value.evidence[0]) < 200
    assert "999" in caught.value.evidence[0]  # the newest are of more use than the oldest


def test_a_step_cannot_be_chosen_where_none_is_known() -> None:
    with pytest.raises(NotFound) as caught:
        check_has(RUN, candidates([output("m")]), 7)
    assert caught.value.evidence == ("of its checkpoints no step is known",)
    assert "leave out --step" in (caught.value.hint or "")


@pytest.mark.parametrize("step", [None, 1])
def test_a_run_that_wrote_no_checkpoint_says_so(step: int | None) -> None:
    with pytest.raises(NotFound) as caught:
        check_has(RUN, [], step)
    assert caught.value.code == "no_checkpoint"


@pytest.mark.parametrize("state", State)
def test_only_what_has_ended_is_resumed_while_weights_may_be_taken_any_time(state: State) -> None:
    status = RunStatus(state)
    check_may_resume(RUN, status, WEIGHTS)
    if state.is_final:
        check_may_resume(RUN, status, RESUME)
    else:
        with pytest.raises(UsageError) as caught:
            check_may_resume(RUN, status, RESUME)
        assert "--from-weights" in (caught.value.hint or "")


# --- arguments ------------------------------------------------------------------------------------------------------


def test_arguments_are_the_parents_then_the_checkpoints_then_the_extra_ones() -> None:
    args, own = arguments(started("--lr", "1"), ["--resume", "{checkpoint}"], "/c/m.pt", ["--seed", "2"])
    assert args == ("--lr", "1", "--resume", "/c/m.pt", "--seed", "2")
    assert own == ("--resume", "/c/m.pt")
    assert arguments(started("--lr", "1"), [], "/c/m.pt", []) == (("--lr", "1"), ())


def test_what_named_the_parents_own_checkpoint_is_left_out() -> None:
    run = started(
        "--lr", "1", "--resume", "/old", "--more", "x", "--resume", "/old", checkpoint=("--resume", "/old")
    )
    args, _ = arguments(run, ["--resume={checkpoint}"], "/new", [])
    assert args == (
        "--lr",
        "1",
        "--more",
        "x",
        "--resume",
        "/old",
        "--resume=/new",
    )  # once: it was added once


def test_arguments_of_which_the_checkpoints_are_no_part_stay_as_they_are() -> None:
    run = started("--lr", "1", checkpoint=("--resume", "/old"))
    assert arguments(run, [], "/new", [])[0] == ("--lr", "1")
    assert arguments(started(checkpoint=("--resume", "/old")), [], "/new", [])[0] == ()


def test_a_checkpoint_may_be_named_within_an_argument_and_its_path_is_never_a_template() -> None:
    args, _ = arguments(started(), ["a={checkpoint}:{checkpoint}"], "/c/{checkpoint}", [])
    assert args == ("a=/c/{checkpoint}:/c/{checkpoint}",)


def test_the_job_is_the_parents_with_other_arguments_and_without_its_note() -> None:
    run = started("--lr", "1")
    run = run._replace(spec=run.spec._replace(note="mine", tags=("a",)))
    job = job_of(run, ("--lr", "2"), [("A", "b")], timeout_s=5.0)
    assert job.argv == ("/usr/bin/python3", "train.py", "--lr", "2")
    assert (job.args, job.note, job.tags, job.timeout_s) == (("--lr", "2"), None, (), 5.0)
    assert job.environment == (("A", "b"),)
    assert (job.data, job.resources, job.script) == (run.spec.data, run.spec.resources, "train.py")
    bare = job_of(started(), ("x",), [])
    assert bare.argv == ("/usr/bin/python3", "train.py", "x")


# --- parameters -----------------------------------------------------------------------------------------------------


def test_parameters_are_the_parents_but_for_what_is_given_now() -> None:
    run = started(
        "--lr",
        "1",
        "--resume",
        "/old",
        checkpoint=("--resume", "/old"),
        params=(("lr", "1"), ("seed", "3"), ("resume", "/old")),
    )
    assert params_of(run, ["--init", "/new"], ["--lr", "2"]) == (("lr", "2"), ("seed", "3"), ("init", "/new"))


def test_differences_are_of_parameters_and_not_of_checkpoints() -> None:
    run = started(checkpoint=("--resume", "/old"), params=(("lr", "1"), ("resume", "/old"), ("seed", "3")))
    own = ["--resume", "/new"]
    assert differences(run, params_of(run, own, []), own) == ()
    changed = differences(run, params_of(run, own, ["--lr", "2", "--fast"]), own)
    assert changed == (("lr", "1", "2"), ("fast", None, "true"))
    assert differences(run, (("lr", "1"),), own) == (("seed", "3", None),)


def test_the_edge_says_what_it_starts_from_and_in_what_it_differs() -> None:
    [candidate] = candidates([output("m.pt", 4, attempt=2)])
    edge = parent_of(RUN, WEIGHTS, candidate, ("--init", "/c"), [("lr", "1", "2")], ["train.py +1 -0"])
    assert edge == Parent(
        RUN.id,
        RUN.name,
        WEIGHTS,
        2,
        4,
        "m.pt",
        "a" * 64,
        RUN.snapshot.commit,
        (("lr", "1", "2"),),
        ("train.py +1 -0",),
        ("--init", "/c"),
    )


# --- variables ------------------------------------------------------------------------------------------------------


def with_variables(*pairs: tuple[str, str]) -> Run:
    return RUN._replace(spec=SPEC._replace(environment=pairs))


def test_variables_are_the_parents_and_what_is_given_now() -> None:
    run = with_variables(("COLOUR", "red"), ("SIZE", "1"))
    found = environment_of(run, [("SIZE", "2"), ("HERE", None), ("UNSET", None)], {"HERE": "3"})
    assert found == [("COLOUR", "red"), ("SIZE", "2"), ("HERE", "3")]


def test_a_secret_comes_from_here_or_is_asked_for() -> None:
    run = with_variables(("TOKEN", "********"), ("EMPTY", ""))
    assert environment_of(run, [], {"TOKEN": "s3"}) == [("TOKEN", "s3"), ("EMPTY", "")]
    assert environment_of(run, [("TOKEN", "s4")], {"TOKEN": "s3"}) == [("TOKEN", "s4"), ("EMPTY", "")]
    assert environment_of(run, [("TOKEN", None)], {"TOKEN": "s3"}) == [("TOKEN", "s3"), ("EMPTY", "")]
    for given in ([], [("TOKEN", None)]):
        with pytest.raises(UsageError) as caught:
            environment_of(run, given, {})
        assert "--env TOKEN=VALUE" in (caught.value.hint or "")


def test_a_value_of_which_a_part_was_masked_is_no_value_either() -> None:
    run = with_variables(("DATABASE_URL", "postgres://me:***@host/db"), ("GLOB", "*.csv"))
    with pytest.raises(UsageError):
        environment_of(run._replace(redacted=("DATABASE_URL",)), [], {})


def test_stars_that_somebody_typed_may_be_given_again() -> None:
    assert environment_of(with_variables(("PATTERN", "*")), [("PATTERN", "*")], {}) == [("PATTERN", "*")]


# --- secrets among the arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (("--api-key", "***", "--lr", "1"), "--api-key"),
        (("--lr", "1", "--api-key=***********"), "--api-key"),
        (("API_KEY=****", "--lr", "1"), "API_KEY"),
        (("--url", "https://********@host", "--lr", "1"), "an argument"),
    ],
)
def test_a_secret_argument_was_not_recorded_and_is_asked_for(args: tuple[str, ...], name: str) -> None:
    with pytest.raises(UsageError) as caught:
        arguments(started(*args), [], "/c", ["--lr", "2"])
    assert f"the value of {name} was not recorded" in caught.value.message
    assert caught.value.hint


def test_a_secret_argument_that_is_given_again_takes_the_old_ones_place() -> None:
    for old in (("--api-key", "***"), ("--api-key=***",)):
        args, _ = arguments(started("--lr", "1", *old, "x"), [], "/c", ["--api-key", "new"])
        assert args == ("--lr", "1", "x", "--api-key", "new")
    assert arguments(started("API_KEY=***"), [], "/c", ["API_KEY=new"])[0] == ("API_KEY=new",)


def test_stars_that_are_no_mask_stay() -> None:
    typed = ("*", "--glob", "**", "--num-keys", "***", "--api-key", "--verbose", "--password=")
    assert arguments(started(*typed), [], "/c", [])[0] == typed


def test_other_tasks_than_the_parents_are_told() -> None:
    run = RUN._replace(spec=SPEC._replace(resources=Resources(gpus=2, nodes=3, procs_per_node=0)))
    assert resized(run, Resources(gpus=2, nodes=3, procs_per_node=2)) is None
    assert resized(run, Resources(nodes=1, procs_per_node=0)) == (
        f"1 task on 1 node; {run.name} had 6 tasks on 3 nodes"
    )
