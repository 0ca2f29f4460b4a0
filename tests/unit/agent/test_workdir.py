from __future__ import annotations

from pathlib import Path

import pytest

from mllaunch_agent import overlay, treecopy, workdir


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An attempt whose checkout is a copy, which every user and file system can have."""
    monkeypatch.setattr(overlay, "mount", lambda *_: False)
    (tmp_path / "tree/conf").mkdir(parents=True)
    (tmp_path / "tree/conf/a.yaml").write_text("a: 1\n")
    (tmp_path / "tree/train.py").write_text("print('hello')\n")
    (tmp_path / "tree/outward").symlink_to("/etc")
    (tmp_path / "attempt").mkdir()
    return tmp_path / "attempt"


def make(folder: Path) -> Path:
    workdir.make(str(folder.parent / "tree"), str(folder))
    return folder / "work"


def test_data_appears_where_it_is_wanted_and_is_gone_after_release(folder: Path) -> None:
    work = make(folder)
    (folder.parent / "big").mkdir()
    (folder.parent / "big/x.bin").write_text("x")
    links: list[workdir.DataLink] = [{"path": "data/train", "source": str(folder.parent / "big")}]
    workdir.link_data(str(work), links)
    workdir.link_data(str(work), links)
    assert (work / "data/train/x.bin").read_text() == "x"
    assert workdir.release(str(folder))["changed"] == 0
    assert list(work.iterdir()) == []
    assert (folder.parent / "big/x.bin").exists()


def test_what_a_task_put_in_the_place_of_its_data_stays(folder: Path) -> None:
    work = make(folder)
    workdir.link_data(str(work), [{"path": "data", "source": "/data"}])
    (work / "data").unlink()
    (work / "data").write_text("mine")
    assert workdir.release(str(folder))["changed"] == 1
    assert (work / "data").read_text() == "mine"


@pytest.mark.parametrize(
    ("path", "cause"),
    [
        ("conf", "already has a folder there"),
        ("train.py", "already has a file there"),
        ("outward", "already has a link there"),
        ("train.py/x", "a folder is needed"),
        ("outward/mllaunch-data", "a folder is needed"),
        ("../x", "not a plain relative path"),
        ("/x", "not a plain relative path"),
        ("a//b", "not a plain relative path"),
        ("", "not a plain relative path"),
        ("a\0b", "not a plain relative path"),
    ],
)
def test_data_that_would_hide_or_leave_the_snapshot_is_refused(folder: Path, path: str, cause: str) -> None:
    work = make(folder)
    with pytest.raises(workdir.WorkdirError, match=cause):
        workdir.link_data(str(work), [{"path": "fine", "source": "/x"}, {"path": path, "source": "/x"}])
    assert not (work / "fine").is_symlink()


def test_a_link_of_the_snapshot_that_already_leads_to_the_data_is_left_alone(folder: Path) -> None:
    work = make(folder)
    workdir.link_data(str(work), [{"path": "outward", "source": "/etc"}])
    assert workdir.release(str(folder)) == {
        "method": "copy",
        "deleted": [],
        "changed": 0,
        "detached": False,
        "beneath": None,
    }


def test_a_special_file_in_the_tree_is_refused(folder: Path) -> None:
    import os

    os.mkfifo(folder.parent / "tree/pipe")
    with pytest.raises(workdir.WorkdirError, match="special file"):
        make(folder)


def test_a_read_only_tree_is_writable_in_the_checkout(folder: Path) -> None:
    tree = folder.parent / "tree"
    (tree / "train.py").chmod(0o444)
    (tree / "conf/a.yaml").chmod(0o555)
    work = make(folder)
    assert (work / "train.py").stat().st_mode & 0o777 == 0o644
    assert (work / "conf/a.yaml").stat().st_mode & 0o777 == 0o755
    assert not overlay._writable_as_checked_out(str(tree))


def test_an_edit_that_restores_all_times_but_ctime_is_kept(folder: Path) -> None:
    import os

    work = make(folder)
    before = (work / "train.py").stat()
    (work / "train.py").write_text("print('HELLO')\n")
    os.utime(work / "train.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert workdir.release(str(folder))["changed"] == 1
    assert (work / "train.py").read_text() == "print('HELLO')\n"


def test_a_file_that_was_written_again_with_other_times_is_kept(folder: Path) -> None:
    import os

    work = make(folder)
    os.utime(work / "train.py", ns=(1, 1))
    assert workdir.release(str(folder))["changed"] == 1
    assert (work / "train.py").exists()


def test_without_its_index_everything_counts_as_written(folder: Path) -> None:
    work = make(folder)
    (folder / "index").unlink()
    assert workdir.release(str(folder))["changed"] == 3
    assert (work / "train.py").exists()


def test_a_big_file_is_copied_whole(folder: Path) -> None:
    content = bytes(range(256)) * 5000
    (folder.parent / "tree/big").write_bytes(content)
    assert len(content) > treecopy.SMALL_BYTES
    assert (make(folder) / "big").read_bytes() == content


def test_a_folder_that_is_no_attempt_is_released_as_nothing(tmp_path: Path) -> None:
    assert workdir.release(str(tmp_path))["method"] is None
    workdir.discard(str(tmp_path))
