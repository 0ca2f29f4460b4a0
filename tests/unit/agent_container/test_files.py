"""What a container wrote: which of it is asked for, and what is believed of the answers."""

from __future__ import annotations

import base64
import io
import json
import os
import tarfile
from collections.abc import Collection, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch_agent.container_files import (
    ADDED,
    CHANGED,
    DELETED,
    Plan,
    _extract,
    archive,
    bring_out,
    files_below,
    plan,
)
from mllaunch_agent.engine import Engine, EngineError, EngineGone
from tests.fakes.engine import FakeEngine, document, endless, refusal

WORKSPACE = "/workspace"


def planned(*changes: tuple[str, int], mounted: Collection[str] = ()) -> Plan:
    """Paths and mounts are relative to the workspace."""
    return plan(
        [(f"{WORKSPACE}/{path}", kind) for path, kind in changes],
        WORKSPACE,
        [f"{WORKSPACE}/{path}" for path in mounted],
    )


# --- what is asked for


def test_a_new_folder_comes_as_a_whole() -> None:
    found = planned(("new", ADDED), ("new/a", ADDED), ("new/deep", ADDED), ("new/deep/b", ADDED))
    assert found == Plan(["new"], [], [])


def test_of_a_folder_that_was_there_only_what_changed_in_it_comes() -> None:
    found = planned(("src", CHANGED), ("src/a", CHANGED), ("src/b", ADDED), ("src/c", DELETED))
    assert found == Plan(["src/b"], ["src/a"], ["src/c"])


def test_what_is_mounted_is_left_out_and_a_folder_that_holds_it_is_not_taken_as_a_whole() -> None:
    found = planned(
        ("results", ADDED),
        ("results/run", ADDED),
        ("results/run/model.pt", ADDED),
        ("results/beside", ADDED),
        ("results/other", ADDED),
        ("results/other/c", ADDED),
        mounted=["results/run"],
    )
    assert found == Plan(["results/beside", "results/other"], [], [])


def test_a_mount_counts_as_the_engine_names_it_however_it_was_written() -> None:
    changes = [("data", ADDED), ("outputs", ADDED), ("new", ADDED)]
    assert planned(*changes, mounted=["data/", "./outputs"]) == Plan(["new"], [], [])


def test_a_mount_elsewhere_has_no_say_in_the_code() -> None:
    # Cut as if it were in the workspace, this one would read "dset/a", below which "dset" would be.
    changes = [("/workspace/dset", ADDED), ("/workspace/dset/a", ADDED), ("/workspace/dset/b", ADDED)]
    assert plan(changes, WORKSPACE, ["/mnt/cache/dset/a"]) == Plan(["dset"], [], [])


def test_what_lies_outside_of_the_workspace_stays_there() -> None:
    changes = [("/tmp", CHANGED), ("/tmp/x", ADDED), ("/workspace", CHANGED), ("/workspaces/y", ADDED)]
    assert plan(changes, WORKSPACE, []) == Plan([], [], [])


NAMES = st.sampled_from(["a", "b", "c"])
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


def above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def is_below(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder + "/") for folder in folders)


def without_conflicts(paths: Iterable[str]) -> set[str]:
    """Those that can all be files of one tree."""
    kept: set[str] = set()
    for path in sorted(paths):
        if not is_below(path, kept):
            kept.add(path)
    return kept


