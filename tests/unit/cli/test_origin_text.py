"""A file's origin as a person reads it: a tree that fits the terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest

from mllaunch.cli.origin_text import render

COMMIT = "3603b856bee3" + "0" * 28
NOW = "2026-11-21T10:00:00.000Z"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def edge(path: str, maker: str | None, *back: dict[str, Any], step: int | None = 2) -> dict[str, Any]:
    made = None if maker is None else {"run": "id", "name": maker, "attempt": 1, "step": step, "path": path}
    code = {"code": {"commit": COMMIT}}
    entry = {"path": path, "digest": "sha256:" + "ab" * 32, "size_bytes": 7, "kind": "weights"}
    return {**entry, "produced_by": made and {**made, **code}, "from": list(back)}


def document(*ancestors: dict[str, Any]) -> dict[str, Any]:
    code = {"commit": COMMIT, "base_commit": COMMIT, "dirty": False, "branch": "main", "tree": "7" * 40}
    run = {"id": "id", "name": "calm-fox-2", "state": "succeeded", "submitted_at": NOW, "mixed_code": False}
    place = {
        "run": run,
        "attempt": 1,
        "node": "gpu01",
        "path": "outputs/model.pt",
        "step": 4,
        "code": code,
        "command": {"argv": ["python", "train.py"], "params": {}},
    }
    return {
        "digest": "sha256:" + "cd" * 32,
        "size_bytes": 7,
        "written_by": [place],
        "same_weights": [],
        "read_by": [],
        "image_of": [],
        "ancestors": list(ancestors),
    }


TREE = document(edge("outputs/model-2.npz", "second-one-2", edge("a.npz", "old-elk-1")), edge("x.npz", None))


def test_a_file_and_its_maker_stand_on_two_lines_where_one_is_too_wide(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    text = render(TREE, NOW, Terminal())
    assert (
        """\
  made from     ├─ weights: outputs/model-2.npz  sha256:abababababab
                │  │  of second-one-2 at step 2, code 3603b856bee3
                │  └─ weights: a.npz  sha256:abababababab
                │        of old-elk-1 at step 2, code 3603b856bee3
                └─ weights: x.npz  sha256:abababababab
                      made by no run that is known here
"""
        in text
    )
    assert max(map(len, text.splitlines()[1:])) <= 80


def test_a_wide_terminal_has_one_line_for_each_and_a_pipe_is_never_cut(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setenv("NO_COLOR", "1")
    wide = render(TREE, NOW, Terminal())
    assert (
        "├─ weights: outputs/model-2.npz  sha256:abababababab of second-one-2 at step 2, code 3603b856bee3\n"
        in wide
    )
    piped = render(TREE, NOW, io.StringIO())
    assert f"└─ weights: x.npz  sha256:{'ab' * 32}, made by no run that is known here\n" in piped


def test_mixed_code_is_loud() -> None:
    found = document()
    found["written_by"][0]["run"]["mixed_code"] = True
    assert "MIXED CODE" in render(found, NOW, io.StringIO())
