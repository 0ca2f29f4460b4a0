"""The pure parts of taking a snapshot."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch.capture.files import make_plan
from mllaunch.capture.git import Git, GitFailed, explained, parse_config, shown
from mllaunch.capture.snapshot import mask_credentials
from mllaunch.capture.worktree import ADD, KEEP, LINK, REMOVE, Entry, parse_status
from mllaunch.errors import MllaunchError

A, B = "a" * 40, "b" * 40


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://user:password@host/x.git", "https://***@host/x.git"),
        ("https://ghp_token@host/x.git", "https://***@host/x.git"),
        ("https://user:p@ss:w@host:8443/x@y", "https://***@host:8443/x@y"),
        ("https://host/x.git?private_token=abc", "https://host/x.git?***"),
        ("ssh://git@host/x.git", "ssh://git@host/x.git"),
        ("ssh://git:password@host/x.git", "ssh://***@host/x.git"),
        ("git@host:team/x.git", "git@host:team/x.git"),
        ("user:password@host:x.git", "***@host:x.git"),
        ("/srv/a@b:c/x.git", "/srv/a@b:c/x.git"),
        ("https://host/x.git", "https://host/x.git"),
    ],
)
def test_credentials_in_a_url_are_masked(url: str, expected: str) -> None:
    assert mask_credentials(url) == expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (f"1 .M N... 100644 100644 100644 {A} {A} x y", Entry("x y", "modified", ADD, A)),
        (f"1 M. N... 100644 100644 100644 {A} {B} x", Entry("x", "staged", KEEP, B, True)),
        (f"1 MM N... 100644 100644 100644 {A} {B} x", Entry("x", "modified", ADD, B, True)),
        (f"1 .M N... 100644 100644 100755 {A} {A} x", Entry("x", "mode", ADD, A)),
        (f"1 M. N... 100644 100755 100755 {A} {A} x", Entry("x", "mode", KEEP, A, True)),
        (f"1 .T N... 100644 100644 120000 {A} {A} x", Entry("x", "modified", ADD, A)),
        (f"1 .D N... 100644 100644 000000 {A} {A} x", Entry("x", "deleted", REMOVE)),
        (f"1 D. N... 100644 000000 000000 {A} {'0' * 40} x", Entry("x", "deleted", REMOVE)),
        (f"1 .M SC.. 160000 160000 160000 {A} {A} x", Entry("x", "submodule", LINK)),
        (f"u UU N... 100644 100644 100644 100644 {A} {A} {B} x y", Entry("x y", "conflicted", ADD)),
        ("? new file", Entry("new file", "untracked", ADD)),
        ("? nested/", Entry("nested", "untracked", LINK)),
    ],
)
def test_each_kind_of_change_is_read(record: str, expected: Entry) -> None:
    assert parse_status([f"# branch.oid {A}", record]) == [expected]


def test_a_file_that_is_only_untracked_now_is_added_not_removed() -> None:
    records = [f"1 D. N... 100644 000000 000000 {A} {'0' * 40} x", "? x"]
    assert parse_status(records) == [Entry("x", "untracked", ADD)]


def test_configuration_keeps_every_value_of_a_key() -> None:
    assert parse_config(b"a.b\n1\0a.b\n2\nlines\0c.d\0") == {"a.b": ["1", "2\nlines"], "c.d": [""]}


def test_every_filter_is_emptied_whatever_its_name() -> None:
    listed = {"core.hookspath": ["/dev/null"], "filter.a=b.c\n.clean": ["evil"], "filter.lfs.process": ["x"]}
    config = dict(Git("/").inspecting(listed).config)
    for name in ("a=b.c\n", "lfs"):
        assert config[f"filter.{name}.clean"] == config[f"filter.{name}.process"] == ""
        assert config[f"filter.{name}.required"] == "false"


def test_a_git_that_does_not_take_our_overrides_is_refused() -> None:
    with pytest.raises(MllaunchError, match=r"2\.31"):
        Git("/").inspecting({"core.hookspath": ["hooks"]})


@given(st.text())
def test_what_is_shown_is_always_printable(name: str) -> None:
    assert shown(name).isprintable()


def test_undecodable_bytes_are_shown_as_bytes() -> None:
    assert shown("caf\udce9") == "caf\\xe9"


def test_an_unexpected_failure_keeps_what_git_said() -> None:
    error = explained(GitFailed("status", 128, "fatal: something else\nmore"), "/x")
    assert (error.code, error.evidence) == ("git-failed", ("fatal: something else", "more"))


def row(mode: str, oid: str, path: str) -> bytes:
    kind = {"040000": "tree", "160000": "commit"}.get(mode, "blob")
    return f"{mode} {kind} {oid}\t{path}".encode()


def test_only_what_changed_is_written_and_the_rest_is_linked() -> None:
    before = [row("040000", A, "d"), row("100644", A, "d/x"), row("120000", A, "l"), row("100644", A, "y")]
    after = [row("040000", B, "d"), row("100644", B, "d/x"), row("120000", A, "l"), row("100644", A, "y")]
    plan = make_plan(after, before)
    assert plan.folders == [b"d"]
    assert plan.blobs == [(b"100644", B, b"d/x")]
    assert plan.linked == {b"": [b"y"], b"d": []}
    assert plan.linked_symlinks == [b"l"]


def test_a_mode_change_is_never_linked() -> None:
    plan = make_plan([row("100755", A, "x")], [row("100644", A, "x")])
    assert plan.blobs == [(b"100755", A, b"x")]


def test_nothing_is_linked_when_attributes_changed() -> None:
    before = [row("100644", A, ".gitattributes"), row("100644", A, "x")]
    after = [row("100644", B, ".gitattributes"), row("100644", A, "x")]
    assert make_plan(after, before).linked == {b"": []}


@pytest.mark.parametrize("path", ["..", "../x", ".git", ".GiT", "/x", "a/b", ".", ""])
def test_paths_that_lead_out_are_refused(path: str) -> None:
    with pytest.raises(MllaunchError) as caught:
        make_plan([row("100644", A, path)], [])
    assert caught.value.code == "hostile-tree"
