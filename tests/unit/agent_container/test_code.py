"""The code that an image was built with, and what of it is not so any more."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch_agent import codewatch
from mllaunch_agent.codewatch import CodeWatch, Listed, blob_id, blob_id_of, parse_tree
from mllaunch_agent.engine import Engine
from mllaunch_agent.probes import container as probe
from tests.fakes.engine import FakeEngine, answer, document, endless, frame, refusal

EMPTY = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"  # git's id of no bytes
BLOBS = st.text("0123456789abcdef", min_size=40, max_size=40)
MODES = st.sampled_from(["100644", "100755", "120000"])
PATHS = st.binary(min_size=1, max_size=12).filter(lambda path: b"\0" not in path)


@given(st.dictionaries(PATHS, st.builds(Listed, MODES, BLOBS), max_size=5))
def test_every_record_of_a_tree_is_read_whatever_its_name(tree: dict[bytes, Listed]) -> None:
    text = b"".join(b"%s %s\t%s\0" % (e.mode.encode(), e.blob.encode(), path) for path, e in tree.items())
    assert parse_tree(text) == {os.fsdecode(path): entry for path, entry in tree.items()}


@pytest.mark.parametrize("text", [b"", b"\0", b"no tree", b"100644 blob e69de29\ta\0", b"\xff\xff\ta\0"])
def test_what_is_no_tree_has_no_code(text: bytes) -> None:
    assert parse_tree(text) == {}


@given(st.binary(max_size=64))
def test_a_blob_id_is_gits(content: bytes) -> None:
    asked = ["git", "hash-object", "--no-filters", "--stdin"]
    said = subprocess.run(asked, input=content, capture_output=True, check=True).stdout
    assert blob_id_of(content) == said.decode().strip()


def test_of_a_file_it_is_that_of_its_content_and_of_a_link_that_of_where_it_leads(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 3_000_000)
    (tmp_path / "link").symlink_to("nowhere")
    assert blob_id(str(tmp_path / "a")) == blob_id_of(b"x" * 3_000_000)
    assert blob_id(str(tmp_path / "link")) == blob_id_of(b"nowhere")


def test_what_is_neither_has_none_and_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert [blob_id(str(tmp_path / name)) for name in ("pipe", ".", "gone")] == [None, None, None]


# --- changes


class Code:
    """A folder of code, watched."""

    def __init__(self, root: Path, seen: dict[str, str | None] | None = None) -> None:
        self.root = root
        for name in ("train.py", "model/a.py", "model/b.py"):
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).write_bytes(b"")
        self.watch = CodeWatch(
            {name: Listed("100644", EMPTY) for name in ("train.py", "model/a.py", "model/b.py")}, seen or {}
        )

    def look(self) -> list[dict[str, Any]]:
        return self.watch.look(str(self.root))


@pytest.fixture
def code(tmp_path: Path) -> Code:
    return Code(tmp_path)


def test_the_first_look_finds_what_was_changed_before_anybody_could_look(code: Code) -> None:
    (code.root / "train.py").write_text("changed early")
    assert code.look() == [{"path": "train.py", "before": EMPTY, "after": blob_id_of(b"changed early")}]


def test_a_change_is_seen_once_with_what_was_before(code: Code) -> None:
    code.look()
    (code.root / "train.py").write_text("one")
    one = blob_id_of(b"one")
    assert code.look() == [{"path": "train.py", "before": EMPTY, "after": one}]
    assert code.look() == []
    (code.root / "train.py").write_text("other")
    assert code.look() == [{"path": "train.py", "before": one, "after": blob_id_of(b"other")}]


def test_a_file_that_was_written_anew_with_the_same_content_has_not_changed(code: Code) -> None:
    code.look()
    (code.root / "train.py").unlink()
    (code.root / "train.py").write_bytes(b"")
    assert code.look() == []


def test_a_file_that_goes_and_comes_back_is_seen_both_times(code: Code) -> None:
    code.look()
    (code.root / "train.py").unlink()
    assert code.look() == [{"path": "train.py", "before": EMPTY, "after": None}]
    assert code.look() == []
    (code.root / "train.py").write_bytes(b"")
    assert code.look() == [{"path": "train.py", "before": None, "after": EMPTY}]


def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(code: Code) -> None:
    code.look()
    (code.root / "train.py").unlink()
    os.mkfifo(code.root / "train.py")
    assert code.look() == [{"path": "train.py", "before": EMPTY, "after": None}]


def test_a_file_that_is_written_while_it_is_read_is_told_of_when_it_holds_still(
    code: Code, monkeypatch: pytest.MonkeyPatch
) -> None:
    code.look()
    (code.root / "train.py").write_text("half")

    def written_meanwhile(path: str) -> str | None:
        found = blob_id(path)
        (code.root / "train.py").write_text("half and half")
        return found

    monkeypatch.setattr(codewatch, "blob_id", written_meanwhile)
    assert code.look() == []
    monkeypatch.undo()
    assert code.look() == [{"path": "train.py", "before": EMPTY, "after": blob_id_of(b"half and half")}]


def test_a_folder_that_cannot_be_looked_at_is_an_error_and_no_change(code: Code) -> None:
    code.look()
    with pytest.raises(FileNotFoundError):
        code.watch.look(str(code.root / "gone"))
    assert code.look() == []


def test_what_is_on_record_already_is_not_told_again(tmp_path: Path) -> None:
    one = blob_id_of(b"one")
    code = Code(tmp_path, {"train.py": one, "new.py": one})
    assert code.watch.note("train.py", one) == code.watch.note("new.py", one) == []
    assert code.watch.note("train.py", None) == [{"path": "train.py", "before": one, "after": None}]


def test_a_note_is_taken_once(code: Code) -> None:
    one = blob_id_of(b"one")
    assert code.watch.note("new.py", one) == [{"path": "new.py", "before": None, "after": one}]
    assert code.watch.note("new.py", one) == []
    assert code.watch.note("never.py", None) == []


def test_code_is_known_by_its_path_and_by_the_folders_above_it(code: Code) -> None:
    known = code.watch.known
    assert known(["train.py", "other.py", "model/a.py/x"]) == ["train.py"]
    assert known(["model", "mode"]) == ["model/a.py", "model/b.py"]
    assert known([]) == known([""]) == []


# --- its interpreter

FACTS = b'\nmllaunch-python-facts:{"version": "3.12.1", "packages": []}\n'


def asked(fake: FakeEngine, cached: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    return probe.python(Engine(fake.path), "sha256:1", {"A": "b"}, "python3", str(cached))


@pytest.fixture
def image(fake: FakeEngine) -> FakeEngine:
    """One whose container does what is wanted of it."""
    fake.tell("POST", "/containers/create", document({"Id": "p"}, 201))
    fake.tell("POST", "/containers/p/start", answer(status=204))
    fake.tell("POST", "/containers/p/wait", document({"StatusCode": 0}))
    fake.tell("GET", "/containers/p/logs", endless(frame(2, b"a warning\n") + frame(1, FACTS)))
    fake.tell("DELETE", "/containers/p", answer(status=204))
    return fake


def test_an_interpreter_is_asked_once_in_a_container_that_goes_again(
    image: FakeEngine, tmp_path: Path
) -> None:
    for _ in range(2):
        assert asked(image, tmp_path / "facts") == ({"version": "3.12.1", "packages": []}, [])
    assert len(image.asked("DELETE")) == 1
    assert len(image.asked("POST")) == 3


def test_an_interpreter_that_is_not_there_is_on_record_and_leaves_nothing(
    image: FakeEngine, tmp_path: Path
) -> None:
    image.tell("POST", "/containers/p/start", refusal(400, "exec: python3: not found"))
    facts, missing = asked(image, tmp_path / "facts")
    assert facts == {}
    assert "exec: python3: not found" in missing[0]["why"]
    assert len(image.asked("DELETE")) == 1
    assert not (tmp_path / "facts").exists()


def test_what_is_no_interpreter_is_quoted(image: FakeEngine, tmp_path: Path) -> None:
    image.tell("GET", "/containers/p/logs", endless(frame(2, b"usage: cat\n")))
    assert asked(image, tmp_path / "facts")[1] == [
        {"what": "python", "why": "python3 in the image does not answer: usage: cat"}
    ]


def test_a_damaged_cache_is_made_anew_and_one_that_cannot_be_written_does_no_harm(
    image: FakeEngine, tmp_path: Path
) -> None:
    (tmp_path / "facts").write_text("")
    assert asked(image, tmp_path / "facts")[0]["version"] == "3.12.1"
    assert asked(image, tmp_path / "gone" / "facts")[0]["version"] == "3.12.1"
