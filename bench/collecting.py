"""Bringing a job's output from its node's folder into the run log, beside `cat` into another file."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.conformance.runs import RUNNING, make_run

from bench.measuring import Row, Spread, spread
from bench.user import PYTHON
from mllaunch.ports import AttemptRef
from mllaunch.wiring import App
from mllaunch_agent import node, system

LINE = b"epoch 12 step 34567 loss 0.123456789 accuracy 0.98765\n"


def rows(quick: bool) -> Iterator[Row]:
    size, large = 100_000_000, (500_000_000 if quick else 5_000_000_000)
    plain, ours = [], []
    for _ in range(3 if quick else 5):
        with tempfile.TemporaryDirectory(prefix="mllaunch-bench-") as home:
            log = _log_of(Path(home), size)
            plain.append(size / 1e6 / _copy_s(log))
            ours.append(size / 1e6 / _collect(home)["seconds"])
    yield Row(f"collect {size / 1e6:.0f} MB of log", spread(plain), spread(ours), "MB/s", at_least=100)
    with tempfile.TemporaryDirectory(prefix="mllaunch-bench-") as home:
        _log_of(Path(home), large)
        peak = _collect(home)["peak_mb"]
    what = f"memory at most while collecting {large / 1e9:g} GB"
    yield Row(what, None, Spread(peak, peak, peak), "MB", at_most=100)


def _log_of(home: Path, size: int) -> Path:
    """A running attempt of the first run, whose task has printed ``size`` bytes."""
    app = App({"MLLAUNCH_HOME": str(home)}, str(home))
    run = make_run(0)
    app.log.add(run, RUNNING)
    app.log.close()
    folder = Path(app.scheduler.folder(AttemptRef(run.id, 1)))
    (folder / "streams").mkdir(parents=True)
    (folder / "spec.json").write_text(json.dumps({"secrets": [], "node": app.node}))
    (folder / "streams" / "events").touch()
    block = LINE * (1_000_000 // len(LINE))
    log = folder / "streams" / "stdout.0"
    with log.open("wb") as file:
        while file.tell() < size:
            file.write(block[: size - file.tell()])
    return log


def _copy_s(log: Path) -> float:
    copy = log.with_name("copy")
    with copy.open("wb") as file:
        start = time.perf_counter()
        subprocess.run(["cat", log], stdout=file, check=True)
        took_s = time.perf_counter() - start
    copy.unlink()
    return took_s


def _collect(home: str) -> dict[str, float]:
    """In a process of its own, whose memory is then that of collecting."""
    done = subprocess.run([PYTHON, "-m", "bench.collecting", home], stdout=subprocess.PIPE, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _collect_here(home: str) -> dict[str, float]:
    app = App({"MLLAUNCH_HOME": home}, home)
    run, status = app.log.get(make_run(0).id)
    folder = Path(app.scheduler.folder(AttemptRef(run.id, 1)))
    alive = system.try_lock(node.lock_path(str(folder)))  # as its supervisor would hold it
    assert alive is not None
    start = time.perf_counter()
    app.collector.collect(run, status)
    took_s = time.perf_counter() - start
    printed = (folder / "streams" / "stdout.0").stat().st_size
    assert sum(f.stat().st_size for f in Path(home, "blobs").rglob("stdout.0")) == printed
    return {"seconds": took_s, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6}


if __name__ == "__main__":
    print(json.dumps(_collect_here(sys.argv[1])))
