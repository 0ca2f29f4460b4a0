"""What may be wrong with a node: each has its own words and a remedy, and nothing is half-made."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.harness import Mllaunch, Repo
from tests.e2e.ssh.conftest import Nodes

pytestmark = pytest.mark.real("hosts")

# A real interpreter; only what it says of its version is not true.
OLD_PYTHON = """\
#!/bin/sh
exec /usr/bin/python3 -c 'import sys
sys.version_info = (3, 6, 8)
exec(sys.stdin.buffer.readline())'
"""


@pytest.fixture(autouse=True)
def _script(nodes: Nodes, repo: Repo) -> None:
    repo.script("print('ran')")


def test_an_unknown_host_key_is_refused(nodes: Nodes, mllaunch: Mllaunch) -> None:
    nodes.hosts.known_hosts.write_text("")
    try:
        done = mllaunch("run", "--node", "node1", "train.py")
    finally:
        nodes.hosts.write_known_hosts()
    assert done.rc == 4
    assert "error[unknown_host_key]: node1" in done.stderr and "SHA256:" in done.stderr
    assert f"hint: ssh -F {nodes.hosts.config} node1 true" in done.stderr
    assert mllaunch("ps").stdout == ""  # nothing was written down


def test_a_changed_host_key_is_refused(nodes: Nodes, mllaunch: Mllaunch) -> None:
    nodes.hosts.known_hosts.write_text(f"{nodes[1].address} {nodes[2].key}\n")
    try:
        done = mllaunch("run", "--node", "node1", "train.py")
    finally:
        nodes.hosts.write_known_hosts()
    assert done.rc == 4
    assert "error[changed_host_key]: node1" in done.stderr
    assert f"ssh-keygen -R {nodes[1].address} -f {nodes.hosts.known_hosts} " in done.stderr


def test_a_node_without_the_python_that_is_wanted_is_named(nodes: Nodes, mllaunch: Mllaunch) -> None:
    nodes.configure(python="/opt/none/python3")
    done = mllaunch("run", "--node", "node1", "train.py")
    assert done.rc == 1
    assert "error[no_python]: node1 has no /opt/none/python3" in done.stderr
    assert "hint: nodes: [{name: node1, python: " in done.stderr


def test_a_python_that_is_too_old_is_refused(nodes: Nodes, mllaunch: Mllaunch) -> None:
    (nodes[1].folder / "python3.6").write_text(OLD_PYTHON)
    (nodes[1].folder / "python3.6").chmod(0o755)
    nodes.configure(python="/host/python3.6")
    done = mllaunch("run", "--node", "node1", "train.py")
    assert done.rc == 1
    assert "error[old_python]: node1 has Python 3.6.8" in done.stderr and "3.8 or newer" in done.stderr


def test_more_gpus_than_any_node_has_are_refused(nodes: Nodes, mllaunch: Mllaunch) -> None:
    done = mllaunch("submit", "--gpus", "5", "train.py")
    assert done.rc == 2
    assert "error[placement]: 1 node with 5 GPUs: 0 of 3 can serve" in done.stderr
    assert "node1: it has 4 GPUs; likewise node2, node3\n" in done.stderr


def test_a_node_that_is_not_configured_is_named(nodes: Nodes, mllaunch: Mllaunch) -> None:
    done = mllaunch("submit", "--node", "gpu99", "train.py")
    assert done.rc == 3
    assert "there is no node gpu99; the configuration has node1, node2, node3" in done.stderr
    done = mllaunch("submit", "--node", "nod1", "train.py")
    assert "hint: did you mean node1? " in done.stderr


def test_nodes_that_cannot_be_had_are_refused_in_the_words_that_were_typed(
    nodes: Nodes, mllaunch: Mllaunch
) -> None:
    for words, said in (
        (("--nodes", "5"), "5 nodes are wanted, and the configuration has 3"),
        (("--nodes", "3", "--node", "node1"), "--nodes 3, but --node names 1 node\n"),
        (("--node", "node1", "--node", "node1"), "--node node1: it is named twice"),
    ):
        done = mllaunch("submit", *words, "train.py")
        assert done.rc == 2 and said in done.stderr


def test_a_silent_node_that_is_needed_is_named(nodes: Nodes, mllaunch: Mllaunch) -> None:
    nodes[2].crash()
    done = mllaunch("submit", "--nodes", "3", "train.py")
    assert done.rc == 1
    assert "error[unreachable]: 3 nodes with anything: 2 of 3 can serve, and 1 cannot be asked" in done.stderr
    assert "\n  node2 cannot be reached" in done.stderr
    assert mllaunch("run", "--nodes", "2", "train.py").rc == 0  # the others serve


def test_data_that_a_node_has_not_got_are_named_before_anything_starts(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    repo.write(".gitignore", "dat/\n")
    repo.write("dat/x", "here\n")
    repo.commit()
    place = repo.root / "dat"
    nodes[1].run("mkdir", "-p", str(place))
    nodes[1].run("sh", "-c", 'echo there >"$1/x"', "sh", str(place))
    reading = ("--data", "dat", "--", "cat", "dat/x")
    for more in ((), ("--dry-run",)):
        done = mllaunch("run", *more, "--node", "node1", "--node", "node2", "--node", "node3", *reading)
        assert done.rc == 3
        assert f"error[data]: node2 has no {place}\n  node3 has no {place}\n" in done.stderr
        assert "hint: data lie on a node under the same absolute path as here" in done.stderr
    assert mllaunch("ps").stdout == ""  # nothing was written down
    assert mllaunch("run", "--node", "node1", *reading).stdout == "there\n"


def test_doctor_tells_what_a_node_has_and_what_it_lacks(nodes: Nodes, mllaunch: Mllaunch) -> None:
    good = mllaunch("doctor", "--node", "node1", check=True).stdout
    assert "reach: node1 lets us in" in good and "clock: it goes as ours does" in good
    assert "GPUs: 4" in good or "4 GPUs" in good
    nodes.configure("python: /none/python\n", python=None)
    assert "node1 has no /none/python, which is configured" in mllaunch("doctor", "--node", "node1").stdout
    nodes[2].crash()
    bad = mllaunch("doctor", "--node", "node2")
    assert bad.rc == 1
    assert "reach: node2 cannot be reached" in bad.stdout
    assert f"fix: does this work? ssh -F {nodes.hosts.config} node2 true" in bad.stdout
    assert mllaunch("doctor", "--node", "gpu99").rc == 3


@pytest.fixture
def guest(nodes: Nodes) -> Iterator[str]:
    """An ordinary user's account on node1, which the configuration names."""
    nodes[1].run("useradd", "--create-home", "--shell", "/bin/sh", "--password", "*", "guest")
    nodes.configure(python=None, node1=", user: guest")
    yield "guest"
    nodes[1].run("userdel", "--remove", "--force", "guest", check=False)


