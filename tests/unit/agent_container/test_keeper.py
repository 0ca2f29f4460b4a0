"""Whoever looks after a container: it is made once, started once, and how it ended is never made up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mllaunch_agent import container, container_shim, container_watch, shim
from mllaunch_agent.container_shim import Launch, _Keeper
from mllaunch_agent.container_watch import seen_from_here
from tests.fakes.engine import FakeEngine, answer, chunked, document, endless, frame, refusal

TORN = endless(b"")
RUN = "01a1fda8-4fdf-7b40-87d1-8265aab3f1cc"


def state(status: str, **more: Any) -> dict[str, Any]:
    return {"Status": status, "ExitCode": 0, "Pid": 0, "Error": "", "OOMKilled": False, **more}


def inspected(state: dict[str, Any], prints: str = container.FILES) -> bytes:
    labels = {"mllaunch.output": prints, "mllaunch.run": RUN}
    settings = {"Ulimits": [{"Name": "memlock", "Soft": -1, "Hard": -1}]}
    return document({"Id": "c1", "State": state, "Config": {"Labels": labels}, "HostConfig": settings})


EXITED = state("exited", ExitCode=3, FinishedAt="2026-01-01T00:00:00.5Z")
NONE = refusal(404, "No such container")


class Scene:
    """One rank's container, at an engine where all goes well unless it is told otherwise."""

    def __init__(self, folder: Path, fake: FakeEngine) -> None:
        self.folder = folder
        self.fake = fake
        (folder / "streams").mkdir()
        self.requests: list[container.Manner] = []
        self.waits = 0
        fake.tell("POST", "/containers/create", document({"Id": "c1"}, 201))
        fake.tell("HEAD", "/containers/c1/archive", endless(b"", X_Docker_Container_Path_Stat="e30="))
        fake.tell("POST", "/containers/c1/start", answer(status=204))
        fake.tell("POST", "/containers/c1/wait", chunked(b"{}"))
        fake.tell("GET", "/containers/c1/logs", endless(b""))
        fake.tell("GET", "/events", endless(b""))
        fake.tell("DELETE", "/containers/name", answer(status=204))
        self.by_name(NONE, inspected(state("created")))
        self.by_id(inspected(state("created")), inspected(EXITED))

    def by_name(self, *answers: bytes) -> None:
        """What the engine knows of the name, in turn: that is asked until the container is found or made."""
        self.fake.tell("GET", "/containers/name/json", *answers)

    def by_id(self, *answers: bytes) -> None:
        """And of the container afterwards."""
        self.fake.tell("GET", "/containers/c1/json", *answers)

    def was_started(self) -> None:
        (self.folder / "starting-0").touch()

    def manner(self, *manner: object) -> None:
        (self.folder / "manner").write_text(json.dumps(manner))

    def keep(self) -> Any:
        """Until the end; the exit record."""

        def request(manner: container.Manner) -> dict[str, Any]:
            self.requests.append(manner)
            return {}

        def wait(files: Iterable[int], timeout_s: float | None) -> set[int]:
            self.waits += 1
            assert self.waits < 100, "it goes round in circles"
            return set(files)

        launch = Launch(str(self.folder), 0, self.fake.path, "name", request, str(self.folder / "manner"))
        _Keeper(launch, wait).keep()
        return json.loads(Path(shim.exit_path(str(self.folder), 0)).read_text())

    def count(self, method: str, part: str) -> int:
        return sum(part in target for target in self.fake.asked(method))


@pytest.fixture
def scene(tmp_path: Path, fake: FakeEngine) -> Scene:
    return Scene(tmp_path, fake)


def test_a_container_is_made_started_and_its_end_heard(scene: Scene) -> None:
    record = scene.keep()
    assert (record["exit_code"], record["error"], record["observed_by"]) == (3, None, "engine")
    assert record["at"] == "2026-01-01T00:00:00.500Z"
    assert (record["out_of_memory"], record["by_engine"]) == (False, False)
    assert (scene.count("POST", "create"), scene.count("POST", "start")) == (1, 1)
    task = json.loads(Path(shim.task_path(str(scene.folder), 0)).read_text())
    assert (task["container"], task["pid"]) == ("c1", 0)


def test_a_container_that_is_there_is_not_made_again_and_one_that_was_started_not_started(
    scene: Scene,
) -> None:
    scene.was_started()
    scene.by_name(inspected(state("running")))
    scene.by_id(inspected(EXITED))
    assert scene.keep()["exit_code"] == 3
    assert (scene.count("POST", "create"), scene.count("POST", "start")) == (0, 0)


def test_a_container_that_was_made_and_not_started_is_started(scene: Scene) -> None:
    scene.manner(container.FILES, True)
    scene.by_name(inspected(state("created")))
    assert scene.keep()["exit_code"] == 3
    assert (scene.count("POST", "create"), scene.count("POST", "start")) == (0, 1)


