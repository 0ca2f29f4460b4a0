from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch.domain.image import Lock
from mllaunch.domain.job import JobSpec, Resources
from mllaunch.domain.run import Run
from mllaunch.domain.snapshot import Snapshot
from mllaunch.domain.state import Reason
from mllaunch.errors import InternalError
from mllaunch.runlog.codec import decode_reason, decode_run, encode_reason, encode_run
from tests.conformance.runs import make_run

# All that the operating system can hand over: any Unicode, and bytes that were not UTF-8 as U+DC80..U+DCFF.
TEXT = st.text(
    st.characters(exclude_categories=["Cs"]) | st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF)
)
TEXTS = st.lists(TEXT, max_size=4).map(tuple)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=4).map(tuple)
RESOURCES = st.builds(
    Resources,
    st.integers(),
    st.none() | st.integers(),
    st.none() | st.integers(),
    st.integers(),
    st.integers(),
)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SPECS = st.builds(
    JobSpec,
    argv=TEXTS,
    script=st.none() | TEXT,
    args=TEXTS,
    workdir=TEXT,
    resources=RESOURCES,
    project=TEXT,
    in_place=st.booleans(),
    data=TEXTS,
    environment=PAIRS,
    note=st.none() | TEXT,
    tags=TEXTS,
    max_retries=st.integers(),
    timeout_s=st.none() | FLOATS,
    grace_s=FLOATS,
)
SNAPSHOTS = st.builds(
    Snapshot, TEXT, TEXT, TEXT, st.booleans(), TEXTS, st.none() | TEXT, TEXT, TEXT, st.none() | TEXT, TEXT
)
LOCKS = st.builds(Lock, TEXT, TEXT, st.booleans())
RUNS = st.builds(Run, TEXT, TEXT, SPECS, SNAPSHOTS, PAIRS, TEXT, TEXT, TEXT, TEXTS, lock=st.none() | LOCKS)


@given(RUNS)
def test_a_run_comes_back_as_it_was(run: Run) -> None:
    again = decode_run(encode_run(run))
    assert again == run
    assert type(again.spec.resources) is Resources
    hash(again)  # lists, which could be changed, are nowhere in it


@given(
    st.none()
    | st.builds(Reason, TEXT, TEXT, TEXT, st.none() | TEXT, st.none() | st.integers(), st.booleans())
)
def test_a_reason_comes_back_as_it_was(reason: Reason | None) -> None:
    assert decode_reason(encode_reason(reason)) == reason


@given(RUNS)
def test_the_text_is_one_line_of_ascii(run: Run) -> None:
    text = encode_run(run)
    assert text.isascii()
    assert "\n" not in text


def test_keys_that_a_newer_version_added_are_ignored() -> None:
    document = json.loads(encode_run(make_run(1)))
    for place in (document, document["spec"], document["spec"]["resources"], document["snapshot"]):
        place["invented_later"] = {"a": [1]}
    assert decode_run(json.dumps(document)) == make_run(1)


def test_keys_that_an_older_version_lacked_have_their_default() -> None:
    document = json.loads(encode_run(make_run(1)))
    for place in (document, document["spec"], document["spec"]["resources"]):
        kind = {id(document): Run, id(document["spec"]): JobSpec}.get(id(place), Resources)
        for key in kind._field_defaults:
            place.pop(key, None)
    expected = make_run(1)
    assert decode_run(json.dumps(document)) == expected._replace(
        spec=expected.spec._replace(resources=Resources())
    )


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"spec": {}}', '{"spec": {"resources": {}}}', '"x"']
)
def test_what_holds_no_run_is_a_damaged_record(text: str) -> None:
    with pytest.raises(InternalError) as caught:
        decode_run(text)
    assert caught.value.code == "damaged_record"


def test_a_format_that_changes_unnoticed_is_noticed_here() -> None:
    """The written form of a run, which older and newer versions read. docs/runlog.md describes it."""
    assert encode_run(make_run(1)) == (
        '{"id":"0192d3c0-0000-7001-8000-000000000001","name":"brave-otter-1",'
        '"spec":{"argv":["python","train.py","--lr","0.1"],"script":"train.py","args":["--lr","0.1"],'
        '"workdir":"","resources":{"gpus":0,"cpus":2,"memory_bytes":null,"nodes":1,"procs_per_node":1},'
        '"project":"digits","backend":"local","runtime":"process","runtime_why":"it was asked for",'
        '"in_place":false,"data":[],'
        '"output":"outputs","environment":[],"note":null,"tags":[],"max_retries":0,"timeout_s":null,'
        '"grace_s":30.0,"c_layer":false},'
        f'"snapshot":{{"commit":"{"a" * 40}","tree":"{"b" * 40}","base_commit":"{"a" * 40}","dirty":false,'
        '"uncommitted":[],"branch":"main","repository":"/home/me/digits","git_dir":"/home/me/digits/.git",'
        '"remote":null,"ref":"refs/mllaunch/one"},'
        '"params":[],"submitted_at":"2026-11-21T00:00:00.001Z","submitted_by_user":"me",'
        '"submitted_by_host":"laptop","redacted":[],"image":null,"parent":null,"lock":null}'
    )