@pytest.mark.parametrize(
    ("change", "says", "fix"),
    [
        (("usermod", "-s", "/usr/sbin/nologin", "guest"), "not available", "needs a login shell"),
        (("usermod", "-s", "/bin/false", "guest"), "ended with exit status 1", "needs a login shell"),
        (("chown", "root", "/home/guest"), "Permission denied", "home there must exist, be writable"),
    ],
)
def test_an_account_that_can_run_nothing_is_told_with_a_remedy(
    nodes: Nodes, mllaunch: Mllaunch, guest: str, change: tuple[str, ...], says: str, fix: str
) -> None:
    nodes[1].run(*change)
    done = mllaunch("doctor", "--node", "node1")
    assert done.rc == 1
    assert says in done.stdout and fix in done.stdout and "mllaunch doctor" not in done.stdout


def test_a_folder_of_gpu_leases_that_others_may_not_write_to_is_told_with_its_remedy(
    nodes: Nodes, mllaunch: Mllaunch, guest: str
) -> None:
    nodes[1].run("mkdir", "-p", "/tmp/mllaunch-leases")
    nodes[1].run("chmod", "755", "/tmp/mllaunch-leases")
    said = "can't make a file in the folder of GPU leases '/tmp/mllaunch-leases': Permission denied"
    checked = mllaunch("doctor", "--node", "node1")
    assert checked.rc == 1
    assert f"✗ GPU leases: {said}; its mode must be 1777" in checked.stdout
    done = mllaunch("run", "--gpus", "1", "--node", "node1", "train.py")
    assert done.rc != 0
    assert said in done.stderr
    nodes[1].run("chmod", "1777", "/tmp/mllaunch-leases")
    assert mllaunch("doctor", "--node", "node1").rc == 0


def test_an_ssh_configuration_in_the_repository_serves_from_every_folder_and_later(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    nodes.configure()
    repo.write("cluster/ssh_config", nodes.hosts.config.read_text())
    written = (repo.root / "mllaunch.yaml").read_text().replace(str(nodes.hosts.config), "cluster/ssh_config")
    repo.write("mllaunch.yaml", written)
    repo.commit()
    done = mllaunch("run", "--node", "node1", "../train.py", cwd=repo.root / "cluster")
    assert (done.rc, done.stdout) == (0, "ran\n")
    assert mllaunch.wait_sealed(done.run_name)["seal"] == "sealed-complete"  # by whoever works in "/"


def test_an_ssh_configuration_that_is_not_there_is_named(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    written = (repo.root / "mllaunch.yaml").read_text().replace(str(nodes.hosts.config), "cluster/ssh_config")
    repo.write("mllaunch.yaml", written)
    repo.commit()
    done = mllaunch("run", "--node", "node1", "train.py")
    assert done.rc == 2
    assert f"error[ssh_config]: there is no {repo.root}/cluster/ssh_config\n" in done.stderr
