"""What can be found again by its content, and how a digest is written."""

from __future__ import annotations

import pytest

from mllaunch.domain.artifact import Artifact, digest, identified, parse_digest

from . import records


@pytest.mark.parametrize("text", ["a1" * 32, "sha256:" + "a1" * 32, "SHA256:" + "A1" * 32, "A1" * 32])
def test_a_digest_is_known_in_all_its_forms(text: str) -> None:
    assert parse_digest(text) == "a1" * 32


@pytest.mark.parametrize(
    "text", ["", "sha256:", "a1" * 31, "a1" * 33, "g1" * 32, "md5:" + "a1" * 16, "@last"]
)
def test_what_is_no_digest_may_be_a_run_or_a_file(text: str) -> None:
    assert parse_digest(text) is None


def test_a_digest_names_its_algorithm() -> None:
    assert digest("a1" * 32) == "sha256:" + "a1" * 32
    assert digest(None) is None


def test_only_what_was_read_whole_is_identified() -> None:
    torn = {**records.FILE, "path": "torn", "sha256": None}
    link = {"path": "link", "kind": "symlink", "sha256": None, "size_bytes": 3, "target": "x"}
    one = {**records.DATA, "path": "one.csv", "form": "file", "digest": "9" * 64}
    found = list(
        identified(
            "run",
            2,
            "node",
            [records.FILE, torn, link, {"path": "x", "kind": "deleted"}],
            [records.DATA, one],
        )
    )
    assert found == [
        Artifact("f" * 64, "run", 2, "node", "outputs/model.pt", "file", 700),
        Artifact("d" * 64, "run", 2, "node", "data/train", "data", 1000),
        Artifact("9" * 64, "run", 2, "node", "one.csv", "data", 1000),
    ]
