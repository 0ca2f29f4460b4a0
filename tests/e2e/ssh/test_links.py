"""Links that are bad in ways that are worse than being cut, disks that are full, and power that fails: every byte that
a task printed is in the run log once, or named as missing."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from mllaunch.ports import StreamRef
from mllaunch.wiring import App
from tests.e2e.harness import Mllaunch, Repo, until
from tests.e2e.ssh import leftovers
from tests.e2e.ssh.conftest import Nodes
from tests.testbed.hosts import Host
from tests.testbed.wire import Settings

pytestmark = pytest.mark.real("hosts")

MIB = 1 << 20
DISK_BYTES = 24 * MIB

# Prints COUNT numbered lines, or until /host/enough is there, EACH a second; writes the same to the node's own disk.
TELLING = """
import os, sys, time
count, each = int(sys.argv[1]), float(sys.argv[2])
truth = os.open("/host/truth", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
began = time.monotonic()
for number in range(count):
    if os.path.exists("/host/enough"):
        break
    line = b"%07d %s %s\\n" % (number, os.environ["RANK"].encode(), b"x" * (number % 100))
    os.write(1, line)
    os.write(truth, line)
    time.sleep(max(0.0, began + number / each - time.monotonic()))
"""
# Prints that many MiB of numbered lines at 6 MB/s.
FLOODING = """
import os, sys, time
began, printed = time.monotonic(), 0
while printed < int(sys.argv[1]) << 20:
    block = b"".join(b"%09d %s\\n" % ((printed >> 6) + i, b"x" * 53) for i in range(1024))
    printed += len(block)
    while block:
        block = block[os.write(1, block):]
    time.sleep(max(0.0, began + printed / 6e6 - time.monotonic()))
"""


@pytest.fixture(autouse=True)
def _heal(nodes: Nodes) -> Iterator[None]:
    yield
    for host in nodes.hosts.hosts:
        (host.folder / "enough").unlink(missing_ok=True)
        if host.is_up:
            host.heal()


def truth(host: Host) -> bytes:
    return (host.folder / "truth").read_bytes()


def stored(mllaunch: Mllaunch, run_id: str, node: str, stream: str) -> bytes:
    app = App(mllaunch.home.environ, str(mllaunch.cwd))
    ref = StreamRef(run_id, 1, node, stream)
    return app.blobs.read(ref, 0, app.blobs.length(ref))


def seal(mllaunch: Mllaunch, run_id: str) -> dict[str, Any]:
    ((_, view),) = App(mllaunch.home.environ, str(mllaunch.cwd)).log.views(run_id).items()
    return dict(view["seal"])


def test_over_a_link_that_loses_and_delays_a_run_is_followed_to_the_byte(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    nodes[1].spoil(Settings(loss=0.05, delay_s=0.2))
    done = mllaunch("run", "--node", "node1", repo.script(TELLING), "1500", "500")
    assert done.rc == 0, done
    assert done.stdout_bytes == truth(nodes[1])
    assert mllaunch.wait_sealed(done.run_name)["seal"] == "sealed-complete"
    assert mllaunch("logs", done.run_name, "--raw").stdout_bytes == truth(nodes[1])


def test_half_open_links_are_noticed_and_keep_nothing_back_in_the_end(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    script = repo.script(TELLING)
    run_id, run = mllaunch.submit("--node", "node1", "--node", "node2", script, "100000", "100")
    until(lambda: stored(mllaunch, run_id, "node2", "stdout.1"), "some output")
    nodes[1].spoil(Settings(mute=True))
    nodes[2].spoil(Settings(deaf=True))
    # Meanwhile another run is started, and what is to confirm it does not arrive any more.
    nodes[3].spoil(Settings(delay_s=0.5))
    kept = nodes[3].folder / "disk/share/mllaunch/node/node3/runs"
    before = set(kept.glob("*"))
    submitting = mllaunch.start("submit", "--name", "unconfirmed", "--node", "node3", script, "500", "100")
    until(lambda: any((new / "1/spec.json").exists() for new in set(kept.glob("*")) - before), "the start")
    nodes[3].spoil(Settings(mute=True))

    row = until(lambda: len((row := mllaunch.row(run))["unreachable"]) == 2 and row, "both to be noticed", 60)
    assert row["state"] == "running"
    said = submitting.end()
    assert said.rc == 1 and "unconfirmed may have started all the same" in said.stderr
    for number in (1, 2, 3):
        nodes[number].heal()
    until(lambda: not mllaunch.row(run)["unreachable"], "both to answer again", 60)
    for number in (1, 2):
        (nodes[number].folder / "enough").touch()
    for name in (run, "unconfirmed"):
        row = mllaunch.wait_sealed(name)
        assert (row["state"], row["seal"], row["unreachable"]) == ("succeeded", "sealed-complete", [])
    for rank, node in enumerate((nodes[1], nodes[2])):
        assert stored(mllaunch, run_id, node.name, f"stdout.{rank}") == truth(node)
    assert mllaunch("logs", "unconfirmed", "--raw").stdout_bytes == truth(nodes[3])


def test_a_link_that_falls_silent_delays_what_is_shown_of_no_other_node(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    run = mllaunch("submit", "--nodes", "2", repo.script(TELLING), "100000", "20").run_name
    following = mllaunch.start("logs", "-f", run)
    for rank in (0, 1):
        until(lambda rank=rank: re.search(rf"\d{{7}} {rank} ", following.stdout), f"output of rank {rank}")
    nodes[1].spoil(Settings(mute=True))
    until(lambda: mllaunch.row(run)["unreachable"], "it to be noticed", 60)
    nodes[1].heal()
    for number in (1, 2):
        (nodes[number].folder / "enough").touch()
    assert following.end().rc == 0
    shown = [at for at, line in following.lines if re.search(r"\d{7} 1 ", line)]
    # It takes 15 s until the silence is noticed.
    assert max(later - earlier for earlier, later in itertools.pairwise(shown)) < 7


def test_a_host_that_lost_power_keeps_what_was_printed_until_then(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    run_id, run = mllaunch.submit("--node", "node3", repo.script(TELLING), "100000", "200")
    until(lambda: stored(mllaunch, run_id, "node3", "stdout.0"), "some output")
    nodes[3].power_off()
    nodes[3].boot()
    row = mllaunch.wait_sealed(run)
    assert (row["state"], row["exit_code"], row["seal"]) == ("failed", None, "sealed-complete")
    # The checkout went with the power, which is no change of the code.
    code = mllaunch("provenance", run, "--json", check=True).document["code"]
    assert code["changes"] == [] and all(node["matches_commit"] for node in code["nodes"])
    printed = stored(mllaunch, run_id, "node3", "stdout.0")
    # Between printing a line and noting it the power may have failed.
    assert printed.startswith(truth(nodes[3])) and printed.count(b"\n") <= truth(nodes[3]).count(b"\n") + 1
    assert not nodes.orphans()


@pytest.fixture
def small_disk(nodes: Nodes) -> Iterator[Host]:
    """A node with little room where mllaunch keeps what it has."""
    node = nodes[2]
    node.run("mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", "/root/.local")
    yield node
    node.run("umount", "-l", "/root/.local")


def test_on_a_full_disk_a_task_ends_as_it_would_and_what_is_missing_is_said_to_the_byte(
    small_disk: Host, repo: Repo, mllaunch: Mllaunch
) -> None:
    run_id, run = mllaunch.submit("--node", "node2", repo.script(FLOODING), "48")
    until(lambda: not leftovers.agents([small_disk]), "the task to end")
    row = mllaunch.wait_sealed(run)
    assert (row["state"], row["exit_code"]) == ("succeeded", 0)
    sealed = seal(mllaunch, run_id)["streams"]["stdout.0"]
    whole = b"".join(b"%09d %s\n" % (number, b"x" * 53) for number in range(48 * MIB // 64))
    kept = bytearray(whole)
    for gap in sealed["gaps"]:
        kept[gap["offset"] : gap["offset"] + gap["size_bytes"]] = bytes(gap["size_bytes"])
    assert sealed["size_bytes"] == len(whole)
    assert stored(mllaunch, run_id, "node2", "stdout.0") == kept
    assert row["seal"] == ("sealed-with-gaps" if sealed["gaps"] else "sealed-complete")
    events = stored(mllaunch, run_id, "node2", "events").splitlines()
    assert [event for event in map(json.loads, events) if event["kind"] == "gap"]


def test_a_submission_onto_a_full_disk_is_refused_and_a_later_one_works(
    nodes: Nodes, small_disk: Host, repo: Repo, mllaunch: Mllaunch
) -> None:
    script = repo.script("print('here')")
    mllaunch.wait_sealed(mllaunch("run", "--node", "node2", script).run_name)
    until(lambda: not nodes.agents(), "the first to have left")
    small_disk.run("sh", "-c", "cat /dev/zero >/root/.local/filler; true", check=False)
    refused = mllaunch("submit", "--node", "node2", script)
    assert refused.rc == 1, refused
    assert "No space left" in refused.stderr and "hint: " in refused.stderr
    assert "Traceback" not in refused.stderr
    small_disk.run("rm", "/root/.local/filler")
    assert mllaunch("run", "--node", "node2", script).stdout == "here\n"
    assert {row["state"] for row in mllaunch("ps", "-a", "--json").document} == {"succeeded", "failed"}