def test_one_that_another_made_meanwhile_is_taken(scene: Scene) -> None:
    scene.fake.tell("POST", "/containers/create", refusal(409, "the name is in use"))
    assert scene.keep()["exit_code"] == 3


def test_a_start_that_was_heard_though_its_answer_was_lost_is_not_asked_for_again(scene: Scene) -> None:
    scene.fake.tell("POST", "/containers/c1/start", b"", answer(status=204))
    scene.by_id(inspected(state("created")), inspected(EXITED))
    assert scene.keep()["exit_code"] == 3
    assert scene.count("POST", "start") == 1


def test_a_start_that_was_not_heard_is_asked_for_again(scene: Scene) -> None:
    scene.fake.tell("POST", "/containers/c1/start", b"", answer(status=204))
    scene.by_id(inspected(state("created")), inspected(state("created")), inspected(EXITED))
    assert scene.keep()["exit_code"] == 3
    assert scene.count("POST", "start") == 2


def test_a_container_that_ran_and_was_removed_is_not_made_again_and_its_end_is_unknown(scene: Scene) -> None:
    scene.was_started()
    scene.by_name(NONE)
    record = scene.keep()
    assert (record["exit_code"], record["error"], record["observed_by"]) == (None, None, None)
    assert scene.count("POST", "create") == 0


def test_a_container_that_is_removed_while_it_runs_has_an_unknown_end(scene: Scene) -> None:
    scene.by_id(inspected(state("created")), inspected(state("running")), NONE)
    record = scene.keep()
    assert (record["exit_code"], record["error"]) == (None, None)


def test_what_an_engine_refuses_is_why_it_could_not_begin(scene: Scene) -> None:
    scene.fake.tell("POST", "/containers/create", refusal(404, "No such image: x"))
    record = scene.keep()
    assert (record["exit_code"], record["error"]) == (127, "No such image: x")


def test_a_node_without_the_container_toolkit_is_told_of_in_our_words(scene: Scene) -> None:
    said = 'could not select device driver "" with capabilities: [[gpu]]'
    scene.fake.tell("POST", "/containers/c1/start", refusal(500, said))
    assert scene.keep()["error"] == container.NO_GPU


@pytest.mark.parametrize(("started", "error"), [(False, True), (True, False)])
def test_an_engine_that_stays_away_at_the_start_is_an_error_unless_the_task_may_have_run(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, started: bool, error: bool
) -> None:
    monkeypatch.setattr(container_shim, "_ENGINE_PATIENCE_S", -1.0)
    if started:
        scene.was_started()
    scene.by_name(TORN)
    record = scene.keep()
    assert bool(record["error"]) is error
    assert record["exit_code"] == (127 if error else None)


# --- the manner


def test_an_image_without_a_shell_prints_to_the_engine_which_is_found_out_once(scene: Scene) -> None:
    scene.fake.tell("HEAD", "/containers/c1/archive", refusal(404, ""))
    scene.by_name(NONE, inspected(state("created")), inspected(state("created"), container.ENGINE))
    # The end is asked for, then the output brought, and only then is there a record.
    scene.fake.tell("GET", "/containers/c1/logs", chunked(frame(1, b"out\n"), frame(2, b"err\n")))
    assert scene.keep()["exit_code"] == 3
    assert scene.requests == [container.Manner(), container.Manner(prints=container.ENGINE)]
    assert json.loads((scene.folder / "manner").read_text()) == [container.ENGINE, True, "local"]
    assert (scene.folder / "streams" / "stdout.0").read_text() == "out\n"
    assert (scene.folder / "streams" / "stderr.0").read_text() == "err\n"


def test_what_one_did_not_live_to_find_out_is_found_out_by_the_next(scene: Scene) -> None:
    """The shim before died when it had made the container, and before it knew that the image has no shell."""
    scene.fake.tell("HEAD", "/containers/c1/archive", refusal(404, ""))
    scene.by_name(inspected(state("created")), inspected(state("created"), container.ENGINE))
    scene.fake.tell("GET", "/containers/c1/logs", chunked())
    assert scene.keep()["exit_code"] == 3
    assert scene.requests == [container.Manner(prints=container.ENGINE)]
    assert scene.count("DELETE", "name") == 1


def test_what_is_known_of_an_image_is_not_asked_again(scene: Scene) -> None:
    scene.manner(container.FILES, False)
    scene.keep()
    assert scene.requests == [container.Manner(container.FILES, False)]
    assert scene.fake.asked("HEAD") == []


