from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from mllaunch_agent.probes import gpu, gpuload, processes
from mllaunch_agent.probes.gpu import FakeNvml as PretendedNvml
from mllaunch_agent.probes.gpu import Gpus, Reading
from tests.testbed.nvml import FakeNvml

SITE = str(Path(psutil.__file__).parent.parent)
OPEN = f"import json, os; from mllaunch_agent.probes.gpu import Gpus; g = Gpus([{SITE!r}], timeout_s=20); "
UUIDS = "uuids = [x['uuid'] for x in g.list()]; "


def test_a_sample_has_what_the_library_says(fake_nvml: FakeNvml) -> None:
    fake_nvml.set("util=37 used=5 power=350000 temp=55 energy=9 pid=12:400 pid=13:500", "")
    code = OPEN + UUIDS + "print(json.dumps([g.sample(uuids)[uuids[0]], g.not_captured()]))"
    reading, missing = json.loads(fake_nvml.python(code))
    assert reading == [37, 5, 350000, 55, 9, {"12": 400, "13": 500}]
    assert missing == []


def test_processes_of_others_are_named_with_user_and_command(fake_nvml: FakeNvml) -> None:
    fake_nvml.set(f"pid={os.getpid()}:1000 pid=4000000:7")
    code = OPEN + UUIDS + "print(json.dumps(g.processes(uuids[0])))"
    own, gone = json.loads(fake_nvml.python(code))
    assert own["memory_bytes"] == 1000
    assert own["user"] == processes.user_of(os.getpid())
    assert own["command"] == processes.command(os.getpid())
    assert gone == {"pid": 4000000, "memory_bytes": 7, "user": None, "command": None}


def test_a_gpu_lost_on_the_way_is_reported_once_and_again_after_it_was_back(fake_nvml: FakeNvml) -> None:
    code = (
        OPEN
        + UUIDS
        + """
state = os.environ["FAKE_NVML"]
for lost in (0, 1, 1, 0, 1):
    open(state, "w").write("gpu 0 util=50 lost=%d\\ngpu 1 util=60\\n" % lost)
    sample = g.sample(uuids)
    print(json.dumps([sample[uuids[0]], sample[uuids[1]][0], [m["why"] for m in g.not_captured()]]))
print(g.processes(uuids[0]))
"""
    )
    lines = fake_nvml.python(code, PYTHONWARNINGS="ignore").splitlines()
    answers = [json.loads(line) for line in lines[:-1]]
    assert [a[0] is None for a in answers] == [False, True, True, False, True]
    assert [a[1] for a in answers] == [60] * 5
    assert [a[2] for a in answers] == [[], ["NVML: GPU is lost"], [], [], ["NVML: GPU is lost"]]
    assert lines[-1] == "None"


def test_a_driver_that_hangs_costs_the_values_and_is_reported_once(fake_nvml: FakeNvml) -> None:
    fake_nvml.set("", latency_us=60_000_000)
    code = (
        "from mllaunch_agent.probes.gpu import Gpus;"
        f"g = Gpus([{SITE!r}], timeout_s=0.05);"
        "print(g.list(), g.sample(['GPU-x']), g.processes('GPU-x'), g.not_captured(), flush=True)"
    )
    answer = fake_nvml.python(code)
    assert answer.startswith(
        "[] {'GPU-x': None} None [{'what': 'nvml', 'why': 'NVML: no answer within 0.05 s'}"
    )


def test_pretended_gpus_have_stable_uuids_no_processes_and_no_values() -> None:
    gpus = Gpus([], {"MLLAUNCH_FAKE_GPUS": "4"})
    listed = gpus.list()
    uuids = [each["uuid"] for each in listed]
    assert len(set(uuids)) == 4
    assert uuids[0].startswith("GPU-fake-") and uuids[0].endswith("-0")
    assert uuids == [each["uuid"] for each in Gpus([], {"MLLAUNCH_FAKE_GPUS": "4"}).list()]
    assert listed[0]["fake"] is True
    assert listed[0]["memory_bytes"] is None
    assert gpus.versions() == {"driver": None, "cuda": None}
    assert gpus.processes(uuids[0]) == []
    assert gpus.sample(uuids[:1]) == {uuids[0]: Reading(processes={})}
    assert gpus.not_captured() == []
    assert gpus.processes("GPU-unknown") is None
    assert gpus.not_captured() == [{"what": "gpu GPU-unknown", "why": "NVML: Not Found"}]
    gpus.close()


def test_a_number_of_fake_gpus_that_is_none_is_said() -> None:
    gpus = Gpus([], {"MLLAUNCH_FAKE_GPUS": "four"})
    assert gpus.list() == []
    assert gpus.not_captured() == [{"what": "gpus", "why": "MLLAUNCH_FAKE_GPUS='four' is not a number"}]


