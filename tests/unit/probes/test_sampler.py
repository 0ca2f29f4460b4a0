from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mllaunch_agent.probes import processes
from mllaunch_agent.probes.sampler import SCHEMA, Sampler
from tests.testbed.nvml import FakeNvml

SITE = str(Path(psutil.__file__).parent.parent)
# Burns 0.3 s of CPU time in a child for each line it gets, and says when that child has ended.
BURNS_IN_CHILDREN = """if 1:
    import os, signal, sys, time
    if "ignore" in sys.argv:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    for line in sys.stdin:
        r, w = os.pipe()
        pid = os.fork()
        if pid == 0:
            while time.process_time() < 0.3:
                pass
            print("burnt", flush=True)
            sys.stdin.readline() if "hold" in sys.argv else None
            os._exit(0)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:
            pass
        print("ended", flush=True)
"""


def row(sampler: Sampler, now_s: float = 1.0) -> dict[str, object]:
    names = json.loads(sampler.header())["columns"]
    values = json.loads(sampler.sample(now_s))
    assert len(names) == len(values)
    return dict(zip(names, values, strict=True))


class Program:
    def __init__(self, code: str, *arguments: str) -> None:
        argv = [sys.executable, "-c", code, *arguments]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self.process.pid
        self.line()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, text: str = "go") -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


def test_the_header_names_columns_and_units_and_the_order_is_a_format() -> None:
    header = json.loads(Sampler([], ["GPU-1"]).header())
    assert header["schema"] == SCHEMA == "mllaunch.samples/1"
    assert header["gpus"] == ["GPU-1"]
    assert dict(zip(header["columns"], header["units"], strict=True)) == {
        "boot_s": "s",
        "cpu_s": "s",
        "rss_bytes": "B",
        "pss_bytes": "B",
        "read_bytes": "B",
        "written_bytes": "B",
        "processes": "1",
        "host_cpu_busy": "1",
        "host_memory_used_bytes": "B",
        "network_received_bytes": "B",
        "network_sent_bytes": "B",
        "gpu0.utilisation": "%",
        "gpu0.memory_bytes": "B",
        "gpu0.power_w": "W",
        "gpu0.temperature_c": "°C",
        "gpu0.task_memory_bytes": "B",
    }


def test_the_cpu_time_of_a_child_that_ended_between_samples_is_counted() -> None:
    with Program(BURNS_IN_CHILDREN) as program:
        sampler = Sampler([program.pid])
        before = row(sampler)["cpu_s"]
        program.tell()
        assert [program.line(), program.line()] == ["burnt", "ended"]
        after = row(sampler)["cpu_s"]
        assert isinstance(before, float) and isinstance(after, float)
        assert after - before >= 0.28


def test_the_cpu_time_of_a_child_nobody_waits_for_is_kept_as_it_was_last_seen() -> None:
    with Program(BURNS_IN_CHILDREN, "ignore", "hold") as program:
        sampler = Sampler([program.pid])
        row(sampler)
        program.tell()
        assert program.line() == "burnt"
        during = row(sampler)
        assert during["processes"] == 2
        program.tell()
        assert program.line() == "ended"
        after = row(sampler)
        assert after["processes"] == 1
        assert isinstance(during["cpu_s"], float) and isinstance(after["cpu_s"], float)
        assert during["cpu_s"] <= after["cpu_s"] < during["cpu_s"] + 0.2


def test_bytes_written_by_children_remain_counted(tmp_path: Path) -> None:
    code = """if 1:
        import os, sys
        print("ready", flush=True)
        sys.stdin.readline()
        if os.fork() == 0:
            with open(sys.argv[1], "wb", buffering=0) as file:
                file.write(bytes(1 << 20))
                os.fsync(file.fileno())
            os._exit(0)
        os.wait()
        print("written", flush=True)
        sys.stdin.readline()
    """
    with Program(code, str(tmp_path / "out")) as program:
        sampler = Sampler([program.pid])
        before = row(sampler)["written_bytes"]
        program.tell()
        assert program.line() == "written"
        expected = (processes.io_bytes(program.pid) or (0, 0))[1]
        after = row(sampler)["written_bytes"]
        assert isinstance(before, int) and isinstance(after, int)
        assert after == expected
        # A filesystem in memory never reaches storage; and an interpreter may write its bytecode besides.
        assert after - before >= (1 << 20 if expected else 0)


