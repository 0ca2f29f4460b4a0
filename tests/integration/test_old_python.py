"""The agent on the oldest Pythons: Debian 11's real 3.9 from start to seal, and 3.8 by its grammar."""

from __future__ import annotations

import ast
import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import mllaunch_agent
from mllaunch_agent import protocol
from mllaunch_agent.node import AttemptFolder
from mllaunch_agent.protocol import TaskSpec
from tests.e2e.harness import Home, until

AGENT = Path(mllaunch_agent.__file__).parent
CACHE = Path(__file__).parents[2] / ".testbed"


@pytest.mark.parametrize("path", sorted(AGENT.rglob("*.py")), ids=lambda path: str(path.relative_to(AGENT)))
def test_every_file_of_the_agent_is_python_3_8(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))  # raises SyntaxError for anything newer
    assert isinstance(tree, ast.Module)


@pytest.fixture(scope="session")
def bullseye() -> Path:
    """The root folder of a Debian 11 that holds its Python and nothing else; unpacked once, 74 MB."""
    CACHE.mkdir(exist_ok=True)
    root = CACHE / "bullseye-python"
    with (CACHE / "bullseye-python.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not root.exists():
            new = CACHE / f"bullseye-python.{os.getpid()}"
            packages = "python3-minimal,libpython3-stdlib"
            command = [
                "mmdebstrap",
                "--quiet",
                "--variant=extract",
                f"--include={packages}",
                "bullseye",
                str(new),
            ]
            subprocess.run(command, check=True, timeout=300)
            for folder in ("proc", "dev", "agents", "node"):
                (new / folder).mkdir(exist_ok=True)
            new.rename(root)
    return root


class OldNode:
    """A machine with an old Python, as far as the agent can tell: a root folder and mounts of its own."""

    def __init__(self, root: Path, home: Home) -> None:
        self.root = root
        self.home = home
        self.files = home.folder  # what the old machine sees as /node
        self.process: subprocess.Popen[bytes] | None = None

    def supervise(self, spec: TaskSpec) -> str:
        """Start the agent; its acknowledgement."""
        script = (
            'mount --bind "$1" "$0/agents" && mount --bind "$2" "$0/node" && mount --bind /dev "$0/dev" &&'
        )
        script += (
            'mount -t proc proc "$0/proc" && exec chroot "$0" /usr/bin/python3.9 -I -S -c "$3" supervise'
        )
        code = "import sys; sys.path.insert(0, '/agents'); from mllaunch_agent.__main__ import main; main()"
        command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
        self.process = subprocess.Popen(
            [*command, str(self.root), str(AGENT.parent), str(self.files), code],
            # HOME_FOLDER ties the processes to the home, which must be left without any.
            env={"PATH": os.environ["PATH"], "MLLAUNCH_AGENT": "1", "HOME_FOLDER": str(self.home.folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdin and self.process.stdout
        with self.process.stdin, self.process.stdout:
            self.process.stdin.write(json.dumps(spec).encode() + b"\n")
            self.process.stdin.flush()
            return self.process.stdout.readline().decode()

    def spec(self, script: str) -> TaskSpec:
        (self.files / "tree").mkdir()
        (self.files / "tree" / "train.py").write_text(script)
        return {
            "protocol": mllaunch_agent.PROTOCOL_VERSION,
            "run_id": "01a1fda8-4fdf-7b40-87d1-8265aab3f1cc",
            "run_name": "old-python-1",
            "attempt": 1,
            "node": "old",
            "node_rank": 0,
            "nodes": 1,
            "folder": "/node/attempt",
            "argv": ["/usr/bin/python3.9", "train.py"],
            "workdir": "",
            "tree": "/node/tree",
            "in_place": None,
            "data": [{"path": "data", "source": "/node/data"}],
            "output": "outputs",
            "environment": {"PATH": "/usr/bin", "HF_TOKEN": "hf_" + "TnPqRsVwXyZaBcDeFgHiJkLm"},
            "secrets": ["hf_" + "TnPqRsVwXyZaBcDeFgHiJkLm"],
            "named": [],
            "tasks": [{"rank": 0, "local_rank": 0}, {"rank": 1, "local_rank": 1}],
            "world_size": 2,
            "gpus": 0,
            "timeout_s": None,
            "grace_s": 5.0,
            "python": "/usr/bin/python3.9",
            "import_path": [],
            "master_addr": "127.0.0.1",
            "user": "somebody",
            "lease_dir": "/node/leases",
            **self.optional(),
        }

    @staticmethod
    def optional() -> Any:
        """Keys that a newer protocol may have; filled so that this test need not follow each of them."""
        known = TaskSpec.__annotations__
        return {"cache": "/node/cache"} if "cache" in known else {}


@pytest.fixture
def old_node(bullseye: Path, tmp_path: Path) -> Iterator[OldNode]:
    home = Home(tmp_path / "h")
    (home.folder / "data").mkdir()
    (home.folder / "data" / "numbers").write_text("1 2 3")
    node = OldNode(bullseye, home)
    yield node
    left = home.close(20)
    if node.process:
        node.process.wait(60)
    assert not left, f"processes were left behind (and have been killed): {left}"


SCRIPT = """
import os, sys, time
print("python", sys.version_info[:2], open("data/numbers").read(), os.environ["RANK"])
print("secret", os.environ["HF_TOKEN"], file=sys.stderr)
open(os.environ["MLLAUNCH_OUTPUT_DIR"] + "/written", "w").write("x")
while not os.path.exists("/node/go"):
    time.sleep(0.02)
sys.exit(3 if os.environ["RANK"] == "1" else 0)
"""


@pytest.mark.real("mmdebstrap", "root")
@pytest.mark.parametrize("killed", [False, True], ids=["undisturbed", "supervisor-killed"])
def test_a_whole_attempt_under_python_3_9_down_to_its_seal(old_node: OldNode, killed: bool) -> None:
    assert old_node.supervise(old_node.spec(SCRIPT)) == "ok\n"
    attempt = AttemptFolder(str(old_node.files / "attempt"))

    def printed() -> bool:
        return all(attempt.read(f"stdout.{rank}", 0, 1000).endswith(b"\n") for rank in (0, 1))

    until(printed, "both ranks to print")
    if killed:
        until(
            lambda: any(e["kind"] == protocol.TASK_STARTED for e in events(attempt)),
            "the record of the start",
        )
        os.kill(supervisor(old_node, attempt), signal.SIGKILL)
        until(lambda: any(e["kind"] == protocol.RESTARTED for e in events(attempt)), "another supervisor")
    (old_node.files / "go").touch()
    until(attempt.seal, "the seal")

    seal = attempt.seal()
    assert seal is not None
    said = attempt.read(protocol.AGENT, 0, 100_000).decode()
    assert "Traceback" not in said, said
    assert (seal["status"], seal["state"], seal["exit_code"]) == ("sealed-complete", "failed", 3)
    for rank in (0, 1):
        assert attempt.read(f"stdout.{rank}", 0, 1000) == b"python (3, 9) 1 2 3 %d\n" % rank
        assert attempt.read(f"stderr.{rank}", 0, 1000) == b"secret " + b"*" * 27 + b"\n"
    found = events(attempt)
    assert [event["seq"] for event in found] == list(range(1, len(found) + 1))
    (python,) = (event["facts"] for event in found if event["kind"] == protocol.PYTHON)
    assert python["version"].startswith("3.9")
    assert any(event["kind"] == protocol.HOST for event in found)
    files = [json.loads(line) for line in attempt.read(protocol.FILES, 0, 100_000).splitlines()]
    assert [line["path"] for line in files if "written" in str(line)] == ["outputs/written"]


def events(attempt: AttemptFolder) -> list[dict[str, Any]]:
    return protocol.parse_events(attempt.read(protocol.EVENTS, 0, 1 << 20))[0]


def supervisor(node: OldNode, attempt: AttemptFolder) -> int:
    """The living supervisor: the process with the agent's own command line that holds the lock."""
    lock = Path(attempt.path("supervisor.lock")).stat()
    for pid in node.home.processes():
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            try:
                if os.path.samestat(fd.stat(), lock):
                    return pid
            except OSError:
                continue
    raise AssertionError("no supervisor lives")
