"""The provenance document: its form is a product, and it never claims more than is known."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mllaunch.domain.image import Lock
from mllaunch.domain.provenance import SCHEMA, document
from mllaunch.domain.run import RunStatus
from mllaunch.domain.state import Reason, State

from . import records

HERE = Path(__file__).parent
VERSION = SCHEMA.rpartition("/")[2]
# UPDATE_GOLDEN=1 writes the golden files anew. It adds keys; it never lets one go under the same number.
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"
_MAPS = ("command.params", "environment.variables")  # their keys are the user's


def keys(value: Any, path: str = "") -> Iterator[str]:
    """Every key of a document, as ``hosts[].cpu.model``."""
    if isinstance(value, dict) and path not in _MAPS:
        for name, inner in value.items():
            here = f"{path}.{name}" if path else name
            yield here
            yield from keys(inner, here)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, f"{path}[]")


def golden_keys() -> list[str]:
    return (HERE / f"keys-{VERSION}.txt").read_text().splitlines()


def test_no_key_appears_or_goes_without_the_golden_list_knowing() -> None:
    found = sorted(set(keys(document(records.full()))))
    path = HERE / f"keys-{VERSION}.txt"
    if UPDATE:
        lost = set(golden_keys()) - set(found) if path.exists() else set()
        assert not lost, f"a key that goes needs the schema after {SCHEMA}: {sorted(lost)}"
        path.write_text("".join(f"{key}\n" for key in found))
    assert found == golden_keys(), "UPDATE_GOLDEN=1 accepts added keys"


def test_the_document_of_a_full_record_is_the_golden_one() -> None:
    text = json.dumps(document(records.full()), indent=1) + "\n"
    path = HERE / "golden.json"
    if UPDATE:
        path.write_text(text)
    assert text == path.read_text(), "UPDATE_GOLDEN=1 accepts it, if docs/provenance.md agrees"


def test_every_key_of_the_contract_is_there_whatever_is_known() -> None:
    whole = set(document(records.full()))
    for found in (records.recorded({}), records.recorded({(1, "gpu01"): records.view("gpu01")})):
        made = document(found)
        assert set(made) == whole
        for part in ("run", "command", "code", "environment", "lineage", "seal"):
            assert set(made[part]) == set(document(records.full())[part])


def test_an_attempt_that_runs_began_when_it_did_not_when_the_first_one_did() -> None:
    first = records.sealed(records.view("gpu01", *records.begun(), *records.ended("failed", 3)))
    second = records.view("gpu01", *records.begun(), minute=5)
    made = document(records.recorded({(1, "gpu01"): first, (2, "gpu01"): second}))
    started = [attempt["started_at"] for attempt in made["attempts"]]
    assert started == ["2026-11-21T09:00:04.000Z", "2026-11-21T09:05:04.000Z"]
    waits = records.recorded({(1, "gpu01"): first, (2, "gpu01"): records.view("gpu01", records.begun()[0])})
    assert document(waits)["attempts"][1]["started_at"] is None


def test_what_is_null_or_empty_for_lack_of_a_recorder_is_listed_with_its_reason() -> None:
    sealed = records.sealed(records.view("gpu01", *records.begun(), *records.ended()))
    made = document(records.recorded({(1, "gpu01"): sealed}))
    said = " ".join(entry["what"] for entry in made["not_captured"])
    for part, empty in {
        "code.nodes": made["code"]["nodes"],
        "environment.image": made["environment"]["image"],
        "environment.lock": made["environment"]["lock"],
        "inputs": made["inputs"][0]["opened_at"],
        "lineage": made["lineage"]["parents"] + made["lineage"]["children"],
    }.items():
        assert not empty
        assert part in said
    assert all(entry["why"] for entry in made["not_captured"])


def test_a_lock_that_nodes_have_installed_from_is_recorded_and_not_missed() -> None:
    begun = records.recorded({(1, "gpu01"): records.view("gpu01", *records.begun())})
    lock = Lock("uv.lock", "sha256:" + "1" * 64, resolved=False)
    made = document(begun._replace(run=begun.run._replace(lock=lock)))
    assert made["environment"]["lock"] == lock._asdict()
    assert not [entry for entry in made["not_captured"] if "environment.lock" in entry["what"]]


def test_what_the_agent_could_not_record_is_passed_on_with_its_place() -> None:
    entries = document(records.full())["not_captured"]
    [energy] = [entry for entry in entries if entry["what"] == "energy"]
    assert energy == {
        "what": "energy",
        "why": "the driver does not say",
        "attempt": 2,
        "node": "gpu01",
    }
    said = [entry["what"] for entry in entries]
    assert "4096 bytes of stdout.0 from offset 0 on" in said
    assert any("outputs/log" in what for what in said)
    assert "telemetry" in said


def test_an_attempt_that_ended_before_its_facts_were_taken_says_so() -> None:
    started, ended = records.begun()[:4], records.ended()[:2]
    view = records.sealed(records.view("gpu01", *started, *ended))
    del view["seal"]["streams"]["files"]
    made = document(records.recorded({(1, "gpu01"): view}))
    said = " ".join(entry["what"] for entry in made["not_captured"])
    for part in (
        "hosts,",
        "environment.python",
        "outputs: what the attempt wrote",
        "usage.read_bytes",
        "usage.gpu",
    ):
        assert part in said
    assert made["hosts"][0]["memory_bytes"] is None
    assert made["usage"]["read_bytes"] is None
    assert made["usage"]["cpu_s"] == 90.0  # the exit record knows


def test_gpus_of_which_no_sample_says_anything_are_not_taken_for_tasks_that_ended_too_soon() -> None:
    view = records.sealed(records.view("gpu01", *records.begun(), *records.ended()))
    silent = {**view, "usage": {**records.USAGE, "gpu": None}}
    entries = document(records.recorded({(1, "gpu01"): silent}))["not_captured"]
    [entry] = [entry for entry in entries if "usage" in entry["what"]]
    assert (entry["what"], entry["why"]) == (
        "usage.gpu: what the GPUs did",
        "no sample of them gave a value",
    )


def test_a_command_without_python_has_none_and_the_reason_is_that() -> None:
    bare = records.RUN._replace(spec=records.SPEC._replace(script=None))
    events = [event for event in records.begun() if event[0] != "python"]
    view = records.sealed(records.view("gpu01", *events, *records.ended()))
    made = document(records.recorded({(1, "gpu01"): view}, run=bare))
    assert made["environment"]["python"] is None
    [why] = [e["why"] for e in made["not_captured"] if e["what"].startswith("environment.python")]
    assert why == "the command is not a Python script"


def test_a_run_in_place_is_marked_as_such() -> None:
    run = records.RUN._replace(spec=records.SPEC._replace(in_place=True))
    assert document(records.recorded({}, run=run))["code"]["in_place"] is True


def test_a_running_run_has_no_digest_that_could_still_change() -> None:
    made = document(
        records.recorded(
            {(1, "gpu01"): records.view("gpu01", *records.begun())}, lengths={(1, "gpu01", "stdout.0"): 5}
        )
    )
    assert made["run"]["state"] == "running"
    assert made["seal"] == {"status": None, "events": 12, "sha256": None}
    assert made["logs"] == [
        {
            "node": "gpu01",
            "rank": 0,
            "attempt": 1,
            "stream": "stdout",
            "through": "files",
            "size_bytes": 5,
            "sha256": None,
            "gaps": [],
        }
    ]
    assert "the run is running" in [entry["why"] for entry in made["not_captured"]]


def test_the_seal_of_a_run_is_the_weakest_of_its_attempts() -> None:
    made = document(records.full())
    assert made["seal"]["status"] == "sealed-with-gaps"  # the first attempt's; the second is complete
    assert made["seal"]["sha256"] == "e" * 64


def test_attempts_tell_how_each_ended_and_the_newest_agrees_with_the_run() -> None:
    first, second = document(records.full())["attempts"]
    assert (first["number"], first["state"], first["exit_code"]) == (1, "failed", 3)
    assert first["reason"]["message"] == "exited with 3"
    assert (second["number"], second["state"], second["exit_code"]) == (2, "succeeded", 0)
    assert second["nodes"] == ["gpu01"]


def test_an_attempt_whose_node_is_gone_ended_as_the_run_did() -> None:
    lost = Reason("folder_lost", "what the node kept of this run is gone", "infrastructure")
    status = RunStatus(State.FAILED, lost, ended_at="2026-11-21T10:00:00.000Z", seal="unsealed")
    made = document(records.recorded({(1, "gpu01"): records.view("gpu01", *records.begun())}, status=status))
    [attempt] = made["attempts"]
    assert attempt["state"] == "failed"
    assert attempt["reason"]["code"] == "folder_lost"
    assert made["seal"]["status"] == "unsealed"
    assert any("never sealed" in entry["why"] for entry in made["not_captured"])


def test_a_failed_attempt_that_a_retry_follows_is_shown_as_failed_in_a_queued_run() -> None:
    made = document(
        records.recorded({(1, "gpu01"): records.view("gpu01", *records.begun(), *records.ended("failed", 1))})
    )
    assert made["run"]["state"] == "queued"
    assert made["attempts"][0]["state"] == "failed"


def test_data_that_several_attempts_saw_alike_is_one_input_and_otherwise_two() -> None:
    same = [entry for entry in document(records.full())["inputs"] if entry["path"] == "data/train"]
    assert len(same) == 1
    assert same[0]["changed"]["modified"] == {"count": 1, "first": ["a.csv"]}
    events = [(k, {**f, "digest": "9" * 64} if k == "data" else f) for k, f in records.begun()]
    other = {
        (1, "gpu01"): records.view("gpu01", *records.begun()),
        (2, "gpu01"): records.view("gpu01", *events),
    }
    assert [entry["digest"][:8] for entry in document(records.recorded(other))["inputs"]] == [
        "sha256:d",
        "sha256:9",
    ]


def test_the_same_record_gives_the_same_document() -> None:
    assert document(records.full()) == document(records.full())
