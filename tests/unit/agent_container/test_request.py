"""What an engine is asked for: a golden document each for a run with GPUs and a plain one, and what holds for all."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mllaunch_agent import container, tracing
from mllaunch_agent.container import ENGINE, FILES, Host, Manner
from mllaunch_agent.protocol import TaskSpec
from tests.unit.agent_container import specs

HOST = Host("1000:1000", (1000, 44), "ann", 64 << 30)
FIRST = Manner()
GOLDEN = Path(__file__).parent / "golden"
# https://github.com/moby/moby/blob/v28.2.2/daemon/names/names.go
DOCKER_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")


def asked(
    spec: TaskSpec,
    rank: int = 0,
    *,
    environment: dict[str, str] | None = None,
    gpus: tuple[str, ...] = (),
    host: Host = HOST,
    manner: Manner = FIRST,
    has_c_layer: bool = False,
) -> Any:
    """As JSON carries it."""
    given_container = spec["container"]
    assert given_container is not None
    place = next(place for place in spec["tasks"] if place["rank"] == rank)
    made = container.request(spec, given_container, place, environment or {}, gpus, host, manner, has_c_layer)
    return json.loads(json.dumps(made))


def variables(request: Any) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in request["Env"])


def of_a_run_with_gpus() -> Any:
    spec = specs.spec(
        folder="/home/ann/.mllaunch/runs/01a1fda8-4fdf-7b40-87d1-8265aab3f1cc/1",
        argv=["python", "train.py", "--lr", "0.1"],
        workdir="model",
        output="outputs",
        data=[{"path": "model/data", "source": "/data/imagenet"}],
        tasks=specs.places(2),
        world_size=2,
        gpus=2,
        container=specs.container(
            mounts=[{"source": "/scratch", "target": "/scratch", "writable": True}],
            memory_bytes=96 << 30,
            cpus=16,
        ),
    )
    environment = {
        "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b",
        "PWD": "/workspace/model",
        "RANK": "1",
        "WANDB_MODE": "offline",
    }
    return asked(spec, 1, environment=environment, gpus=("GPU-a", "GPU-b"))


def of_a_plain_run() -> Any:
    return asked(specs.spec(), environment={"RANK": "0", "CUDA_VISIBLE_DEVICES": ""})


@pytest.mark.parametrize(
    ("name", "request_"), [("gpus", of_a_run_with_gpus()), ("plain", of_a_plain_run())], ids=["gpus", "plain"]
)
def test_the_request_is_the_golden_one(name: str, request_: Any) -> None:
    path = GOLDEN / f"{name}.json"
    for mount in request_["HostConfig"]["Mounts"]:
        mount["Source"] = mount["Source"].replace(tracing.HOOK, "/package/hook")
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(json.dumps(request_, indent=1) + "\n")
    assert request_ == json.loads(path.read_text())


ANY_SPEC = st.builds(
    specs.spec,
    workdir=st.sampled_from(["", "model", "a/b"]),
    data=st.sampled_from([[], [{"path": "data", "source": "/data"}]]),
    tasks=st.integers(1, 8).map(specs.places),
    container=st.builds(
        specs.container,
        network=st.sampled_from(["host", "bridge", "none"]),
        memory_bytes=st.none() | st.integers(1 << 30, 1 << 40),
        cpus=st.none() | st.integers(1, 256),
        shm_bytes=st.none() | st.integers(1 << 20, 1 << 30),
    ),
)
ANY_GPUS = st.sampled_from([(), ("GPU-a",), ("GPU-a", "MIG-b")])
ANY_MANNER = st.builds(Manner, st.sampled_from([FILES, ENGINE]), st.booleans())
ANY_HOST = st.sampled_from([HOST, Host("0:0", (), "root", 1 << 34)])
ANY_ENVIRONMENT = st.dictionaries(
    st.sampled_from(["HOME", "USER", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "PWD", "A"]),
    st.sampled_from(["", "all", "x=y"]),
)


@given(ANY_SPEC, ANY_ENVIRONMENT, ANY_GPUS, ANY_HOST, ANY_MANNER)
def test_no_container_is_more_than_its_task_needs(
    spec: TaskSpec, environment: dict[str, str], gpus: tuple[str, ...], host: Host, manner: Manner
) -> None:
    made = asked(spec, environment=environment, gpus=gpus, host=host, manner=manner)
    settings = made["HostConfig"]
    assert settings["CapDrop"] == ["ALL"]
    assert settings["SecurityOpt"] == ["no-new-privileges"]
    assert settings["Init"] is True
    assert settings["RestartPolicy"] == {"Name": "no"}
    assert not settings.keys() & {"Privileged", "CapAdd", "PidMode", "Binds", "Devices", "AutoRemove"}
    assert not any("docker.sock" in mount["Source"] for mount in settings["Mounts"])
    assert made["User"] == host.user


@given(ANY_SPEC, ANY_ENVIRONMENT, ANY_GPUS, ANY_MANNER)
def test_only_the_leased_gpus_are_inside_and_no_name_of_the_nodes_hides_or_adds_any(
    spec: TaskSpec, environment: dict[str, str], gpus: tuple[str, ...], manner: Manner
) -> None:
    made = asked(spec, environment=environment, gpus=gpus, manner=manner)
    inside = variables(made)
    assert "CUDA_VISIBLE_DEVICES" not in inside
    if gpus:
        assert made["HostConfig"]["DeviceRequests"] == [{"DeviceIDs": list(gpus), "Capabilities": [["gpu"]]}]
        assert "NVIDIA_VISIBLE_DEVICES" not in inside
    else:
        assert "DeviceRequests" not in made["HostConfig"]
        assert inside["NVIDIA_VISIBLE_DEVICES"] == "void"


@given(ANY_SPEC, ANY_MANNER)
def test_data_is_read_only_and_the_output_is_not(spec: TaskSpec, manner: Manner) -> None:
    mounts = {mount["Target"]: mount for mount in asked(spec, manner=manner)["HostConfig"]["Mounts"]}
    for link in spec["data"]:
        assert mounts[f"/workspace/{link['path']}"]["ReadOnly"] is True
    below = "/".join(part for part in (spec["workdir"], "outputs") if part)
    output = mounts[f"/workspace/{below}"]
    assert (output["ReadOnly"], output["Source"]) == (False, f"/attempt/work/{below}")
    assert all(mount["Type"] == "bind" for mount in mounts.values())


@given(ANY_SPEC)
def test_limits_are_shared_out_among_the_tasks_and_never_exceeded(spec: TaskSpec) -> None:
    tasks, limits = len(spec["tasks"]), spec["container"]
    assert limits is not None
    settings = [asked(spec, place["rank"])["HostConfig"] for place in spec["tasks"]]
    if limits["memory_bytes"]:
        total = sum(each["Memory"] for each in settings)
        assert limits["memory_bytes"] - tasks < total <= limits["memory_bytes"]
        assert all(each["MemorySwap"] == each["Memory"] for each in settings)
    else:
        assert not any("Memory" in each for each in settings)
    if limits["cpus"]:
        total = sum(each["NanoCpus"] for each in settings)
        assert limits["cpus"] * 10**9 - tasks < total <= limits["cpus"] * 10**9
    else:
        assert not any("NanoCpus" in each for each in settings)
    assert {each["IpcMode"] for each in settings} == {"host" if tasks > 1 else "private"}
    assert all(each.get("ShmSize", 1) > 0 for each in settings)  # several share the node's


def test_where_an_engine_may_not_raise_limits_none_is_asked_for() -> None:
    assert asked(specs.spec(), manner=Manner(limits=False))["HostConfig"]["Ulimits"] == []
    assert {limit["Name"] for limit in asked(specs.spec())["HostConfig"]["Ulimits"]} == {"memlock", "stack"}


def test_output_is_kept_whole_where_only_the_engine_has_it() -> None:
    prints = asked(specs.spec(), manner=Manner(prints=ENGINE))
    assert prints["HostConfig"]["LogConfig"]["Config"]["max-size"] == "100g"
    assert (prints["Entrypoint"], prints["Cmd"]) == (["python"], ["train.py"])
    targets = [mount["Target"] for mount in prints["HostConfig"]["Mounts"]]
    assert "/.mllaunch/stdout" not in targets


def test_a_name_tells_attempt_and_rank_and_is_one_for_docker() -> None:
    names = {
        container.name(specs.spec(run_id=run, attempt=attempt), rank)
        for run in ("01a1fda8-4fdf-7b40-87d1-8265aab3f1cc", "01a1fda8-4fdf-7b40-87d1-000000000000")
        for attempt in (1, 2)
        for rank in (0, 1)
    }
    assert len(names) == 8
    assert all(DOCKER_NAME.fullmatch(name) for name in names)
    assert container.name(specs.spec(), 3) == "mllaunch-brave-otter-17-8265aab3f1cc-1-3"


def test_a_user_whom_the_image_does_not_know_has_a_home_and_a_name() -> None:
    inside = variables(asked(specs.spec()))
    assert (inside["HOME"], inside["USER"], inside["LOGNAME"]) == ("/tmp", "ann", "ann")
    assert "HOME" not in variables(asked(specs.spec(), host=Host("0:0", (), "root", 1 << 34)))
    assert variables(asked(specs.spec(), environment={"HOME": "/h"}))["HOME"] == "/h"


# --- the shell that becomes the task


def run_script(
    tmp_path: Path, environment: dict[str, str], *argv: str, has_c_layer: bool = False
) -> subprocess.CompletedProcess[str]:
    """Its own script, with the folder of the streams where it may be here."""
    entry = asked(specs.spec(argv=list(argv)), has_c_layer=has_c_layer)
    script = entry["Cmd"][1].replace("/.mllaunch", str(tmp_path))
    return subprocess.run(
        [*entry["Entrypoint"], entry["Cmd"][0], script, *entry["Cmd"][2:]],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("before", [None, "", "libdl.so.2"])
def test_the_c_layer_is_preloaded_behind_what_is_there_already(tmp_path: Path, before: str | None) -> None:
    given = {} if before is None else {"LD_PRELOAD": before}
    run_script(tmp_path, given, "sh", "-c", 'echo "$LD_PRELOAD"', has_c_layer=True)
    library = f"{tmp_path}/c-layer/preload.so"
    assert (tmp_path / "stdout").read_text() == (f"{before} {library}\n" if before else f"{library}\n")


def test_the_shell_appends_to_the_streams_and_becomes_the_task(tmp_path: Path) -> None:
    (tmp_path / "stdout").write_text("before\n")
    done = run_script(tmp_path, {}, "sh", "-c", 'echo "$1"; echo err >&2; exit 3', "x", "a  b")
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")
    assert (tmp_path / "stdout").read_text() == "before\na  b\n"
    assert (tmp_path / "stderr").read_text() == "err\n"


def test_the_shell_leaves_no_trace_in_the_tasks_environment(tmp_path: Path) -> None:
    mine = {"gpu": "mine", "gpus": "4", "A": "a b"}
    assert run_script(tmp_path, mine, "env").returncode == 0
    seen = dict(line.split("=", 1) for line in (tmp_path / "stdout").read_text().splitlines())
    assert mine.items() <= seen.items()
    # What shells may set themselves.
    assert seen.keys() - mine.keys() <= {"PATH", "PWD", "OLDPWD", "SHLVL", "_"}


@pytest.mark.skipif(
    any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/dxg").exists() or Path("/dev/nvhost-gpu").exists(),
    reason="there is a GPU",
)
def test_a_container_that_lacks_its_gpus_says_so_to_the_engine_and_never_begins(tmp_path: Path) -> None:
    wanted = {"MLLAUNCH_GPUS_WANTED": "1", "gpus": "4"}  # a variable of the user's decides nothing
    done = run_script(tmp_path, wanted, "echo", "begun")
    assert (done.returncode, done.stderr) == (125, container.NO_GPU + "\n")
    assert not (tmp_path / "stdout").exists()


def test_a_container_whose_streams_cannot_be_opened_says_so_to_the_engine(tmp_path: Path) -> None:
    done = run_script(tmp_path / "nowhere", {}, "echo", "begun")
    assert done.returncode != 0
    assert done.stderr
