"""Tasks as containers, as far as it can be told without any: who is to look after them, and what is left behind."""

from __future__ import annotations

import io
import os
import signal
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mllaunch_agent import container_shim, protocol, shim
from mllaunch_agent.blobs import BlobLog
from mllaunch_agent.codewatch import blob_id_of
from mllaunch_agent.engine import Engine, EngineError
from mllaunch_agent.probes.container import TREE, why_no_c_layer
from mllaunch_agent.runtimes import docker
from mllaunch_agent.runtimes.docker import DockerRuntime
from tests.fakes.engine import FakeEngine, answer, document, endless, refusal
from tests.unit.agent_container import specs


class Events:
    def __init__(self) -> None:
        self.past: list[protocol.Event] = []
        self.written: list[dict[str, Any]] = []

    def write(self, kind: str, **fields: Any) -> None:
        self.written.append({"kind": kind, **fields})

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.written if event["kind"] == kind]


class Supervisor:
    """What a runtime asks of one."""

    def __init__(self, spec: protocol.TaskSpec) -> None:
        self.spec = spec
        self.folder = spec["folder"]
        self.events = Events()
        self.tasks: dict[int, protocol.TaskRecord] = {}
        self.exits: dict[int, Any] = {}
        self.stopping: object = None
        self.lease = None
        self.port = 0
        self.master = ("127.0.0.1", 0)
        self.blobs = BlobLog(spec["folder"])
        self.started_late: list[int] = []
        self.shims: set[int] = set()

    def gpus(self) -> tuple[str, ...]:
        return ()

    def has_shim(self, rank: int) -> bool:
        return rank in self.shims

    def start_late(self, rank: int) -> None:
        self.started_late.append(rank)
        self.shims.add(rank)

    def has_task(self, rank: int, pid: int = 0) -> None:
        self.tasks[rank] = {
            "rank": rank,
            "pid": pid,
            "start_ticks": 0,
            "boot_id": "",
            "shim_pid": 0,
            "shim_start_ticks": 0,
            "container": f"c{rank}",
            "prints": None,
        }


class Scene:
    def __init__(self, folder: Path, fake: FakeEngine, tasks: int) -> None:
        self.home = folder
        self.folder = folder / "runs" / "RUN" / "1"
        (self.folder / "work").mkdir(parents=True)
        (self.folder / "streams").mkdir()
        given = specs.container(engine=fake.path)
        self.spec = specs.spec(
            folder=str(self.folder),
            tasks=specs.places(tasks),
            container=given,
            cache=str(folder / "cache"),
        )
        self.supervisor = Supervisor(self.spec)
        self.fake = fake
        asking: Any = self.supervisor
        self.runtime = DockerRuntime(asking, given)

    @property
    def written(self) -> list[dict[str, Any]]:
        return self.supervisor.events.written


@pytest.fixture
def scene(tmp_path: Path, fake: FakeEngine) -> Scene:
    return Scene(tmp_path, fake, 2)


# --- who looks after it