def test_a_sample_agrees_with_psutil() -> None:
    with Program(BURNS_IN_CHILDREN) as program:
        found = row(Sampler([program.pid]))
        process = psutil.Process(program.pid)
        assert found["rss_bytes"] == pytest.approx(process.memory_info().rss, rel=0.2)  # it still starts up
        assert found["processes"] == 1
        times = process.cpu_times()
        assert found["cpu_s"] == pytest.approx(times.user + times.system, abs=0.02)
        assert found["pss_bytes"] == pytest.approx(process.memory_full_info().pss, rel=0.2)
        counters = psutil.net_io_counters()
        assert isinstance(found["network_received_bytes"], int)
        assert 0 <= found["network_received_bytes"] <= counters.bytes_recv


def test_proportional_memory_is_read_rarely_and_the_last_values_stay_out_of_between() -> None:
    sampler = Sampler([os.getpid()])
    pss = [row(sampler, now_s)["pss_bytes"] for now_s in (100.0, 101.0, 129.0, 100_000.0)]
    assert [value is None for value in pss] == [False, True, True, False]


def test_a_process_that_leaves_the_tree_is_still_followed() -> None:
    code = """if 1:
        import os, sys, time
        print("ready", flush=True)
        sys.stdin.readline()
        daemon = os.fork()
        if daemon == 0:
            os.setsid()
            time.sleep(600)
        print(daemon, flush=True)
        time.sleep(600)
    """
    with Program(code) as program:
        sampler = Sampler([program.pid])
        program.tell()
        daemon = int(program.line())
        try:
            assert row(sampler)["processes"] == 2
            program.process.kill()
            program.process.wait()
            assert processes.descendants([program.pid]) == []
            assert row(sampler)["processes"] == 1
        finally:
            os.kill(daemon, signal.SIGKILL)


def test_when_all_have_ended_totals_stay_and_nothing_fails() -> None:
    with Program(BURNS_IN_CHILDREN) as program:
        sampler = Sampler([program.pid])
        last = row(sampler)
    found = row(sampler)
    assert (found["processes"], found["rss_bytes"]) == (0, 0)
    assert found["cpu_s"] == last["cpu_s"]
    usage = sampler.usage()
    assert usage["cpu_s"] == last["cpu_s"]
    assert usage["max_rss_bytes"] == last["rss_bytes"]
    assert usage["gpu"] is None
    assert sampler.not_captured() == []


def test_what_was_never_seen_is_not_known_rather_than_zero() -> None:
    sampler = Sampler([])
    row(sampler)
    assert set(sampler.usage().values()) == {None}


def test_io_that_may_not_be_read_is_null_and_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "io_bytes", lambda pid: None)
    sampler = Sampler([os.getpid()])
    assert row(sampler)["read_bytes"] is None
    assert row(sampler)["written_bytes"] is None
    assert sampler.usage()["read_bytes"] is None
    assert [entry["what"] for entry in sampler.not_captured()] == ["read_bytes and written_bytes"]
    assert sampler.not_captured() == []


def test_a_sample_that_fails_has_its_time_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(roots: object) -> None:
        raise MemoryError("no room")

    sampler = Sampler([os.getpid()], ["GPU-1"])
    monkeypatch.setattr(processes, "tree", fail)
    found = row(sampler, 7.123)
    assert found.pop("boot_s") == 7.12
    assert set(found.values()) == {None}
    assert sampler.not_captured() == [{"what": "sample", "why": "MemoryError('no room')"}]


def test_a_line_is_compact_and_holds_no_newline() -> None:
    line = Sampler([os.getpid()]).sample(123456.789)
    assert line.startswith("[123456.79,")
    assert "\n" not in line and " " not in line
    assert len(line) < 130


def test_gpu_columns_come_from_the_library(fake_nvml: FakeNvml) -> None:
    code = f"""if 1:
        import json, os
        from mllaunch_agent.probes.gpu import Gpus
        from mllaunch_agent.probes.sampler import Sampler
        uuids = [gpu["uuid"] for gpu in Gpus([{SITE!r}]).list()]
        sampler = Sampler([os.getpid()], uuids[1:], [{SITE!r}])
        def become(gpu):
            with open(os.environ["FAKE_NVML"], "w") as state:
                state.write("gpu 0 util=1\\ngpu 1 " + gpu)
        become("util=50 used=3000 power=1500 temp=50 energy=1000 pid=%d:2000" % os.getpid())
        first = json.loads(sampler.sample(1.0))
        become("util=70 lost=1")
        second = json.loads(sampler.sample(2.0))
        print(json.dumps([first[-5:], second[-5:], sampler.usage()["gpu"], sampler.not_captured()]))
    """
    first, second, usage, missing = json.loads(fake_nvml.python(code))
    assert first == [50, 3000, 1.5, 50, 2000]
    assert second == [None] * 5
    assert usage == {"mean_utilisation": 0.5, "max_memory_bytes": 3000, "energy_j": 0.0}
    assert [entry["why"] for entry in missing] == ["NVML: GPU is lost"]