class Listing:
    """What an engine lists of a tree before and after."""

    def __init__(self, before: set[str], after: set[str], written: set[str], mounts: set[str]) -> None:
        self.mounts = without_conflicts(mounts)
        # What is there before the start and then mounted over is not seen, and where it is mounted is a folder.
        self.files = {p for p in after if not is_below(p, self.mounts) and not self._is_above_mount(p)}
        old = {p for p in before if not self._is_above_mount(p)}
        folders = {a for p in self.files | self.mounts for a in above(p)} | self.mounts
        old_folders = {a for p in old for a in above(p)}
        self.kinds: dict[str, int] = {}
        for path in self.files | folders:
            was = path in old, path in old_folders
            if was == (False, False):
                self.kinds[path] = ADDED
            elif was != (path in self.files, path in folders) or (path in self.files and path in written):
                self.kinds[path] = CHANGED
        for path in old | old_folders:
            gone = path not in self.files | folders and not is_below(path, self.mounts)
            if gone and all(a in folders for a in above(path)):
                self.kinds[path] = (
                    DELETED  # the topmost, and nothing where a file has taken the place of a folder
                )
        for path in list(self.kinds):
            for a in above(path):
                self.kinds.setdefault(a, CHANGED)

    def _is_above_mount(self, path: str) -> bool:
        return any(path in above(mount) for mount in self.mounts)


TREES = st.sets(PATHS, max_size=8).map(without_conflicts)
LISTINGS = st.builds(Listing, TREES, TREES, TREES, st.sets(PATHS, max_size=2))


@given(LISTINGS, st.randoms())
def test_every_change_outside_of_mounts_is_covered_exactly_once(listing: Listing, random: Any) -> None:
    changes = list(listing.kinds.items())
    random.shuffle(changes)  # engines list in no order
    found = planned(*changes, mounted=listing.mounts)
    for path, kind in changes:
        covered = [
            *(part for part in found.added if is_below(path, [part])),
            *(part for part in found.changed + found.deleted if part == path),
        ]
        if is_below(path, listing.mounts):
            assert not covered
        elif path in listing.files or kind == DELETED:
            assert len(covered) == 1
        else:
            assert len(covered) <= 1  # a folder of which only a part comes needs no mention
    for part in found.added:
        assert not any(is_below(mount, [part]) for mount in listing.mounts)


# --- what is believed

Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, content: bytes = b"", **fields: Any) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mtime = 1_700_000_000
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def folder(name: str) -> Member:
    return member(name, type=tarfile.DIRTYPE)


def link(name: str, target: str) -> Member:
    return member(name, type=tarfile.SYMTYPE, linkname=target)


def hard_link(name: str, target: str) -> Member:
    return member(name, type=tarfile.LNKTYPE, linkname=target)


def tar(*members: Member) -> bytes:
    out = io.BytesIO()
    # Without the padding to a whole tape record, as Go writes it.
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as file:
        for info, content in members:
            file.addfile(info, io.BytesIO(content))
        end = file.offset
    return out.getvalue()[:end] + bytes(1024)


def extract(work: Path, *members: Member, below: str = "") -> None:
    with tarfile.open(fileobj=io.BytesIO(tar(*members)), mode="r|") as file:
        _extract(file, str(work / below), str(work))


def listed(root: Path) -> dict[str, str]:
    """Every file and link below a folder, with what is in it."""
    found = {}
    for path in root.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(root))] = f"-> {path.readlink()}"
        elif not path.is_dir():
            found[str(path.relative_to(root))] = path.read_text()
    return found


@pytest.fixture
def work(tmp_path: Path) -> Path:
    (tmp_path / "outside").write_text("mine")
    made = tmp_path / "work"
    made.mkdir()
    return made


def test_files_links_and_folders_come_as_they_were(work: Path) -> None:
    extract(
        work,
        folder("new"),
        member("new/run.sh", b"#!/bin/sh", mode=0o755),
        link("new/link", "/etc/passwd"),
        hard_link("new/same.sh", "new/run.sh"),
        folder("new/empty"),
        below="src",
    )
    assert listed(work) == {
        "src/new/run.sh": "#!/bin/sh",
        "src/new/link": "-> /etc/passwd",
        "src/new/same.sh": "#!/bin/sh",
    }
    assert (work / "src/new/empty").is_dir()
    assert os.access(work / "src/new/run.sh", os.X_OK)
    assert (work / "src/new/run.sh").stat().st_mtime == 1_700_000_000


