"""The document as text, as a graph, and as a file of parameters."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
import yaml

from mllaunch.cli import provenance_text
from mllaunch.cli.sheet import Sheet
from mllaunch.domain.dot import graph
from mllaunch.domain.provenance import document
from mllaunch.usecases.export import _config, notes_text

from . import records

NOW = "2026-11-21T10:00:00.000Z"
HOSTILE = "\x1b[2J\x1b]52;c;x\x07\r\u202e"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    return Terminal()


_OWN = r"sealed|sha256:|2026-|(failed|succeeded|yes|no|unknown|weights|resume|data|content|checkpoint)$"


def hostile(value: Any) -> Any:
    """The document with control characters in every text that a stranger could have written."""
    if isinstance(value, dict):
        return {name: hostile(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [hostile(inner) for inner in value]
    # Not what mllaunch itself writes: states, times, digests and the seal's status have their own shapes.
    own = isinstance(value, str) and re.match(_OWN, value)
    return value + HOSTILE if isinstance(value, str) and not own else value


def test_no_text_of_a_stranger_has_power_over_a_terminal(terminal: Terminal) -> None:
    made = hostile(document(records.full()))
    assert provenance_text.render(made, NOW, terminal).count("\\x1b") > 30
    for text in (provenance_text.render(made, NOW, terminal), graph(made)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)


def test_a_terminal_gets_lines_that_fit_and_short_digests(terminal: Terminal) -> None:
    text = provenance_text.render(document(records.full()), NOW, terminal)
    assert max(map(len, text.splitlines())) <= 80
    assert "sha256:ffffffffffff" in text
    assert "f" * 13 not in text
    assert "1h ago" in text


def test_a_pipe_gets_everything_in_full() -> None:
    text = provenance_text.render(document(records.full()), NOW, io.StringIO())
    for whole in ("f" * 64, "c" * 40, "OMP_NUM_THREADS=4", "2026-11-21T09:00:00.000Z", "GPU-b"):
        assert whole in text
    assert "ago" not in text
    for said in (
        "4.0 KiB are missing",
        "CHANGED DURING THE RUN",
        "attempts",
        "HF_TOKEN",
        "the driver does not say",
    ):
        assert said in text


def test_files_with_the_same_bytes_are_one_node_of_the_graph() -> None:
    same = {**records.FILE, "path": "outputs/copy.pt"}
    made = document(records.recorded({}, files=((1, "n", records.FILE), (1, "n", same))))
    text = graph(made)
    assert text.count(" -> ") == 1
    assert r"outputs/model.pt\noutputs/copy.pt\nsha256:ffffffffffff" in text


def test_quotes_and_backslashes_cannot_end_a_label() -> None:
    odd = {**records.FILE, "path": 'a"];evil\\'}
    text = graph(document(records.recorded({}, files=((1, "n", odd),))))
    assert r"a\"];evil\\" in text


def test_a_sheet_lists_at_most_so_many_on_a_terminal_only(terminal: Terminal) -> None:
    for stream, shown in ((terminal, 3), (io.StringIO(), 5), (None, 5)):
        sheet = Sheet(stream)
        sheet.items("things", [f"thing {number}" for number in range(5)], 3)
        assert sheet.text().count("thing ") == shown
        assert ("... and 2 more" in sheet.text()) == (shown == 3)


def test_parameters_are_yaml_as_they_were_typed() -> None:
    typed = {
        "lr": "3e-4",
        "epochs": "10",
        "amp": "true",
        "name": "a: b",
        "day": "2026-01-01",
        "none": "null",
        "e": "",
    }
    run = records.RUN._replace(params=tuple({**typed, "odd": "\x1b\udcff"}.items()))
    text = _config(run)
    assert "lr: 3e-4\nepochs: 10\namp: true\n" in text
    read = yaml.safe_load(text.replace("\\uDCFF", ""))
    assert read["name"] == "a: b"
    assert (read["day"], read["none"], read["e"]) == ("2026-01-01", "null", "")
    assert "\x1b" not in text
    assert yaml.safe_load(_config(records.RUN._replace(params=()))) == {}


def test_notes_hold_note_and_tags_and_may_be_empty() -> None:
    assert notes_text("two\nlines", ("a", "b")) == "two\nlines\ntags: a, b\n"
    assert notes_text(None, ()) == ""