@pytest.mark.parametrize(
    ("loadable", "devices", "why"),
    [
        (False, ["null", "nvidiactl"], None),
        (False, ["null", "nvidia0"], "/dev/nvidia0 exists but libnvidia-ml.so.1 cannot be loaded"),
        (True, [], "libnvidia-ml.so.1 is here, but the Python module of nvidia-ml-py is not"),
    ],
)
def test_no_gpu_is_no_gap_and_a_half_installed_driver_is_one(
    monkeypatch: pytest.MonkeyPatch, loadable: bool, devices: list[str], why: str | None
) -> None:
    monkeypatch.setattr(gpu, "_is_loadable", lambda library: loadable)
    monkeypatch.setattr(gpu, "_names", lambda folder: devices)
    gpus = Gpus([], {})
    assert gpus.list() == []
    assert gpus.sample(["GPU-1"]) == {"GPU-1": None}
    assert gpus.not_captured() == ([] if why is None else [{"what": "gpus", "why": why}])


def test_the_deprecated_pynvml_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    deprecated = ModuleType("pynvml")
    deprecated.__path__ = []
    monkeypatch.setattr(gpu, "_is_loadable", lambda library: True)
    monkeypatch.setattr(gpu, "optional_module", lambda name, path: deprecated)
    gpus = Gpus(["/somewhere"], {})
    assert gpus.list() == []
    assert "deprecated" in gpus.not_captured()[0]["why"]


def test_a_value_that_a_gpu_does_not_offer_is_none_and_no_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_supported(self: PretendedNvml, handle: str) -> None:
        raise self.NVMLError(self.NVML_ERROR_NOT_SUPPORTED, "Not Supported")

    monkeypatch.setattr(PretendedNvml, "nvmlDeviceGetTotalEnergyConsumption", not_supported)
    gpus = Gpus([], {"MLLAUNCH_FAKE_GPUS": "1"})
    uuid = gpus.list()[0]["uuid"]
    reading = gpus.sample([uuid])[uuid]
    assert reading is not None
    assert reading.energy_mj is None
    assert gpus.not_captured() == []


def test_a_driver_that_fails_in_an_unforeseen_way_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def odd(self: PretendedNvml) -> int:
        raise AttributeError("nvmlDeviceGetCount_v9")

    monkeypatch.setattr(PretendedNvml, "nvmlDeviceGetCount", odd)
    gpus = Gpus([], {"MLLAUNCH_FAKE_GPUS": "1"})
    assert gpus.list() == gpus.list() == []
    assert [entry["why"] for entry in gpus.not_captured()] == [
        "NVML: AttributeError('nvmlDeviceGetCount_v9')"
    ]
    assert threading.active_count() < 50


def test_a_row_has_watts_and_the_memory_of_the_tasks_own_processes() -> None:
    reading = Reading(37, 1000, 350_500, 55, 9, {12: 400, 13: 500})
    assert gpuload.row(reading, {12, 99}, True) == [37, 1000, 350.5, 55, 400]
    assert gpuload.row(None, {12}, True) == [None] * 5


@pytest.mark.parametrize(
    ("held", "visible", "expected"),
    [
        ({12: 400, 7: 1}, True, 400),
        ({7: 1}, True, 0),
        ({7: 1}, False, None),
        ({12: 400}, False, 400),
        ({12: None}, True, None),
        (None, True, None),
    ],
)
def test_gpu_memory_of_the_task_is_never_guessed(
    held: dict[int, int | None] | None, visible: bool, expected: int | None
) -> None:
    assert gpuload.task_memory_bytes(Reading(memory_bytes=1, processes=held), {12}, visible) == expected


def test_usage_adds_up_over_gpus_and_time() -> None:
    usage = gpuload.GpuUsage()
    assert usage.summary() is None
    usage.add(10.0, {"a": Reading(100, 5, 0, 0, 1_000), "b": Reading(50, 6, 0, 0, 5_000)})
    usage.add(11.0, {"a": Reading(100, 7, 0, 0, 3_500), "b": None})
    assert usage.summary() == {"mean_utilisation": 0.8333, "max_memory_bytes": 11, "energy_j": 2.5}


def test_energy_is_power_times_time_where_a_gpu_does_not_count_it() -> None:
    usage = gpuload.GpuUsage()
    for now_s in (1.0, 2.0, 4.0):
        usage.add(now_s, {"a": Reading(power_mw=100_000)})
    assert usage.summary() == {"mean_utilisation": None, "max_memory_bytes": None, "energy_j": 300.0}
