"""What the kernel says of a container's control groups, from texts as kernels write them."""

from __future__ import annotations

import os

import pytest

from mllaunch_agent.probes import containerload
from mllaunch_agent.probes.cgroup import parse_mountinfo
from mllaunch_agent.probes.containerload import ContainerLoad, Folders, folders, reading

ID = "b5a3dd0b3f6c4d0b8f3b6f9d3b1c2a4e5f60718293a4b5c6d7e8f90123456789"

# Ubuntu 22.04, Docker with the systemd driver
V2_MOUNTS = """\
24 30 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
30 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
35 24 0:30 / /sys/fs/cgroup rw,nosuid,nodev,noexec shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
"""
V2_OWN = f"0::/system.slice/docker-{ID}.scope\n"
V2_FOLDER = f"/sys/fs/cgroup/system.slice/docker-{ID}.scope"
V2 = {
    "cpu.stat": """\
usage_usec 1234567890
user_usec 1200000000
system_usec 34567890
nr_periods 0
nr_throttled 0
throttled_usec 0
nr_bursts 0
burst_usec 0
""",
    "memory.current": "4294967296\n",
    "memory.stat": """\
anon 2147483648
file 2000000000
kernel 32768000
slab_reclaimable 16777216
inactive_anon 0
active_anon 2147483648
inactive_file 1294967296
active_file 705032704
""",
    "io.stat": (
        "259:0 rbytes=1048576 wbytes=4096 rios=20 wios=1 dbytes=0 dios=0\n"
        "8:16 \n"  # a disk that nothing is known of
        "253:0 rbytes=1000 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n"
    ),
    "pids.current": "37\n",
}

# CentOS 7, Docker with the cgroupfs driver
V1_MOUNTS = """\
17 60 0:17 / /sys rw,nosuid,nodev,noexec,relatime shared:6 - sysfs sysfs rw
24 17 0:20 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:8 - tmpfs tmpfs ro,mode=755
25 24 0:21 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:9 - cgroup cgroup rw,xattr,name=systemd
27 24 0:23 / /sys/fs/cgroup/blkio rw,nosuid,nodev,noexec,relatime shared:10 - cgroup cgroup rw,blkio
28 24 0:24 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid,nodev,noexec,relatime shared:11 - cgroup cgroup rw,cpuacct,cpu
32 24 0:28 / /sys/fs/cgroup/pids rw,nosuid,nodev,noexec,relatime shared:15 - cgroup cgroup rw,pids
33 24 0:29 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:16 - cgroup cgroup rw,memory
"""
V1_OWN = f"""\
11:pids:/docker/{ID}
10:blkio:/docker/{ID}
7:memory:/docker/{ID}
4:cpuacct,cpu:/docker/{ID}
1:name=systemd:/docker/{ID}
"""
V1 = {
    f"/sys/fs/cgroup/cpu,cpuacct/docker/{ID}/cpuacct.usage": "1234567890123\n",
    # Of v1 too, and about throttling alone.
    f"/sys/fs/cgroup/cpu,cpuacct/docker/{ID}/cpu.stat": "nr_periods 0\nnr_throttled 0\nthrottled_time 0\n",
    f"/sys/fs/cgroup/memory/docker/{ID}/memory.usage_in_bytes": "4294967296\n",
    f"/sys/fs/cgroup/memory/docker/{ID}/memory.stat": """\
cache 2000000000
rss 2147483648
inactive_file 1000
active_file 2000
hierarchical_memory_limit 9223372036854771712
total_cache 2000000000
total_inactive_file 1294967296
total_active_file 705032704
""",
    f"/sys/fs/cgroup/blkio/docker/{ID}/blkio.throttle.io_service_bytes": """\
259:0 Read 1048576
259:0 Write 4096
259:0 Sync 1052672
259:0 Async 0
259:0 Total 1052672
253:0 Read 1000
253:0 Write 20
253:0 Total 1020
Total 1053692
""",
    f"/sys/fs/cgroup/pids/docker/{ID}/pids.current": "37\n",
}
WANTED = (1234.57, 3000000000, 1049576, 4116, 37)


def test_of_v2_one_folder_tells_everything() -> None:
    places = folders(parse_mountinfo(V2_MOUNTS), V2_OWN)
    assert places == Folders(*[V2_FOLDER] * 4)
    texts = {f"{V2_FOLDER}/{name}": text for name, text in V2.items()}
    assert reading(places, texts.get) == WANTED


def test_of_v1_each_controller_has_a_folder() -> None:
    places = folders(parse_mountinfo(V1_MOUNTS), V1_OWN)
    assert places == Folders(
        f"/sys/fs/cgroup/cpu,cpuacct/docker/{ID}",
        f"/sys/fs/cgroup/memory/docker/{ID}",
        f"/sys/fs/cgroup/blkio/docker/{ID}",
        f"/sys/fs/cgroup/pids/docker/{ID}",
    )
    assert reading(places, V1.get) == WANTED


