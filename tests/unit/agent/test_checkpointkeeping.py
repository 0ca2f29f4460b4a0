"""Checkpoints of other nodes, kept on this one: whole or not at all, and sent in as many tries as it takes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from mllaunch_agent import checkpoint
from mllaunch_agent.checkpointkeeping import CheckpointKeeping
from mllaunch_agent.codekeeping import Damaged

BYTES = b"weights" * 100
SHA256 = hashlib.sha256(BYTES).hexdigest()


@pytest.fixture
def keeping(tmp_path: Path) -> CheckpointKeeping:
    return CheckpointKeeping(str(tmp_path))


def test_what_never_came_is_not_found(keeping: CheckpointKeeping) -> None:
    assert keeping.find(SHA256, "m.pt") is None
    assert keeping.held(SHA256, [""]) == [0]


def test_a_file_that_came_in_parts_is_found_under_its_own_name(keeping: CheckpointKeeping) -> None:
    keeping.keep_part(SHA256, "", 0, BYTES[:300])
    assert keeping.held(SHA256, [""]) == [300]
    assert keeping.find(SHA256, "m.pt") is None
    keeping.keep_part(SHA256, "", 300, BYTES[300:])
    kept = keeping.keep_whole(SHA256, "m.pt")
    assert Path(kept["place"]).name == "m.pt" and Path(kept["place"]).read_bytes() == BYTES
    assert kept["keys"] == checkpoint.keys(kept["place"])
    assert keeping.find(SHA256, "m.pt") == kept


def test_two_that_send_the_same_disturb_each_other_nothing(keeping: CheckpointKeeping) -> None:
    for begin in (0, 0, 300, 100):
        keeping.keep_part(SHA256, "", begin, BYTES[begin:])
    assert Path(keeping.keep_whole(SHA256, "m.pt")["place"]).read_bytes() == BYTES


def test_who_comes_last_finds_what_the_first_has_kept(keeping: CheckpointKeeping) -> None:
    keeping.keep_part(SHA256, "", 0, BYTES)
    kept = keeping.keep_whole(SHA256, "m.pt")
    keeping.keep_part(SHA256, "", 300, BYTES[300:])  # what is on its way is not there any more
    assert keeping.keep_whole(SHA256, "m.pt") == kept
    assert keeping.held(SHA256, [""]) == [0]  # and nothing of the second lies about


def test_a_kept_one_that_was_written_into_is_none_any_more(keeping: CheckpointKeeping) -> None:
    keeping.keep_part(SHA256, "", 0, BYTES)
    place = Path(keeping.keep_whole(SHA256, "m.pt")["place"])
    place.write_bytes(b"another")
    assert keeping.find(SHA256, "m.pt") is None
    assert not place.exists()


def test_what_was_damaged_on_its_way_is_not_kept_and_can_be_sent_anew(keeping: CheckpointKeeping) -> None:
    keeping.keep_part(SHA256, "", 0, b"x" + BYTES[1:])
    with pytest.raises(Damaged):
        keeping.keep_whole(SHA256, "m.pt")
    assert keeping.find(SHA256, "m.pt") is None and keeping.held(SHA256, [""]) == [0]
    keeping.keep_part(SHA256, "", 0, BYTES)
    assert keeping.keep_whole(SHA256, "m.pt")["place"]


def test_a_folder_of_several_files_is_one_checkpoint(keeping: CheckpointKeeping, tmp_path: Path) -> None:
    original = tmp_path / "original"
    (original / "inner").mkdir(parents=True)
    (original / "a").write_bytes(b"one")
    (original / "inner/b").write_bytes(b"two")
    digest = checkpoint.digest_of(str(original))
    assert digest is not None
    names = checkpoint.files_in(str(original))
    for name in names:
        keeping.keep_part(digest, name, 0, (original / name).read_bytes())
    assert keeping.held(digest, names) == [3, 3]
    place = Path(keeping.keep_whole(digest, "step-7")["place"])
    assert (place / "inner/b").read_bytes() == b"two" and place.name == "step-7"


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/x", "a//b", "."])
def test_no_name_leads_elsewhere(keeping: CheckpointKeeping, name: str) -> None:
    with pytest.raises(ValueError, match="not a plain name"):
        keeping.keep_part(SHA256, name, 0, b"x")
    with pytest.raises(ValueError, match="not a plain name"):
        keeping.find(SHA256, name)


@pytest.mark.parametrize("digest", ["", "..", "A" * 64, "a" * 63, "../" + "a" * 61])
def test_no_digest_leads_elsewhere(keeping: CheckpointKeeping, digest: str) -> None:
    with pytest.raises(ValueError, match="not a digest"):
        keeping.keep_part(digest, "", 0, b"x")
