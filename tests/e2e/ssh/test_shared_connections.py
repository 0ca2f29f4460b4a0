"""Nodes where nobody gets in by a key: the user has logged in there, and OpenSSH shares that connection."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Home, Mllaunch, Repo, until
from tests.e2e.ssh.conftest import Nodes
from tests.testbed.engine import Engine

pytestmark = pytest.mark.real("hosts")

PRINTING = """
import os, sys, time
for number in range(200):
    print(number, "x" * 1000)
open("outputs/model.bin", "wb").write(os.urandom(3 << 20))
time.sleep(float(sys.argv[1]))
print("end")
"""


class Login:
    """The user's, on node 1."""

    def __init__(self, nodes: Nodes, repo: Repo) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mllaunch-login-")  # the path of a socket is short
        self.config = Path(self._folder.name, "ssh_config")
        self._replaced = nodes.hosts.config
        shared = f"Host node1\n  ControlPath {self._folder.name}/%C\n"
        self.config.write_text(shared + self._replaced.read_text())
        self._keys = nodes[1].folder / "authorized_keys"
        self.configure(repo)

    def configure(self, repo: Repo) -> None:
        """Have the repository's configuration name this ssh configuration."""
        written = Path(repo.root, "mllaunch.yaml")
        written.write_text(written.read_text().replace(str(self._replaced), str(self.config)))
        repo.commit()

    def open(self) -> None:
        self._admit()
        subprocess.run(["ssh", "-F", self.config, "-MNf", "node1"], check=True, stderr=subprocess.DEVNULL)
        self._keys.rename(self._keys.with_name("keys"))  # from now on nobody else gets in

    def close(self) -> None:
        subprocess.run(["ssh", "-F", self.config, "-O", "exit", "node1"], stderr=subprocess.DEVNULL)

    def end(self) -> None:
        self.close()
        self._admit()
        self._folder.cleanup()

    def _admit(self) -> None:
        if not self._keys.exists():
            self._keys.with_name("keys").rename(self._keys)


@pytest.fixture
def login(nodes: Nodes, repo: Repo) -> Iterator[Login]:
    made = Login(nodes, repo)
    yield made
    made.end()


def test_a_connection_that_is_open_serves_for_all_that_is_done_on_a_node(
    login: Login, repo: Repo, mllaunch: Mllaunch, tmp_path: Path
) -> None:
    login.open()
    done = mllaunch("run", "--node", "node1", repo.script(PRINTING), "0")
    assert done.rc == 0, done.stderr
    assert done.stdout.count("\n") == 201 and done.stdout.endswith("end\n")
    assert mllaunch.wait_sealed(done.run_name)["seal"] == "sealed-complete"
    mllaunch("pull", done.run_name, str(tmp_path / "pulled"), check=True)
    assert (tmp_path / "pulled/outputs/model.bin").stat().st_size == 3 << 20
    assert [entry["state"] for entry in mllaunch("nodes", "node1", "--json").document] == ["up"]
    assert mllaunch("ssh", done.run_name, "--", "uname", "-n").stdout == "node1\n"
    # Ctrl-C ends no ssh that the next look would need.
    following = mllaunch.start("run", "--node", "node1", "train.py", "600")
    following.wait_for("199")
    following.interrupt()
    assert following.end().rc == 130
    assert mllaunch("stop", "@last", "--now", check=True).rc == 0
    assert mllaunch.wait_sealed("@last")["state"] == "cancelled"


def test_without_it_the_way_to_open_it_is_told_and_a_run_waits_until_it_is_open_again(
    login: Login, repo: Repo, mllaunch: Mllaunch
) -> None:
    login.open()
    run = mllaunch("submit", "--node", "node1", repo.script(PRINTING), "5").run_name
    until(lambda: "199" in mllaunch("logs", run).stdout, "its output")
    login.close()
    until(lambda: mllaunch.row(run)["unreachable"], "it to be noticed", 60)
    done = mllaunch("submit", "--node", "node1", "train.py", "0")
    assert done.rc == 4
    assert "error[ssh_login]: node1 lets nobody in" in done.stderr
    assert f"hint: log in yourself, and the connection is shared: ssh -MNf -F {login.config} node1\n" in (
        done.stderr
    )
    login.open()
    row = mllaunch.wait_sealed(run)
    assert (row["state"], row["seal"], row["unreachable"]) == ("succeeded", "sealed-complete", [])


@pytest.mark.real("engine", "busybox")
def test_an_image_goes_over_it_too(
    login: Login, nodes: Nodes, repo: Repo, mllaunch: Mllaunch, home: Home, engine: Engine, tiny_image: str
) -> None:
    home.environ.update(engine.environment)
    nodes.start_engines()
    nodes.configure(f"image: {{base: {tiny_image}}}\nruntime: docker\n", python=None)
    login.configure(repo)
    login.open()
    done = mllaunch("run", "--node", "node1", "--", "sh", "-c", "echo in $(cat /.mllaunch/tree | wc -c)")
    assert done.rc == 0, done.stderr
    assert done.stdout.startswith("in ") and "sent" in done.stderr
    mllaunch.wait_sealed(done.run_name)