class Thread:
    """One that is over as soon as it has begun."""

    def __init__(self, target: Any, args: tuple[Any, ...], daemon: bool) -> None:
        self.start = lambda: target(*args)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ranks that a thread of ours has looked after."""
    found: list[int] = []
    monkeypatch.setattr(container_shim, "look_after", lambda launch: found.append(launch.rank))
    monkeypatch.setattr(threading, "Thread", Thread)
    monkeypatch.setattr(docker, "_LOOK_PAUSES_S", (0.0,))
    return found


def find_exits(scene: Scene) -> None:
    for place in scene.spec["tasks"]:
        scene.runtime.find_exit(place["rank"], scene.supervisor.tasks.get(place["rank"]))


def test_no_thread_of_ours_runs_while_a_task_has_yet_to_be_started(scene: Scene, looked: list[int]) -> None:
    scene.supervisor.has_task(0)
    (scene.folder / "task-0.json").touch()
    find_exits(scene)
    assert (looked, scene.supervisor.started_late) == ([], [1])
    find_exits(scene)
    assert (looked, scene.supervisor.started_late) == ([0], [1])


def test_what_was_not_started_when_the_run_is_stopped_never_is(scene: Scene, looked: list[int]) -> None:
    scene.supervisor.stopping = object()
    find_exits(scene)
    assert (looked, scene.supervisor.started_late) == ([], [])
    for rank in (0, 1):
        assert "stopped before it started" in Path(shim.exit_path(str(scene.folder), rank)).read_text()


def test_a_task_whose_shim_lives_is_left_alone(scene: Scene, looked: list[int]) -> None:
    scene.supervisor.shims = {0, 1}
    find_exits(scene)
    assert (looked, scene.supervisor.started_late) == ([], [])


# --- the C layer


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (lambda: endless(tar({"c-layer/preload.c": b"", "c-layer/preload.so": b"x"})), None),
        (lambda: endless(tar({"c-layer/preload.c": b"", "c-layer/why": b"no\ncompiler\n"})), "no compiler"),
        (
            lambda: refusal(404, "no such file"),
            "the image is none of those that mllaunch builds by itself",
        ),
        (lambda: refusal(500, "a fault"), "the container engine: a fault"),
        (lambda: endless(b""), "the container engine: the archive ended early"),
    ],
)
def test_an_image_has_the_c_layer_if_the_library_is_in_it(
    fake: FakeEngine, given: Callable[[], bytes], why: str | None
) -> None:
    fake.tell("POST", "/containers/create", document({"Id": "probe"}, 201))
    fake.tell("GET", "/containers/probe/archive", given())
    fake.tell("DELETE", "/containers/probe", answer(status=204))
    assert why_no_c_layer(Engine(fake.path), "sha256:1") == why
    assert fake.asked("DELETE") == ["/containers/probe?force=1&v=1"]


def test_an_engine_that_is_away_has_none() -> None:
    assert "nowhere" in str(why_no_c_layer(Engine("/nowhere.sock"), "sha256:1"))


# --- signals


def test_a_task_that_cannot_be_seen_from_here_is_signalled_through_the_engine(scene: Scene) -> None:
    scene.fake.tell("POST", "/containers/c1/kill", answer(status=204))
    scene.supervisor.has_task(0, pid=os.getpid())  # not the one that it was
    scene.supervisor.has_task(1)
    (unseen,) = scene.runtime.mains()
    assert scene.runtime.living() == [unseen]
    scene.runtime.send(unseen, signal.SIGTERM)
    assert scene.fake.asked("POST") == ["/containers/c1/kill?signal=15"]
    scene.supervisor.exits[1] = {}
    assert scene.runtime.mains() == scene.runtime.living() == []


# --- after the end


def tar(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return out.getvalue()


def changed(*changes: tuple[str, int]) -> bytes:
    return document([{"Path": f"/workspace/{path}", "Kind": kind} for path, kind in changes])


def ended(scene: Scene, rank: int, changes: bytes, *archives: bytes) -> None:
    """A rank's container that has ended. archives: what it gives, in turn; the last is its list of the code."""
    scene.supervisor.has_task(rank)
    scene.fake.tell("GET", f"/containers/c{rank}/json", document({"Id": f"c{rank}"}))
    scene.fake.tell("GET", f"/containers/c{rank}/changes", changes)
    scene.fake.tell("GET", f"/containers/c{rank}/archive", *archives)


def listing(*paths: str) -> bytes:
    """All of them hold one ``x``."""
    text = "".join(f"100644 {blob_id_of(b'x')}\t{path}\0" for path in paths)
    return endless(tar({Path(TREE).name: text.encode()}))


def test_each_rank_brings_out_what_it_wrote_and_the_code_that_it_deleted(scene: Scene) -> None:
    ended(scene, 0, changed(("old.py", 2), ("new", 1)), endless(tar({"new/a.py": b"0"})), listing("old.py"))
    ended(scene, 1, changed(("old.py", 2), ("b.txt", 1)), endless(tar({"b.txt": b"1"})), listing("old.py"))
    assert scene.runtime.release() == ["old.py", "rank-1/old.py"]
    work = scene.folder / "work"
    assert (work / "new/a.py").read_bytes() == b"0"
    assert (work / "rank-1/b.txt").read_bytes() == b"1"
    said = [
        (e["rank"], e["path"], e["before"], e["after"]) for e in scene.supervisor.events.of("code_changed")
    ]
    x = blob_id_of(b"x")
    assert said == [(0, "old.py", x, None), (0, "new/a.py", None, blob_id_of(b"0")), (1, "old.py", x, None)]


def test_to_bring_out_again_says_nothing_twice(scene: Scene) -> None:
    ended(
        scene,
        0,
        changed(("new", 1)),
        endless(tar({"new/a.py": b"0"})),
        listing(),
        endless(tar({"new/a.py": b"0"})),
    )
    scene.runtime.release()
    scene.runtime.release()
    assert len(scene.supervisor.events.of("code_changed")) == 1


def test_what_the_engine_lists_and_does_not_give_is_on_record(scene: Scene) -> None:
    ended(
        scene,
        0,
        changed(("a", 1), ("b", 1)),
        refusal(404, "no such file"),
        endless(tar({"b": b"b"})),
        listing(),
    )
    assert scene.runtime.release() == []
    assert (scene.folder / "work" / "b").exists()
    (missing,) = scene.written
    assert missing["what"] == "1 of the files that rank 0 wrote, such as a"


