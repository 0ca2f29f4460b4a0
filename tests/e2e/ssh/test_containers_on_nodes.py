"""Runs in containers of the engines of machines reached by SSH."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.e2e.harness import Home, Mllaunch, Repo, until
from tests.e2e.ssh.conftest import Nodes
from tests.testbed.engine import Engine
from tests.testbed.registry import Registry

pytestmark = [pytest.mark.real("hosts"), pytest.mark.real("engine", "mmdebstrap")]

WHERE = """
import os
print("on", os.uname().nodename, "in", os.getcwd(), "rank", os.environ["RANK"], flush=True)
"""


@pytest.fixture
def base(nodes: Nodes, home: Home, engine: Engine, python_image: str) -> str:
    """An image with Python, in the engine of the launcher's machine; the nodes have engines too."""
    home.environ.update(engine.environment)
    nodes.start_engines()
    nodes.configure(f"image: {{base: {python_image}}}", python=None)
    return python_image


def test_a_run_is_a_container_on_its_node_and_its_image_is_sent_once(
    base: str, nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    done = mllaunch("run", "--node", "node2", repo.script(WHERE))
    assert done.rc == 0, done
    assert done.stdout == "on node2 in /workspace rank 0\n"
    assert "sent to node2" in done.stderr
    again = mllaunch("run", "--node", "node2", "train.py")
    assert "(cached)" in again.stderr and "sent to" not in again.stderr
    document = until(
        lambda: (d := mllaunch("provenance", again.run_name, "--json").document)["seal"]["status"] and d,
        "the record to be complete",
    )
    assert document["environment"]["runtime"] == "docker"
    assert document["environment"]["image"]["digest"].startswith("sha256:")
    assert not nodes[2].docker("ps", "--all", "--quiet")


def test_images_on_a_node_are_listed_and_removed_but_for_one_that_has_the_environment(
    base: str, nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    digests = []
    for number in (1, 2):
        repo.script(f"print({number})")
        done = mllaunch("run", "--node", "node3", "train.py", check=True)
        mllaunch.wait_sealed(done.run_name)
        document = mllaunch("provenance", done.run_name, "--json").document
        digests.append(document["environment"]["image"]["digest"])
    listed = mllaunch("image", "show", "--node", "node3", "--json", check=True).document
    assert set(digests) <= {image["id"] for image in listed}
    told = mllaunch("image", "prune", "--node", "node3", "--dry-run", "--json", check=True).document
    (going,) = {image["id"] for image in told} & set(digests)
    removed = mllaunch("image", "prune", "--node", "node3", check=True).stdout
    assert removed.startswith("removed ")
    left = {image["id"] for image in mllaunch("image", "show", "--node", "node3", "--json").document}
    assert going not in left and len(left & set(digests)) == 1
    # What comes next is little: the environment is there.
    repo.script("print(3)")
    assert mllaunch("run", "--node", "node3", "train.py").stdout == "3\n"
    mllaunch.wait_sealed("@last")
    done = mllaunch("image", "prune", "--node", "nowhere")
    assert done.rc == 3 and "there is no node nowhere" in done.stderr


def test_where_the_launcher_has_no_engine_the_first_node_makes_the_image_for_all(
    base: str, nodes: Nodes, repo: Repo, mllaunch: Mllaunch, home: Home, engine: Engine
) -> None:
    engine.docker("save", "--output", str(nodes[1].folder / "base.tar"), base)
    nodes[1].docker("load", "--input", "/host/base.tar")
    home.environ["DOCKER_HOST"] = f"unix://{home.folder}/no-engine.sock"
    repo.script(WHERE + "print('changed')\n")
    done = mllaunch("run", "--node", "node1", "--node", "node3", "train.py")
    assert done.rc == 0, done
    assert sorted(line.split()[-1] for line in done.stdout.splitlines() if "rank" in line) == ["0", "1"]
    assert "sent to node3" in done.stderr


@pytest.mark.real("docker-registry")
def test_nodes_fetch_from_a_private_registry_with_the_users_own_login(
    base: str,
    nodes: Nodes,
    repo: Repo,
    mllaunch: Mllaunch,
    home: Home,
    private_registry: Registry,
    engine: Engine,
    tmp_path: Path,
) -> None:
    login = private_registry.login
    assert login is not None
    home.environ["DOCKER_CONFIG"] = str(tmp_path / "docker-config")
    engine.docker(
        *("login", "--username", login.user, "--password-stdin", private_registry.url),
        stdin=login.secret.encode(),
        env={"DOCKER_CONFIG": str(tmp_path / "docker-config")},
    )
    nodes.configure(f"image: {{base: {base}, registry: {private_registry.url}/team}}", python=None)
    port = private_registry.url.rpartition(":")[2]
    # The registry listens on this machine alone, and engines speak to nothing else without TLS.
    way = subprocess.Popen(["ssh", "-F", nodes.hosts.config, "-N", "-R", f"{port}:127.0.0.1:{port}", "node1"])
    try:
        until(lambda: f":{port} " in nodes[1].run("ss", "-ltn"), "the way to the registry")
        done = mllaunch("run", "--node", "node1", repo.script(WHERE + "# from a registry\n"))
    finally:
        way.kill()
        way.wait()
    assert done.rc == 0, done
    assert "sent to" not in done.stderr
    document = mllaunch("provenance", done.run_name, "--json", check=True).document
    assert document["environment"]["image"]["reference"].startswith(f"{private_registry.url}/team/project@")
    assert login.secret not in mllaunch("show", done.run_name, "--json").stdout


def test_a_node_without_an_engine_is_none_for_containers_and_says_why(
    base: str, nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    nodes[3].crash()
    nodes[3].boot()
    told = mllaunch("run", "--runtime", "docker", "--node", "node3", repo.script(WHERE))
    assert told.rc == 2
    assert "node3: no container engine: none answers at /var/run/docker.sock" in told.stderr
    done = mllaunch("run", "--runtime", "docker", "--nodes", "2", "train.py")  # goes to the others
    assert done.rc == 0 and "placed node1, node2" in done.stderr
    auto = mllaunch("run", "--node", "node3", "train.py")
    assert auto.rc == 0 and "on node3 in /root/.local/share/mllaunch" in auto.stdout
    assert "a process of the node: node3 has no container engine" in auto.stderr


def test_gpus_without_the_runtime_of_nvidia_end_the_run_with_what_to_install(
    base: str, nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    done = mllaunch("run", "--gpus", "1", repo.script(WHERE))
    assert done.rc != 0
    assert "NVIDIA" in done.stderr, done.stderr


def test_a_node_with_an_interpreter_of_its_own_is_meant_for_processes(
    base: str, nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    nodes.configure(f"image: {{base: {base}}}", python="/usr/bin/python3")
    done = mllaunch("run", repo.script(WHERE), check=True)
    assert "the interpreter /usr/bin/python3 was asked for" in done.stderr
    assert "in /root/.local/share/mllaunch" in done.stdout