def test_it_can_be_repeated_and_whatever_is_in_the_way_goes(work: Path) -> None:
    (work / "a").mkdir()
    (work / "a" / "old").write_text("old")
    (work / "b").write_text("a file")
    for _ in range(2):
        extract(work, member("a", b"now a file"), folder("b"), member("b/c", b"c"), link("d", "b"))
    assert listed(work) == {"a": "now a file", "b/c": "c", "d": "-> b"}


def test_no_name_leads_out(work: Path) -> None:
    extract(
        work,
        member("../outside", b"theirs"),
        member("a/../../outside", b"theirs"),
        member("/outside", b"theirs"),
        member("//outside2", b"theirs"),
        member("./c", b"fine"),
    )
    assert (work.parent / "outside").read_text() == "mine"
    assert listed(work) == {"outside": "theirs", "outside2": "theirs", "c": "fine"}


@pytest.mark.parametrize("target", ["..", "../outside", "/nowhere"])
def test_nothing_is_written_through_a_link_that_came_before(work: Path, target: str) -> None:
    extract(work, link("a", target), member("a/outside", b"theirs"), link("b", target), member("b", b"b"))
    assert (work.parent / "outside").read_text() == "mine"
    assert listed(work) == {"a/outside": "theirs", "b": "b"}


def test_nothing_is_written_through_a_link_that_was_there(work: Path) -> None:
    (work / "src").symlink_to(work.parent)
    extract(work, member("outside", b"theirs"), below="src")
    assert (work.parent / "outside").read_text() == "mine"
    assert listed(work) == {"src/outside": "theirs"}


@pytest.mark.parametrize("target", ["../outside", "x/../../outside", "in/outside", "nowhere", "self", "in"])
def test_a_hard_link_takes_nothing_but_a_file_that_came_with_it(work: Path, target: str) -> None:
    extract(work, link("in", ".."), member("self", b"kept"), hard_link("self", target))
    assert listed(work) == {"in": "-> ..", "self": "kept"}


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes_are_not_made_and_take_nothing_away(work: Path, kind: bytes) -> None:
    extract(work, member("a", b"kept"), member("a", type=kind), member("b", type=kind))
    assert listed(work) == {"a": "kept"}


def test_set_user_id_is_not_believed(work: Path) -> None:
    extract(work, member("a", b"", mode=0o6755))
    assert (work / "a").stat().st_mode & 0o7777 == 0o755 & ~umask()


def umask() -> int:
    now = os.umask(0)
    os.umask(now)
    return now


# --- both together, from an engine


def stat_of(name: str, folder: bool = False) -> bytes:
    info = {"name": name, "size": 0, "mode": 1 << 31 if folder else 0o644}
    return endless(b"", X_Docker_Container_Path_Stat=base64.b64encode(json.dumps(info).encode()).decode())


def changed(*changes: tuple[str, int]) -> bytes:
    return document([{"Path": f"{WORKSPACE}/{path}", "Kind": kind} for path, kind in changes])


def test_what_changed_ends_up_where_a_process_would_have_written_it(fake: FakeEngine, work: Path) -> None:
    fake.tell(
        "GET", "/containers/c/changes", changed(("src", CHANGED), ("src/a.py", CHANGED), ("x", DELETED))
    )
    fake.tell("HEAD", "/containers/c/archive", stat_of("a.py"))
    fake.tell("GET", "/containers/c/archive", endless(tar(member("a.py", b"new"))))
    found = bring_out(Engine(fake.path), "c", WORKSPACE, [], str(work))
    assert found == Plan([], ["src/a.py"], ["x"], [])
    assert listed(work) == {"src/a.py": "new"}


def test_a_folder_of_which_only_its_times_changed_is_not_asked_for(fake: FakeEngine, work: Path) -> None:
    fake.tell("GET", "/containers/c/changes", changed(("src", CHANGED)))
    fake.tell("HEAD", "/containers/c/archive", stat_of("src", folder=True))
    assert bring_out(Engine(fake.path), "c", WORKSPACE, [], str(work)) == Plan([], [], [], [])
    assert not any("archive" in target for target in fake.asked("GET"))


