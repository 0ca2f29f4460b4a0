"""The task's checkout, by both methods: overlay mount and copy. The overlay needs the right to mount."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mllaunch_agent import overlay, treecopy, workdir

HOSTILE = "a:b,c\\d\ne"


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    base = tmp_path / HOSTILE
    base.mkdir()
    yield base
    for folder in base.iterdir():
        if workdir.is_mounted(str(folder)):
            overlay.unmount(str(folder / "work"))


@pytest.fixture
def tree(base: Path) -> Path:
    tree = base / "tree"
    for name in (
        "train.py",
        "pkg/__init__.py",
        "pkg/model.py",
        "pkg/deep/er/x.py",
        "conf/a.yaml",
        "conf/b.yaml",
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(f"content of {name}\n" * 20)
    (tree / "run.sh").write_text("#!/bin/sh\necho hello\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "link").symlink_to("train.py")
    (tree / "outward").symlink_to("/etc/hostname")
    (Path(os.fsdecode(os.fsencode(tree) + b"/caf\xe9"))).write_text("not UTF-8")
    return tree


@pytest.fixture(params=["overlay", "copy"])
def folder(request: pytest.FixtureRequest, base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    if request.param == "copy":
        monkeypatch.setattr(overlay, "mount", lambda *_: False)
    elif not overlay._may_mount():
        if os.environ.get("MLLAUNCH_REQUIRE_REAL") == "1":
            pytest.fail("this test needs the right to mount")
        pytest.skip("no right to mount here")
    folder = base / "attempt"
    folder.mkdir()
    (folder / "expected").write_text(request.param)
    return folder


def start(tree: Path, folder: Path) -> Path:
    method = workdir.make(str(tree), str(folder))
    expected = (folder / "expected").read_text()
    assert method == expected or (method, expected) == ("reflink", "copy")
    return folder / "work"


def listing(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        rel = str(path.relative_to(folder))
        if path.is_symlink():
            found[rel] = f"-> {path.readlink()}"
        elif path.is_file():
            found[rel] = path.read_text(errors="surrogateescape")
    return found


def test_the_checkout_has_the_files_links_and_modes_of_the_tree(tree: Path, folder: Path) -> None:
    work = start(tree, folder)
    assert listing(work) == listing(tree)
    assert {oct((work / n).stat().st_mode & 0o777) for n in ("train.py", "pkg/model.py")} == {"0o644"}
    assert subprocess.run([work / "run.sh"], stdout=subprocess.PIPE, check=True).stdout == b"hello\n"
    assert (work / "outward").readlink() == Path("/etc/hostname")


def test_nothing_that_a_task_does_reaches_the_tree_or_another_run(
    tree: Path, folder: Path, base: Path
) -> None:
    before = listing(tree)
    other = base / "other"
    other.mkdir()
    workdir.make(str(tree), str(other))
    work = start(tree, folder)
    (work / "train.py").write_text("edited")
    with (work / "pkg/model.py").open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        view[:4] = b"MMAP"
    (work / "run.sh").chmod(0o600)
    os.link(work / "conf/a.yaml", work / "hard")
    with (work / "hard").open("a") as file:
        file.write("more")
    (work / "conf/b.yaml").unlink()
    (work / "pkg/deep").rename(work / "moved")
    (work / "moved/er/x.py").write_text("new")
    assert (work / "pkg/model.py").read_text().startswith("MMAP")
    assert listing(tree) == before
    assert listing(other / "work") == before
    assert (tree / "run.sh").stat().st_mode & 0o777 == 0o755


def test_release_leaves_what_was_written_and_names_what_was_deleted(tree: Path, folder: Path) -> None:
    work = start(tree, folder)
    (work / "outputs/ck").mkdir(parents=True)
    (work / "outputs/ck/1.pt").write_text("weights")
    (work / "train.py").write_text("edited")
    (work / "conf/a.yaml").unlink()
    shutil.rmtree(work / "pkg/deep")
    (work / "empty").mkdir()
    (work / "link").unlink()
    (work / "link").symlink_to("elsewhere")
    result = workdir.release(str(folder))
    assert result["deleted"] == ["conf/a.yaml", "pkg/deep/er/x.py"]
    assert listing(work) == {"link": "-> elsewhere", "outputs/ck/1.pt": "weights", "train.py": "edited"}
    assert result["changed"] == 3
    assert not result["detached"]
    assert {p.name for p in work.iterdir()} == {"empty", "link", "outputs", "train.py"}
    assert {p.name for p in folder.iterdir()} == {"expected", "work", "workdir.json"}
    assert workdir.release(str(folder)) == result


def test_a_run_that_wrote_nothing_leaves_an_empty_folder(tree: Path, folder: Path) -> None:
    work = start(tree, folder)
    result = workdir.release(str(folder))
    assert (result["deleted"], result["changed"], list(work.iterdir())) == ([], 0, [])


def test_folders_that_were_renamed_replaced_or_hidden_are_told_exactly(tree: Path, folder: Path) -> None:
    work = start(tree, folder)
    (work / "pkg").rename(work / "renamed")
    (work / "renamed/deep").rename(work / "renamed/deeper")
    (work / "renamed/model.py").unlink()
    (work / "renamed/own.py").write_text("own")
    shutil.rmtree(work / "conf")
    (work / "conf").mkdir()
    (work / "conf/b.yaml").write_text("again")
    (work / "train.py").unlink()
    (work / "train.py").mkdir()
    (work / "train.py/inside").write_text("x")
    shown = listing(work)
    result = workdir.release(str(folder))
    untouched = {"run.sh", "link", "outward", os.fsdecode(b"caf\xe9")}
    assert listing(work) == {name: text for name, text in shown.items() if name not in untouched}
    assert "renamed/deeper/er/x.py" in listing(work)
    expected = ["conf/a.yaml", "pkg/__init__.py", "pkg/deep/er/x.py", "pkg/model.py", "train.py"]
    assert result["deleted"] == expected
    assert result["changed"] == len(listing(work))


def test_a_folder_renamed_into_the_place_of_another_hides_it(tree: Path, folder: Path) -> None:
    work = start(tree, folder)
    shutil.rmtree(work / "conf")
    (work / "pkg").rename(work / "conf")
    shown = {name: text for name, text in listing(work).items() if name.startswith("conf")}
    result = workdir.release(str(folder))
    assert listing(work) == shown
    assert result["deleted"] == [
        "conf/a.yaml",
        "conf/b.yaml",
        "pkg/__init__.py",
        "pkg/deep/er/x.py",
        "pkg/model.py",
    ]


def test_a_folder_replaced_by_a_link_is_never_followed(tree: Path, folder: Path, base: Path) -> None:
    work = start(tree, folder)
    outside = base / "outside"
    shutil.copytree(tree, outside, symlinks=True)
    before = listing(outside)
    shutil.rmtree(work / "pkg")
    (work / "pkg").symlink_to(outside / "pkg")
    result = workdir.release(str(folder))
    assert listing(outside) == before
    assert result["deleted"] == ["pkg/__init__.py", "pkg/deep/er/x.py", "pkg/model.py"]
    assert (work / "pkg").readlink() == outside / "pkg"


@pytest.mark.parametrize("seed", range(12))
def test_random_work_is_told_exactly_by_both_methods(tree: Path, folder: Path, seed: int) -> None:
    work = start(tree, folder)
    before = listing(work)
    written = disturb(work, random.Random(seed))
    after = listing(work)
    result = workdir.release(str(folder))
    kept = listing(work)
    assert result["deleted"] == sorted(before.keys() - after.keys(), key=os.fsencode)
    assert kept.keys() <= after.keys()
    assert all(after[name] == kept[name] for name in kept)
    lost = {name for name in after.keys() - kept.keys() if name not in before or after[name] != before[name]}
    assert not lost
    assert {name for name in written if name in after} <= kept.keys()
    assert result["changed"] == len(kept)


def disturb(work: Path, choice: random.Random) -> set[str]:
    """Random file work inside ``work``; returns the names written last that still hold that content."""
    written: set[str] = set()
    for number in range(25):
        folders = [work, *(p for p in sorted(work.rglob("*")) if p.is_dir() and not p.is_symlink())]
        files = [p for p in sorted(work.rglob("*")) if p.is_file() and not p.is_symlink()]
        place = choice.choice(folders)
        action = choice.choice(["new", "write", "unlink", "rmtree", "rename", "rename_dir", "mkdir"])
        if action == "new":
            (place / f"n{number}").write_text(f"new {number}")
            written.add(str((place / f"n{number}").relative_to(work)))
        elif action == "write" and files:
            chosen = choice.choice(files)
            chosen.write_text(f"written {number}")
            written.add(str(chosen.relative_to(work)))
        elif action == "unlink" and files:
            choice.choice(files).unlink()
        elif action == "rmtree" and place != work:
            shutil.rmtree(place)
        elif action == "rename" and files:
            choice.choice(files).replace(place / f"r{number}")
        elif action == "rename_dir" and place != work:
            target = choice.choice([work / "pkg", work / "conf", work / f"d{number}"])
            if not target.exists() and place not in target.parents:
                place.rename(target)
        elif action == "mkdir":
            (place / f"m{number}").mkdir()
    return {name for name in written if (work / name).is_file() and "written" in (work / name).read_text()}


KILLED_AT_A_STEP = """
import os, signal, sys
from mllaunch_agent import overlay, workdir
folder, step, method = sys.argv[1], int(sys.argv[2]), sys.argv[3]
if method == "copy":
    overlay.mount = lambda *_: False