def test_a_container_that_is_gone_takes_nothing_but_its_own_files_along(scene: Scene) -> None:
    ended(scene, 0, changed(), listing())
    scene.fake.tell("GET", "/containers/c0/json", refusal(404, "No such container"))
    ended(scene, 1, changed(("b", 1)), endless(tar({"b": b"b"})), listing())
    assert scene.runtime.release() == []
    assert "the container was removed" in scene.written[0]["why"]
    assert (scene.folder / "work" / "rank-1" / "b").exists()


def test_an_engine_that_is_just_away_is_waited_for(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "_ENGINE_PAUSE_S", 0.0)
    ended(scene, 0, changed(("b", 1)), endless(tar({"b": b"b"})), listing())
    scene.fake.tell("GET", "/containers/c0/json", b"", b"", document({"Id": "c0"}))
    assert scene.runtime.release() == []
    assert scene.written == []
    assert (scene.folder / "work" / "b").exists()


def test_a_link_among_the_code_is_no_file_that_is_gone(scene: Scene) -> None:
    """Where the kernel does not let us look, the engine is asked while the task runs."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        info = tarfile.TarInfo("link")
        info.type, info.linkname = tarfile.SYMTYPE, "y"
        file.addfile(info)
    ended(scene, 0, changed(("link", 0)), listing("link"), endless(out.getvalue()))
    scene.runtime._code._ask_for_changes(scene.supervisor.events.write, 0, scene.supervisor.tasks[0])
    assert [(e["path"], e["after"]) for e in scene.written] == [("link", blob_id_of(b"y"))]


def test_of_the_code_only_what_changed_is_asked_for_while_the_task_runs(scene: Scene) -> None:
    ended(
        scene,
        0,
        changed(("src", 0), ("src/a.py", 0)),
        listing("src/a.py", "src/b.py"),
        endless(tar({"a.py": b"y"})),
    )
    scene.runtime._code._ask_for_changes(scene.supervisor.events.write, 0, scene.supervisor.tasks[0])
    assert [target for target in scene.fake.asked("GET") if "/workspace" in target] == [
        "/containers/c0/archive?path=/workspace/src/a.py"
    ]


@pytest.mark.parametrize(
    ("state", "where", "goes"),
    [
        ("running", "sealed", True),  # the engine was away when it should have gone
        ("exited", "sealed", True),
        ("exited", "gone", True),
        ("created", "gone", True),
        ("running", "gone", False),  # perhaps it is there for who looks from another place
        ("exited", "unsealed", False),
        ("running", "unsealed", False),
        ("exited", "elsewhere", False),
    ],
)
def test_of_other_attempts_only_what_nobody_will_ask_for_is_cleared_away(
    scene: Scene, state: str, where: str, goes: bool
) -> None:
    folder = scene.home / "runs" / "OTHER" / "1"
    if where == "elsewhere":
        folder = Path("/another/machines/home/runs/OTHER/1")
    elif where != "gone":
        folder.mkdir(parents=True)
        if where == "sealed":
            (folder / "seal.json").touch()
    for target in (
        "mllaunch-brave-otter-17-8265aab3f1cc-1-0",
        "mllaunch-brave-otter-17-8265aab3f1cc-1-1",
        "o",
    ):
        scene.fake.tell("DELETE", f"/containers/{target}", answer(status=204))
    found = {"Id": "o", "State": state, "Labels": {"mllaunch.folder": str(folder)}}
    scene.fake.tell("GET", "/containers/json", document([found]), document([]))
    scene.runtime.close()
    assert scene.written == []
    assert ("/containers/o?force=1&v=1" in scene.fake.asked("DELETE")) is goes


def test_the_container_of_a_probe_whose_agent_was_killed_goes_after_an_hour(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time", lambda: 10_000.0)
    old, new = {"Id": "old", "Created": 6_000}, {"Id": "new", "Created": 7_000}
    scene.fake.tell("GET", "/containers/json", document([]), document([old, new]))
    scene.runtime.close()
    assert scene.fake.asked("DELETE")[2:] == ["/containers/old?force=1&v=1"]


def test_an_engine_that_is_away_at_the_end_is_on_record(scene: Scene) -> None:
    scene.fake.close()
    scene.runtime.close()
    assert "the container engine did not answer" in scene.written[0]["why"]


# --- before the start


def test_an_image_for_another_machine_is_refused(scene: Scene) -> None:
    docker._refuse_foreign({"Arch": "x86_64"}, {"Architecture": "amd64"})
    with pytest.raises(EngineError, match="the image is for arm64, and this node is amd64"):
        docker._refuse_foreign({"Arch": "amd64"}, {"Architecture": "arm64"})