def test_a_name_that_the_engine_cannot_give_costs_nothing_but_itself(fake: FakeEngine, work: Path) -> None:
    fake.tell("GET", "/containers/c/changes", changed(("a\N{REPLACEMENT CHARACTER}", ADDED), ("b", ADDED)))
    fake.tell(
        "GET",
        "/containers/c/archive",
        refusal(404, "Could not find the file"),
        endless(tar(member("b", b"b"))),
    )
    found = bring_out(Engine(fake.path), "c", WORKSPACE, [], str(work))
    assert found.missing == ["a\N{REPLACEMENT CHARACTER}"]
    assert listed(work) == {"b": "b"}


def test_another_refusal_is_not_passed_over(fake: FakeEngine, work: Path) -> None:
    fake.tell("GET", "/containers/c/changes", changed(("a", ADDED)))
    fake.tell("GET", "/containers/c/archive", refusal(500, "disk on fire"))
    with pytest.raises(EngineError, match="disk on fire"):
        bring_out(Engine(fake.path), "c", WORKSPACE, [], str(work))


def test_a_rank_has_a_folder_of_its_own_whatever_another_rank_has_left_there(
    fake: FakeEngine, work: Path
) -> None:
    fake.tell("GET", "/containers/c/changes", changed(("outside", ADDED)))
    fake.tell("GET", "/containers/c/archive", endless(tar(member("outside", b"theirs"))))
    (work / "rank-1").symlink_to(work.parent)
    for rank in ("rank-1", "rank-2"):
        bring_out(Engine(fake.path), "c", WORKSPACE, [], str(work / rank))
    assert (work.parent / "outside").read_text() == "mine"
    assert listed(work) == {"rank-1/outside": "theirs", "rank-2/outside": "theirs"}


def test_where_nothing_changed_no_folder_is_made(fake: FakeEngine, work: Path) -> None:
    fake.tell("GET", "/containers/c/changes", document(None))  # so says Docker
    bring_out(Engine(fake.path), "c", WORKSPACE, [], str(work / "rank-1"))
    assert list(work.iterdir()) == []


WHOLE = tar(folder("n"), member("n/a", b"x" * 700), member("n/zeros", bytes(2048)), member("n/b", b"y"))


@pytest.mark.parametrize("size", range(0, len(WHOLE) - 1024, 256))
def test_an_archive_that_ends_too_early_is_noticed_wherever_it_is_torn(fake: FakeEngine, size: int) -> None:
    fake.tell("GET", "/containers/c/changes", changed(("n", ADDED)))
    fake.tell("GET", "/containers/c/archive", endless(WHOLE[:size]))
    with TemporaryDirectory() as work, pytest.raises(EngineGone):
        bring_out(Engine(fake.path), "c", WORKSPACE, [], work)


def test_what_is_no_archive_is_an_engine_that_has_gone(fake: FakeEngine) -> None:
    fake.tell("GET", "/containers/c/archive", endless(b"<html>" * 400))
    with pytest.raises(EngineGone), archive(Engine(fake.path), "c", "/x"):
        pass


def test_an_archive_of_what_cannot_be_in_one_is_empty(fake: FakeEngine) -> None:
    fake.tell("GET", "/containers/c/archive", endless(tar()))  # a socket
    with archive(Engine(fake.path), "c", "/x") as found:
        assert list(found) == []


def test_files_are_listed_below_the_folders_that_came(work: Path) -> None:
    (work / "new" / "deep").mkdir(parents=True)
    (work / "new" / "deep" / "a.py").write_text("")
    (work / "link").symlink_to("new")
    assert list(files_below(str(work), ["new", "link", "gone"])) == ["new/deep/a.py", "link", "gone"]