count = 0
def hook(event, args):
    global count
    watched = "os.rename os.remove os.rmdir os.mkdir os.symlink os.setxattr os.removexattr".split()
    if event in watched or event == "open" and args[1] not in (None, "r", "rb") and folder in str(args[0]):
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
sys.addaudithook(hook)
if len(sys.argv) > 4:
    workdir.make(sys.argv[4], folder)
else:
    workdir.release(folder)
"""


def run_until_killed(folder: Path, step: int, *more: str) -> bool:
    argv = [sys.executable, "-c", KILLED_AT_A_STEP, str(folder), str(step), (folder / "expected").read_text()]
    environment = {**os.environ, "PYTHONPATH": str(Path(workdir.__file__).parents[1])}
    code = subprocess.run([*argv, *more], env=environment).returncode
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_release_killed_at_every_step_gives_the_same_in_the_end(tree: Path, folder: Path, base: Path) -> None:
    def work_and_release(kill_at: int | None) -> tuple[object, dict[str, str], bool]:
        workdir.discard(str(folder))
        work = start(tree, folder)
        workdir.link_data(str(work), [{"path": "data/train", "source": "/data"}])
        (work / "out").write_text("weights")
        (work / "pkg").rename(work / "renamed")
        (work / "conf/a.yaml").unlink()
        (work / "conf/b.yaml").write_text("changed")
        killed = kill_at is not None and run_until_killed(folder, kill_at)
        result = workdir.release(str(folder))
        return result, listing(work), killed

    result, files, _ = work_and_release(None)
    assert "data/train" not in files
    assert not (folder / "work/data").exists()
    step, killed = 0, True
    while killed:
        again, files_again, killed = work_and_release(step)
        assert (again, files_again) == (result, files), f"killed at step {step}"
        step += 1
    assert step > 8


def test_make_killed_at_every_step_can_be_made_again_or_released(tree: Path, folder: Path) -> None:
    step, killed = 0, True
    while killed:
        workdir.discard(str(folder))
        killed = run_until_killed(folder, step, str(tree))
        if step % 2:
            assert listing(start(tree, folder)) == listing(tree)
        assert workdir.release(str(folder))["changed"] == 0
        assert not listing(folder / "work")
        step += 1
    assert step > 4


def test_after_a_reboot_what_was_written_is_still_released(tree: Path, folder: Path) -> None:
    work = start(tree, folder)
    (work / "out").write_text("weights")
    (work / "train.py").unlink()
    if workdir.is_mounted(str(folder)):
        overlay.unmount(str(work))  # as a reboot does
        (work / "stray").write_text("written where nothing was mounted")
        with pytest.raises(workdir.WorkdirError, match="no longer mounted"):
            workdir.make(str(tree), str(folder))
    result = workdir.release(str(folder))
    assert result["deleted"] == ["train.py"]
    assert listing(work) == {"out": "weights"}
    if result["method"] == "overlay":
        assert result["beneath"] == "work.beneath"
        assert (folder / "work.beneath/stray").exists()


def test_a_process_that_still_uses_the_mount_is_said(tree: Path, folder: Path) -> None:
    work = start(tree, folder)
    mounted = workdir.is_mounted(str(folder))
    child = subprocess.Popen(["cat"], cwd=work, stdin=subprocess.PIPE)
    try:
        (work / "out").write_text("x")
        result = workdir.release(str(folder))
        assert result["detached"] == mounted
        assert listing(work) == {"out": "x"}
    finally:
        child.communicate()


def test_a_task_that_removes_everything_around_it_breaks_nothing(tree: Path, folder: Path) -> None:
    work = start(tree, folder)
    subprocess.run(["rm", "-rf", str(folder)], stderr=subprocess.DEVNULL)
    workdir.release(str(folder))
    workdir.discard(str(folder))
    assert not workdir.is_mounted(str(folder))
    assert not work.exists() or not listing(work)
    assert (tree / "train.py").exists()


def test_a_task_that_removes_the_folders_beside_its_checkout_breaks_nothing(tree: Path, folder: Path) -> None:
    start(tree, folder)
    for name in ("upper", "overlay", "index"):
        subprocess.run(["rm", "-rf", str(folder / name)], check=True)
    assert workdir.release(str(folder))["deleted"] == []
    assert not workdir.is_mounted(str(folder))


def test_discard_removes_everything_and_follows_no_link(tree: Path, folder: Path, base: Path) -> None:
    work = start(tree, folder)
    (base / "data").mkdir()
    (base / "data/precious").write_text("x")
    workdir.link_data(str(work), [{"path": "data", "source": str(base / "data")}])
    (work / "locked").mkdir(mode=0o000)
    workdir.discard(str(folder))
    assert {p.name for p in folder.iterdir()} == {"expected"}
    assert (base / "data/precious").exists()


def test_a_task_that_puts_a_file_system_into_a_copy_loses_nothing_of_it(tree: Path, base: Path) -> None:
    if not overlay._may_mount():
        if os.environ.get("MLLAUNCH_REQUIRE_REAL") == "1":
            pytest.fail("this test needs the right to mount")
        pytest.skip("no right to mount here")
    attempt = base / "copied"
    attempt.mkdir()
    (attempt / "work").mkdir()
    index = str(attempt / "index")
    method = treecopy.copy(str(tree), str(attempt / "work"), index)
    (attempt / "workdir.json").write_text(json.dumps({"method": method, "tree": str(tree), "links": []}))
    place = attempt / "work/pkg"
    subprocess.run(["mount", "--bind", tree / "pkg", place], check=True)
    try:
        before = listing(tree)
        for remove in (workdir.release, workdir.discard):
            with pytest.raises(workdir.WorkdirError, match="another file system"):
                remove(str(attempt))
        assert listing(tree) == before
    finally:
        subprocess.run(["umount", place], check=True)
    workdir.release(str(attempt))
    assert listing(tree) == before
    assert not listing(attempt / "work")


def test_a_task_is_told_of_changes_by_inotify(tree: Path, folder: Path) -> None:
    work = start(tree, folder)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK)
    modified, created = 0x2, 0x100
    for path, mask in ((work / "train.py", modified), (work / "pkg", created)):
        assert libc.inotify_add_watch(fd, os.fsencode(path), mask) > 0
    (work / "train.py").write_text("edited")
    (work / "pkg/new.py").write_text("new")
    events = os.read(fd, 4096)
    os.close(fd)
    masks = set()
    while events:
        _, mask, _, length = struct.unpack_from("iIII", events)
        masks.add(mask)
        events = events[16 + length :]
    assert masks == {modified, created}


def test_where_the_kernel_refuses_an_overlay_the_checkout_is_a_copy(tree: Path, folder: Path) -> None:
    work = start(tree, folder)
    nested = work / "attempt"  # with an overlay: on an overlay, which can't be an upper folder
    nested.mkdir()
    method = workdir.make(str(tree), str(nested))
    assert method in ("copy", "reflink")
    assert listing(nested / "work") == listing(tree)
    assert {p.name for p in nested.iterdir()} == {"index", "work", "workdir.json"}


def test_a_tree_of_read_only_files_is_copied_so_that_the_task_sees_writable_ones(
    tree: Path, folder: Path
) -> None:
    for path in tree.rglob("*"):
        if path.is_file() and not path.is_symlink():
            path.chmod(0o555 if path.name == "run.sh" else 0o444)
    assert workdir.make(str(tree), str(folder)) in ("copy", "reflink")
    modes = {p.name: p.stat().st_mode & 0o777 for p in (folder / "work").rglob("*.*") if not p.is_symlink()}
    assert modes["run.sh"] == 0o755
    assert modes["model.py"] == 0o644