def test_a_v1_hierarchy_is_asked_before_a_v2_one_that_is_there_for_systemd_alone() -> None:
    hybrid = (
        V1_MOUNTS
        + "40 24 0:36 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:17 - cgroup2 cgroup2 rw\n"
    )
    for own in (V1_OWN + f"0::/docker/{ID}\n", f"0::/docker/{ID}\n" + V1_OWN):
        assert reading(folders(parse_mountinfo(hybrid), own), V1.get) == WANTED


def test_page_cache_that_counts_as_more_than_there_is_makes_no_negative_memory() -> None:
    texts = {"/c/memory.current": "100\n", "/c/memory.stat": "inactive_file 200\n"}
    assert reading(Folders(None, "/c", None, None), texts.get)[1] == 0


@pytest.mark.parametrize("missing", sorted(V2))
def test_what_is_missing_is_none_and_the_rest_is_read(missing: str) -> None:
    texts = {f"{V2_FOLDER}/{name}": text for name, text in V2.items() if name != missing}
    found = reading(Folders(*[V2_FOLDER] * 4), texts.get)
    gone = {
        "cpu.stat": {0},
        "memory.current": {1},
        "io.stat": {2, 3},
        "pids.current": {4},
        "memory.stat": set(),
    }
    assert {n for n, value in enumerate(found) if value is None} == gone[missing]


def test_where_there_is_no_control_group_nothing_is_known() -> None:
    for mounts, own in (("", V2_OWN), (V2_MOUNTS, ""), (V2_MOUNTS, "nonsense\n"), (V1_MOUNTS, V2_OWN)):
        places = folders(parse_mountinfo(mounts), own)
        assert places == Folders(None, None, None, None)
        assert reading(places, V1.get) == (None,) * 5


def test_no_input_and_output_is_nought_and_not_unknown() -> None:
    assert reading(Folders(None, None, "/c", None), {"/c/io.stat": ""}.get)[2:4] == (0, 0)


# --- several containers


class Kernel:
    """Files that come and go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.files = {"/proc/self/mountinfo": V2_MOUNTS}
        monkeypatch.setattr(containerload, "_read", self.files.get)

    def container(self, pid: int, cpu_us: int, memory: int, read: int, count: int) -> None:
        folder = f"/sys/fs/cgroup/{pid}"
        self.files[f"/proc/{pid}/cgroup"] = f"0::/{pid}\n"
        self.files[f"{folder}/cpu.stat"] = f"usage_usec {cpu_us}\n"
        self.files[f"{folder}/memory.current"] = f"{memory}\n"
        self.files[f"{folder}/io.stat"] = f"8:0 rbytes={read} wbytes=1 rios=1 wios=1\n"
        self.files[f"{folder}/pids.current"] = f"{count}\n"

    def end(self, pid: int) -> None:
        for path in [path for path in self.files if f"/{pid}/" in path]:
            del self.files[path]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return Kernel(monkeypatch)


def test_what_an_ended_container_had_used_stays_in_the_sums_and_its_memory_does_not(kernel: Kernel) -> None:
    kernel.container(7, 2_000_000, 100, 10, 3)
    kernel.container(8, 500_000, 50, 5, 1)
    load = ContainerLoad()
    load.add(7)
    load.add(8)
    assert load.read() == (2.5, 150, 15, 2, 4)
    kernel.end(7)
    assert load.read() == (2.5, 50, 15, 2, 1)
    kernel.container(8, 1_500_000, 60, 6, 2)
    assert load.read() == (3.5, 60, 16, 2, 2)
    kernel.end(8)
    assert load.read() == (3.5, 0, 16, 2, 0)


def test_nothing_is_said_of_no_container(kernel: Kernel) -> None:
    load = ContainerLoad()
    assert load.read() == (None,) * 5
    load.add(7)  # it has ended already
    assert load.read() == (None,) * 5


def test_what_could_never_be_read_is_unknown_and_not_nought(kernel: Kernel) -> None:
    kernel.container(7, 1_000_000, 100, 10, 3)
    del kernel.files["/sys/fs/cgroup/7/memory.current"], kernel.files["/sys/fs/cgroup/7/pids.current"]
    load = ContainerLoad()
    load.add(7)
    assert load.read() == load.read() == (1.0, None, 10, 1, None)


def test_a_file_of_many_pages_is_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = iter([b"one\n", b"two\n", b"", b"after the end"])
    monkeypatch.setattr(os, "read", lambda *_: next(pages))  # as the kernel gives mountinfo
    assert containerload._read("/dev/null") == "one\ntwo\n"
    assert containerload._read("/nowhere") is None
