from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mllaunch_agent import node, system


def sealed(folder: Path, **spec: Any) -> Path:
    """An attempt's folder as it is after the seal."""
    (folder / "streams").mkdir(parents=True)
    (folder / "streams/stdout.0").write_bytes(b"x" * 10_000)
    (folder / "task-0.json").write_text("{}")
    (folder / "seal.json").write_text("{}")
    usual = {"environment": {"TOKEN": "secret"}, "secrets": ["secret"], "in_place": None}
    (folder / "spec.json").write_text(json.dumps({**usual, **spec}))
    (folder / "work").mkdir()
    return folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_streams_go_and_outputs_and_where_they_are_stay_without_the_secrets(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "1")
    (folder / "work/model.pt").write_bytes(b"w" * 5000)
    ours, theirs = node.held_bytes(str(folder)) or (0, 0)
    assert ours >= 10_000 and theirs >= 5000
    node.release_streams(str(folder))
    assert names(folder) == {"seal.json", "spec.json", "supervisor.lock", "work"}
    assert "secret" not in (folder / "spec.json").read_text().replace('"secrets"', "")
    assert node.held_bytes(str(folder)) == (0, theirs)
    node.release_streams(str(folder))
    assert (folder / "work/model.pt").is_file()


@pytest.mark.parametrize("kind", ["empty file", "link"])
def test_an_empty_file_or_a_link_is_an_output(tmp_path: Path, kind: str) -> None:
    folder = sealed(tmp_path / "1")
    (folder / "work/deep").mkdir()
    if kind == "link":
        (folder / "work/deep/link").symlink_to(tmp_path)
    else:
        (folder / "work/deep/done").touch()
    node.release_streams(str(folder))
    assert names(folder / "work/deep")


def test_a_folder_without_outputs_goes_altogether(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "1")
    (folder / "work/empty").mkdir()
    node.release_streams(str(folder))
    assert not folder.exists() and node.held_bytes(str(folder)) is None
    node.release_streams(str(folder))
    node.discard(str(folder))


def test_what_a_checkout_that_was_not_cut_down_holds_stays(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "1")
    (folder / "upper").mkdir()
    (folder / "upper/model.pt").write_bytes(b"w")
    (folder / "workdir.json").write_text("{}")
    node.release_streams(str(folder))
    assert (folder / "upper/model.pt").is_file() and (folder / "workdir.json").is_file()


def test_of_a_run_in_place_it_stays_known_where_the_outputs_are(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "1", in_place="/home/me/project")
    node.release_streams(str(folder))
    assert json.loads((folder / "spec.json").read_text())["in_place"] == "/home/me/project"


def test_nothing_is_freed_without_a_seal_or_under_a_living_agent(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "1")
    lock = system.try_lock(node.lock_path(str(folder)))
    assert lock is not None
    for free in (node.release_streams, node.discard):
        with pytest.raises(OSError, match="an agent looks after"):
            free(str(folder))
    os.close(lock)
    (folder / "seal.json").unlink()
    with pytest.raises(OSError, match="never sealed"):
        node.release_streams(str(folder))
    assert (folder / "streams/stdout.0").is_file()


def test_bytes_that_are_linked_from_elsewhere_are_not_counted_as_freed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a").write_bytes(b"x" * 100_000)
    alone = node.disk_bytes(str(tree))
    os.link(tree / "a", tree / "b")
    assert node.disk_bytes(str(tree)) == alone
    os.link(tree / "a", tmp_path / "elsewhere")
    assert node.disk_bytes(str(tree)) <= alone - 100_000


@pytest.mark.parametrize("is_there", [True, False])
def test_what_an_interrupted_removal_has_left_is_counted_and_goes_with_the_next_one(
    tmp_path: Path, is_there: bool
) -> None:
    sealed(tmp_path / "1.going")
    if is_there:
        sealed(tmp_path / "1")
    assert (node.held_bytes(str(tmp_path / "1")) or (0, 0))[0] >= 10_000
    node.discard(str(tmp_path / "1"))
    assert list(tmp_path.iterdir()) == [] and node.held_bytes(str(tmp_path / "1")) is None


@pytest.mark.parametrize("free", [node.release_streams, node.discard])
def test_several_who_free_the_same_at_once_all_find_it_freed(
    tmp_path: Path, free: Callable[[str], None]
) -> None:
    with ThreadPoolExecutor(4) as threads:
        for number in range(40):
            folder = str(sealed(tmp_path / str(number)))
            for done in [threads.submit(free, folder) for _ in range(4)]:
                done.result()
            assert list(tmp_path.iterdir()) == []