def test_where_limits_may_not_be_raised_it_is_started_without(scene: Scene) -> None:
    scene.fake.tell("POST", "/containers/c1/start", refusal(400, "error setting rlimits"), answer(status=204))
    assert scene.keep()["exit_code"] == 3
    assert scene.requests == [container.Manner(), container.Manner(limits=False)]
    assert json.loads((scene.folder / "manner").read_text()) == [container.FILES, False, "local"]


# --- the end


def test_output_that_was_torn_at_the_end_is_brought_again_before_the_end_is_on_record(scene: Scene) -> None:
    scene.manner(container.ENGINE, True)
    scene.by_name(NONE, inspected(state("created"), container.ENGINE))
    torn = chunked(frame(1, b"one\n"), whole=False)
    scene.fake.tell("GET", "/containers/c1/logs", torn, chunked(frame(1, b"one\n"), frame(1, b"two\n")))
    record = scene.keep()
    assert (scene.folder / "streams" / "stdout.0").read_text() == "one\ntwo\n"
    # It had ended by itself before the engine went.
    assert (record["exit_code"], record["by_engine"]) == (3, False)


def test_an_end_while_the_engine_was_away_is_the_engines(scene: Scene) -> None:
    scene.by_id(
        inspected(state("created")),
        inspected(state("running")),
        TORN,
        inspected(state("exited", ExitCode=137)),
    )
    assert scene.keep()["by_engine"] is True


def test_an_engine_that_came_back_to_a_running_container_has_not_ended_it(scene: Scene) -> None:
    running = inspected(state("running"))
    scene.by_id(inspected(state("created")), running, TORN, running, inspected(EXITED))
    record = scene.keep()
    assert (record["exit_code"], record["by_engine"]) == (3, False)


def test_a_kill_through_the_engine_is_the_engines(scene: Scene) -> None:
    scene.fake.tell("GET", "/events", endless(b'{"Action":"kill","Actor":{"Attributes":{"signal":"9"}}}\n'))
    assert scene.keep()["by_engine"] is True


def test_an_engine_that_does_not_tell_of_kills_is_not_blamed(scene: Scene) -> None:
    scene.fake.tell("GET", "/events", refusal(500, "no journal"))
    assert scene.keep()["by_engine"] is False


def test_a_kill_for_memory_is_passed_on(scene: Scene) -> None:
    scene.by_id(inspected(state("created")), inspected(state("exited", ExitCode=137, OOMKilled=True)))
    record = scene.keep()
    assert (record["out_of_memory"], record["by_engine"]) == (True, False)


def test_why_a_shell_could_not_begin_is_read_from_what_it_printed_to_the_engine(scene: Scene) -> None:
    scene.fake.tell("GET", "/containers/c1/logs", endless(frame(2, b"no such\nfile\n")))
    assert scene.keep()["error"] == "no such file"


def test_one_that_ended_and_is_just_being_removed_still_tells_how(scene: Scene) -> None:
    scene.by_id(inspected(state("created")), inspected(state("removing", ExitCode=3)))
    assert scene.keep()["exit_code"] == 3


def test_an_engine_that_answers_every_wait_at_once_does_not_keep_us_busy(scene: Scene) -> None:
    scene.fake.tell("POST", "/containers/c1/wait", b"")
    running = inspected(state("running"))
    scene.by_id(inspected(state("created")), *[running] * 10, inspected(EXITED))
    assert scene.keep()["exit_code"] == 3
    assert scene.waits >= 18  # for what there is to hear, and because there was nothing


# --- processes


def test_a_number_that_means_nothing_here_is_not_taken_for_a_process() -> None:
    assert seen_from_here(os.getpid(), "c" * 64, RUN) == 0
    assert seen_from_here(0, "c" * 64, RUN) == 0
    assert seen_from_here(1 << 30, "c" * 64, RUN) == 0


@pytest.mark.parametrize(
    ("cgroup", "environment", "seen"),
    [
        (f"0::/system.slice/docker-{'c' * 64}.scope\n", [], True),
        (f"12:pids:/docker/{'c' * 64}\n0::/\n", [], True),
        ("0::/user.slice\n", [f"MLLAUNCH_RUN_ID={RUN}".encode()], True),
        ("0::/user.slice\n", [b"MLLAUNCH_RUN_ID=another"], False),
        (f"0::/system.slice/docker-{'d' * 64}.scope\n", [], False),
    ],
)
def test_a_process_is_the_containers_by_its_control_group_or_its_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cgroup: str, environment: Sequence[bytes], seen: bool
) -> None:
    place = tmp_path / "cgroup"
    place.write_text(cgroup)
    monkeypatch.setattr(container_watch, "open", lambda path, **how: place.open(**how), raising=False)
    monkeypatch.setattr(container_watch, "environment", lambda pid: set(environment))
    assert seen_from_here(7, "c" * 64, RUN) == (7 if seen else 0)
