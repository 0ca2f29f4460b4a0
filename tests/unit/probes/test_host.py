from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import FunctionType

import psutil
import pytest

from mllaunch_agent.probes import cgroup, host, optional_module
from mllaunch_agent.probes.bounded import Overdue
from tests.testbed.nvml import FakeNvml

DATA = Path(__file__).with_name("data")
SITE = str(Path(psutil.__file__).parent.parent)


def text(name: str) -> str:
    return (DATA / name).read_text()


@pytest.fixture
def without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node without a GPU, whatever this machine has."""
    from mllaunch_agent.probes import gpu

    monkeypatch.setattr(gpu, "_is_loadable", lambda library: False)
    monkeypatch.setattr(gpu, "_names", lambda folder: ["null"])
    monkeypatch.delenv("MLLAUNCH_FAKE_GPUS", raising=False)


@pytest.mark.usefixtures("without_nvml")
def test_psutil_and_proc_agree() -> None:
    by_proc, missing_by_proc = host.facts([])
    by_psutil, missing_by_psutil = host.facts([SITE])
    for facts in (by_proc, by_psutil):
        for disk in facts["disks"]:
            del disk["free_bytes"]
    assert by_proc == by_psutil
    assert missing_by_proc == missing_by_psutil


@pytest.mark.usefixtures("without_nvml")
def test_the_facts_of_this_machine_are_those_that_others_report() -> None:
    facts, missing = host.facts([])
    assert json.loads(json.dumps(facts)) == facts
    assert missing == []
    assert facts["hostname"] == socket.gethostname()
    assert facts["memory_bytes"] == psutil.virtual_memory().total
    assert facts["cpu"]["cores"] == psutil.cpu_count(logical=False)
    assert facts["cpu"]["threads"] == psutil.cpu_count()
    assert facts["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert "/" in [disk["mount"] for disk in facts["disks"]]
    assert facts["gpus"] is facts["driver"] is facts["cuda"] is None


def test_a_recorded_cpu_is_described() -> None:
    cpu = host.parse_cpuinfo(text("cpuinfo"))
    assert (cpu["model"], cpu["cores"]) == ("AMD EPYC", 2)
    assert {"avx2", "avx512f"} <= set(cpu["flags"])
    assert "fpu" not in cpu["flags"]


def test_threads_of_one_core_count_once() -> None:
    block = "processor : %d\nphysical id : %d\ncore id : %d\n"
    blocks = [block % (n, n // 4, n % 2) for n in range(8)]
    assert host.parse_cpuinfo("\n\n".join(blocks))["cores"] == 4


def test_an_arm_cpu_is_named_by_its_numbers() -> None:
    cpu = host.parse_cpuinfo(
        "processor\t: 0\nFeatures\t: fp asimd sve sve2\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n"
    )
    assert cpu["model"] == "implementer 0x41 part 0xd4f"
    assert cpu["flags"] == ["asimd", "sve", "sve2"]


def test_addresses_are_found_without_any_library() -> None:
    assert host.parse_fib_trie(text("fib_trie")) == {"127.0.0.1", "192.0.2.2"}
    assert "fd00::2" in host.parse_if_inet6(text("if_inet6"))


def test_the_system_is_named_as_it_names_itself() -> None:
    assert host.parse_os_release(text("os-release")) == "Debian GNU/Linux 12 (bookworm)"
    assert host.parse_os_release("NAME=Arch\n") == "Arch"
    assert host.parse_os_release("") is None


def test_memory_is_in_bytes() -> None:
    assert host.parse_meminfo(text("meminfo"))["MemTotal"] == 24684096 * 1024


def test_a_disk_counts_once_however_often_it_is_mounted() -> None:
    places = [
        ("/dev/sda1", "/var/lib/x", "ext4"),
        ("/dev/sda1", "/", "ext4"),
        ("proc", "/proc", "proc"),
        ("tmpfs", "/run", "tmpfs"),
        ("nas:/data", "/data", "nfs4"),
        ("nas:/home", "/home", "nfs4"),
    ]
    assert host.choose_disks(places) == [("/", "ext4"), ("/data", "nfs4"), ("/home", "nfs4")]
    assert host.choose_disks([("overlay", "/", "overlay")]) == [("/", "overlay")]


def test_a_disk_that_does_not_answer_is_named_and_the_others_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class DeadServer:
        def __init__(self, timeout_s: float) -> None:
            self.close = lambda: None

        def call(self, work: FunctionType) -> os.statvfs_result:
            if work.__defaults__ == ("/data",):
                raise Overdue("no answer within 2 s")
            return os.statvfs("/")

    monkeypatch.setattr(host, "Bounded", DeadServer)
    mounts = [cgroup.Mount("/", point, "nfs4", point, "") for point in ("/data", "/home")]
    missing: list[dict[str, str]] = []
    assert [disk["mount"] for disk in host._disks(None, mounts, missing)] == ["/home"]
    assert missing == [{"what": "disk /data", "why": "no answer within 2 s"}]


def test_a_probe_that_fails_costs_one_fact(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(psutil: object) -> list[str]:
        raise ValueError("odd\nline")

    monkeypatch.setattr(host, "_addresses", fail)
    facts, missing = host.facts([])
    assert facts["addresses"] is None
    assert {"what": "addresses", "why": "odd line"} in missing
    assert facts["kernel"] == os.uname().release


def test_every_file_missing_gives_facts_that_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_text", lambda path: None)
    facts, missing = host.facts([])
    assert facts["memory_bytes"] is facts["boot_id"] is facts["os"] is facts["cpu"]["model"] is None
    assert {"os", "memory_bytes", "boot_id", "cpu.model", "cpu.cores"} <= {entry["what"] for entry in missing}


@pytest.mark.parametrize(
    ("environ", "paths", "init_cgroup", "kind"),
    [
        ({}, ["/.dockerenv"], "0::/", "docker"),
        ({}, [], "12:cpu:/docker/0123", "docker"),
        ({"container": "podman"}, ["/run/.containerenv"], "", "podman"),
        ({"APPTAINER_NAME": "x.sif"}, [], "", "apptainer"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, ["/.dockerenv"], "", "kubernetes"),
        ({"container": "systemd-nspawn"}, [], "", "systemd-nspawn"),
        ({}, [], "0::/init.scope", None),
    ],
)
def test_a_container_is_known_by_what_its_runtime_leaves(
    environ: dict[str, str], paths: list[str], init_cgroup: str, kind: str | None
) -> None:
    assert host.container_kind(environ, paths.__contains__, init_cgroup) == kind


@pytest.mark.parametrize(
    ("firmware", "clock", "hypervisor", "kind"),
    [
        ("QEMU Standard PC", "tsc", True, "kvm"),
        ("Amazon EC2 p5.48xlarge", "tsc", True, "kvm"),
        ("Amazon EC2 m5.metal", "tsc", False, None),
        ("Microsoft Corporation Virtual Machine", "tsc", True, "hyperv"),
        (" ", "kvm-clock", True, "kvm"),
        ("Acme Cloud", "tsc", True, "vm"),
        ("Dell Inc. PowerEdge", "tsc", False, None),
    ],
)
def test_a_virtual_machine_is_known_by_firmware_or_clock(
    firmware: str, clock: str, hypervisor: bool, kind: str | None
) -> None:
    assert host.machine_kind(firmware, clock, hypervisor) == kind


CASES = {
    "v2, the tightest on the way up": (
        "1 1 0:5 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw",
        "0::/a/b",
        {
            "a/b/memory.max": "max",
            "a/memory.max": "4096",
            "a/b/cpu.max": "150000 100000",
            "a/cpu.max": "max 100000",
        },
        (4096, 1.5),
    ),
    "v1": (
        "1 1 0:5 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "2 1 0:6 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct",
        "4:memory:/x\n2:cpu,cpuacct:/x\n1:name=systemd:/x",
        {
            "memory/x/memory.limit_in_bytes": "8192",
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "cpu/x/cpu.cfs_quota_us": "50000",
            "cpu/x/cpu.cfs_period_us": "100000",
            "cpu/cpu.cfs_quota_us": "-1",
            "cpu/cpu.cfs_period_us": "100000",
        },
        (8192, 0.5),
    ),
    "v1 in a container, which sees its own cgroup as the root": (
        "1 1 0:5 /docker/ab /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory",
        "4:memory:/docker/ab",
        {"memory/memory.limit_in_bytes": "8192"},
        (8192, None),
    ),
    "nothing mounted": ("", "0::/", {}, (None, None)),
}


@pytest.mark.parametrize("case", CASES)
def test_limits_of_cgroups_are_found(case: str) -> None:
    mountinfo, own, files, expected = CASES[case]
    mounts = cgroup.parse_mountinfo(mountinfo)
    tree = {"/sys/fs/cgroup/" + name: content + "\n" for name, content in files.items()}
    assert cgroup.limits(mounts, own, tree.get) == expected


def test_a_recorded_mount_table_is_parsed_with_its_escapes() -> None:
    mounts = cgroup.parse_mountinfo(
        text("mountinfo") + r"9 1 8:1 / /mnt/a\040b rw shared:1 - ext4 /dev/sdb rw"
    )
    assert (
        cgroup.Mount("/", "/", "ext4", "/dev/vda", "rw,discard,resv_strict,resuid=65534,resgid=65534")
        in mounts
    )
    assert mounts[-1].point == "/mnt/a b"
    assert cgroup.parse_mountinfo("garbage\n") == []


def test_a_module_is_found_only_where_it_may_be(tmp_path: Path) -> None:
    assert optional_module("psutil", []) is None
    assert optional_module("no_such_module_here", [SITE]) is None
    (tmp_path / "broken_probe_module.py").write_text("raise OSError('for another machine')")
    assert optional_module("broken_probe_module", [str(tmp_path)]) is None
    assert optional_module("psutil", [SITE]).__name__ == "psutil"


def facts_with(nvml: FakeNvml, **variables: str) -> tuple[dict[str, object], list[dict[str, str]]]:
    code = f"import json; from mllaunch_agent.probes import host; print(json.dumps(host.facts([{SITE!r}])))"
    facts, missing = json.loads(nvml.python(code, **variables))
    return facts, missing


def test_gpus_driver_and_cuda_are_in_the_facts(fake_nvml: FakeNvml) -> None:
    fake_nvml.set("", "", driver="550.54", cuda=12040, name="NVIDIA A100")
    facts, missing = facts_with(fake_nvml)
    gpus = facts["gpus"]
    assert isinstance(gpus, list)
    assert missing == []
    assert (facts["driver"], facts["cuda"]) == ("550.54", "12.4")
    assert [(gpu["index"], gpu["name"], gpu["memory_bytes"]) for gpu in gpus] == [
        (0, "NVIDIA A100", 150754820096),
        (1, "NVIDIA A100", 150754820096),
    ]
    assert gpus[0]["uuid"].startswith("GPU-") and gpus[0]["uuid"] != gpus[1]["uuid"]


def test_a_broken_driver_is_named_with_what_it_says(fake_nvml: FakeNvml) -> None:
    fake_nvml.break_driver()
    facts, missing = facts_with(fake_nvml)
    assert facts["gpus"] is None
    assert missing == [{"what": "gpus", "why": "NVML: Driver Not Loaded"}]


def test_a_lost_gpu_is_named_and_the_others_are_listed(fake_nvml: FakeNvml) -> None:
    fake_nvml.set("", "lost=1", "")
    facts, missing = facts_with(fake_nvml)
    gpus = facts["gpus"]
    assert isinstance(gpus, list)
    assert [gpu["index"] for gpu in gpus] == [0, 2]
    assert missing == [{"what": "gpu 1", "why": "NVML: GPU is lost"}]


def test_fake_gpus_say_that_they_are_fake(fake_nvml: FakeNvml) -> None:
    facts, missing = facts_with(fake_nvml, MLLAUNCH_FAKE_GPUS="3")
    gpus = facts["gpus"]
    assert isinstance(gpus, list)
    assert missing == []
    assert [gpu["index"] for gpu in gpus] == [0, 1, 2]
    assert all(gpu["fake"] and gpu["uuid"].startswith("GPU-fake-") for gpu in gpus)
    assert (facts_with(fake_nvml, MLLAUNCH_FAKE_GPUS="3")[0])["gpus"] == gpus
