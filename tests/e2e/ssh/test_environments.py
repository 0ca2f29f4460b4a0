"""What a commit's lock names is installed on a node, once, where no interpreter is named."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Mllaunch, Repo, until
from tests.e2e.ssh.conftest import Nodes
from tests.testbed import packages, wheels

pytestmark = pytest.mark.real("hosts")

SAY = "import sys, tiny; print('tiny', tiny.VERSION, sys.prefix)"
PLACE = "disk/share/mllaunch/node/{0}/environments"


@pytest.fixture(autouse=True)
def _offline(nodes: Nodes) -> Iterator[None]:
    """The nodes reach no package index: their users have told pip of a folder. At the end no environment is left."""
    nodes.configure("runtime: process\n", python=None)
    settings = "[global]\nno-index = true\nno-cache-dir = true\nfind-links = /host/wheels\n"
    for number in (1, 2):
        (nodes[number].folder / "wheels").mkdir()
        wheels.tiny(nodes[number].folder / "wheels", "1.0")
        (nodes[number].folder / "pip.conf").write_text(settings)
        nodes[number].run("sh", "-c", "mkdir -p /root/.config/pip && cp /host/pip.conf /root/.config/pip/")
    yield
    for number in (1, 2):
        nodes[number].run("rm", "-rf", "/host/wheels", f"/host/{PLACE.format(nodes[number].name)}")
        nodes[number].run("rm", "-rf", "/root/.config/pip")


def test_pinned_requirements_are_installed_once_and_recorded(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    repo.write("requirements.txt", "-e .\ntiny==1.0\n")
    done = mllaunch("run", "--node", "node1", repo.script(SAY))
    assert done.rc == 0, done.stderr
    assert done.stdout.startswith("tiny 1.0 /root/.local/share/mllaunch/node/node1/environments/")
    assert "… env    step 2 of 2: pip install -r requirements.txt [node1]\n" in done.stderr
    assert (
        "✓ env    packages of requirements.txt (new on node1), without what installs the repository itself\n"
        in done.stderr
    )
    (made,) = (nodes[1].folder / PLACE.format("node1")).glob("*/made.json")
    mllaunch.wait_sealed(done.run_name)
    environment = mllaunch("provenance", done.run_name, "--json", check=True).document["environment"]
    assert {"name": "tiny", "version": "1.0"} in environment["python"]["packages"]
    before = made.stat()
    repo.write("more.txt", "another commit\n")
    repo.commit()
    # Programs of the environment are found, too.
    done = mllaunch("run", "--node", "node1", "--node", "node2", "--", "tiny")
    assert done.stdout.count("tiny 1.0\n") == 2
    assert "packages of requirements.txt (new on node2)" in done.stderr
    assert made.stat().st_ino == before.st_ino
    mllaunch.wait_sealed(done.run_name)
    environment = mllaunch("provenance", done.run_name, "--json", check=True).document["environment"]
    assert environment["image"] is None
    assert environment["lock"]["path"] == "requirements.txt"
    assert environment["lock"]["digest"].startswith("sha256:") and not environment["lock"]["resolved"]


def test_two_submissions_at_once_make_one_environment(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    folder = nodes[1].folder / "wheels"
    wheels.slow(folder, "3.0", "/host/wheels")
    repo.write("requirements.txt", "tiny==3.0\n")
    repo.script(SAY)
    first = mllaunch.start("run", "--node", "node1", "train.py")
    until((folder / "built").exists, "the installation to begin")
    second = mllaunch.start("run", "--node", "node1", "train.py")
    second.wait_for("step 2 of 2")
    (folder / "go").touch()
    done = [first.end(), second.end()]
    assert [one.rc for one in done] == [0, 0], done
    assert done[0].stdout == done[1].stdout
    assert (folder / "built").read_text() == "built\n"


def test_an_installation_that_is_killed_ends_the_waiting_and_is_begun_anew(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    folder = nodes[1].folder / "wheels"
    wheels.slow(folder, "3.0", "/host/wheels")
    repo.write("requirements.txt", "tiny==3.0\n")
    repo.script(SAY)
    waits = mllaunch.start("run", "--node", "node1", "train.py")
    until((folder / "built").exists, "the installation to begin")
    nodes[1].run("pkill", "-KILL", "-f", "main.. install ")
    # Another submission does not begin anew while pip is still at it.
    joins = mllaunch.start("run", "--node", "node1", "train.py")
    joins.wait_for("step 2 of 2")
    nodes[1].run("pkill", "-KILL", "-f", "/environments/")
    for started in (waits, joins):
        done = started.end()
        assert done.rc == 1 and "it was ended before it was done" in done.stderr
    assert mllaunch("ps", "-a").stdout == ""
    (folder / "go").touch()
    done = mllaunch("run", "--node", "node1", "train.py")
    assert done.stdout.startswith("tiny 3.0 ") and "(new on node1)" in done.stderr


def test_a_failure_is_told_and_nothing_is_recorded_and_the_next_try_begins_anew(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    repo.write("requirements.txt", "tiny==2.0\n")
    done = mllaunch("run", "--node", "node1", repo.script(SAY))
    assert done.rc == 1
    assert "error[environment]: node1: the packages of requirements.txt could not be installed" in done.stderr
    assert "pip install -r requirements.txt: exit status 1\n" in done.stderr
    assert "  ERROR: No matching distribution found for tiny==2.0\n" in done.stderr
    assert "nodes: [{name: node1, python: /PATH/TO/python}]" in done.stderr
    assert mllaunch("ps", "-a").stdout == ""
    wheels.tiny(nodes[1].folder / "wheels", "2.0")
    assert mllaunch("run", "--node", "node1", "train.py").stdout.startswith("tiny 2.0 ")


def test_an_installation_outlives_its_submission_and_a_broken_one_is_made_anew(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    repo.write("requirements.txt", "tiny==1.0\n")
    repo.script(SAY)
    place = nodes[1].folder / PLACE.format("node1")
    first = mllaunch.start("run", "--node", "node1", "train.py")
    first.wait_for("step 1 of 2")
    first.interrupt()
    assert first.end().rc == 130
    (made,) = until(lambda: list(place.glob("*/made.json")), "the environment to be there all the same")
    assert "(cached)" in mllaunch("run", "--node", "node1", "train.py").stderr
    # As a node that went down in the midst of it leaves it.
    made.unlink()
    (made.parent / "bin/python").unlink()
    done = mllaunch("run", "--node", "node1", "train.py")
    assert done.rc == 0 and "(new on node1)" in done.stderr


def test_a_lock_of_uv_is_installed_by_uv_which_does_not_stay(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch, tmp_path: Path
) -> None:
    got = packages.pip("download", "--no-deps", "--dest", str(nodes[1].folder / "wheels"), "uv")
    assert got.returncode == 0, got.stderr
    repo.write(
        "pyproject.toml",
        """\
        [project]
        name = "project"
        version = "0"
        requires-python = ">=3.8"
        dependencies = ["tiny"]
        """,
    )
    repo.write(
        "uv.lock",
        """\
        version = 1
        requires-python = ">=3.8"

        [[package]]
        name = "project"
        version = "0"
        source = { virtual = "." }
        dependencies = [{ name = "tiny" }]

        [package.metadata]
        requires-dist = [{ name = "tiny" }]

        [[package]]
        name = "tiny"
        version = "1.0"
        source = { registry = "/host/wheels" }
        wheels = [{ path = "tiny-1.0-py3-none-any.whl" }]
        """,
    )
    done = mllaunch("run", "--node", "node1", repo.script(SAY))
    assert done.rc == 0, done.stderr
    assert done.stdout.startswith("tiny 1.0 /root/.local/share/mllaunch/node/node1/environments/")
    assert "✓ env    packages of uv.lock (new on node1)\n" in done.stderr
    (made,) = (nodes[1].folder / PLACE.format("node1")).glob("*/made.json")
    assert not (made.parent / "tool").exists()


def test_a_lock_of_poetry_is_installed_without_what_is_the_repository_s_own(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    wanted = ("poetry", "poetry-plugin-export")
    got = packages.pip("download", "--dest", str(nodes[1].folder / "wheels"), *wanted)
    assert got.returncode == 0, got.stderr
    repo.write(
        "pyproject.toml",
        """\
        [tool.poetry]
        name = "project"
        version = "0"
        description = ""
        authors = []
        package-mode = false

        [tool.poetry.dependencies]
        python = ">=3.8"
        tiny = "1.0"
        helper = {path = "libs/helper"}
        """,
    )
    # The hash is of what pyproject.toml says, as poetry makes it.
    repo.write(
        "poetry.lock",
        """\
        [[package]]
        name = "helper"
        version = "0"
        description = ""
        optional = false
        python-versions = "*"
        groups = ["main"]
        files = []
        develop = false

        [package.source]
        type = "directory"
        url = "libs/helper"

        [[package]]
        name = "tiny"
        version = "1.0"
        description = ""
        optional = false
        python-versions = "*"
        groups = ["main"]
        files = []

        [metadata]
        lock-version = "2.1"
        python-versions = ">=3.8"
        content-hash = "59b820cc1c2f9d69d36859d7d146c89b1f8ac3835235f9c0232b5a2276447afc"
        """,
    )
    done = mllaunch("run", "--node", "node1", repo.script(SAY))
    assert done.rc == 0, done.stderr
    assert done.stdout.startswith("tiny 1.0 /root/.local/share/mllaunch/node/node1/environments/")
    assert "✓ env    packages of poetry.lock (new on node1)" in done.stderr
    (made,) = (nodes[1].folder / PLACE.format("node1")).glob("*/made.json")
    assert not (made.parent / "tool").exists()


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("requirements.txt", "tiny\n", "requirements.txt does not pin every version"),
        ("environment.yml", "dependencies: [tiny=1.0]\n", "environment.yml is not installed on nodes"),
    ],
)
def test_what_is_not_installed_is_said(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch, name: str, content: str, why: str
) -> None:
    repo.write(name, content)
    done = mllaunch("run", "--node", "node1", repo.script("import sys; print(sys.executable)"))
    assert done.rc == 0 and "/environments/" not in done.stdout
    assert f"! env    {why}" in done.stderr and "the node's python3 is used as it is\n" in done.stderr


def test_an_interpreter_that_is_named_is_used_as_it_is(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> None:
    repo.write("requirements.txt", "tiny==1.0\n")
    repo.script("import sys; print(sys.executable)")
    done = mllaunch("run", "--node", "node1", "--python", "python3", "train.py")
    assert done.rc == 0 and "/environments/" not in done.stdout and " env " not in done.stderr
    nodes.configure()
    done = mllaunch("run", "--node", "node1", "train.py")
    assert done.stdout == "/usr/bin/python3\n" and " env " not in done.stderr


WHICH = "import sys; print(sys.executable)"
WRITE_WHICH = """
import os, sys
with open(os.environ["MLLAUNCH_OUTPUT_DIR"] + "/model.pt", "wb") as file:
    file.write(b"weights" * 1000000)
print(sys.executable)
"""


@pytest.mark.parametrize("typed", [("--python", "/tmp/mine"), ("MLLAUNCH_PYTHON", "/tmp/mine")])
def test_an_interpreter_that_is_typed_goes_before_that_of_the_node_and_is_what_the_record_says(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch, typed: tuple[str, str]
) -> None:
    nodes.configure("runtime: auto\n", python="/usr/bin/python3")
    repo.script(WRITE_WHICH)
    name, value = typed
    flags, env = ((name, value), {}) if name.startswith("-") else ((), {name: value})
    done = mllaunch("run", "--node", "node1", *flags, "train.py", env=env)
    assert done.rc == 3
    assert f"error[python]: node1 has no {value}\n" in done.stderr
    assert f"hint: {name} names it: name one that is there" in done.stderr
    assert mllaunch("ps", "-a").stdout == ""  # nothing was written down
    nodes[1].run("ln", "-sf", "/usr/bin/python3", value)
    done = mllaunch("run", "--node", "node1", *flags, "train.py", env=env, check=True)
    assert done.stdout == f"{value}\n"
    assert f"the interpreter {value} was asked for" in done.stderr
    again = mllaunch("resume", done.run_name, "-f", check=True)  # whose own it is not
    assert again.stdout.endswith(f"\n{value}\n")
    nodes[1].run("rm", value)


def test_a_node_s_own_interpreter_goes_before_that_of_all_runs_and_is_what_the_record_says(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    nodes.configure("runtime: auto\npython: /nonexistent/python\n", python="/usr/bin/python3")
    repo.script(WHICH)
    done = mllaunch("run", "--node", "node1", "train.py", check=True)
    assert done.stdout == "/usr/bin/python3\n"
    assert "the interpreter /usr/bin/python3 was asked for" in done.stderr
    assert "/nonexistent" not in mllaunch("provenance", done.run_name, "--json").stdout
    nodes.configure("python: /nonexistent/python\n", python=None)
    done = mllaunch("run", "--node", "node1", "train.py")
    assert done.rc == 3
    assert "error[python]: node1 has no /nonexistent/python\n" in done.stderr
    assert "hint: mllaunch.yaml:" in done.stderr


def test_an_interpreter_in_the_user_s_home_is_looked_for_in_the_home_on_the_node(
    nodes: Nodes, repo: Repo, mllaunch: Mllaunch
) -> None:
    nodes.configure("python: ~/.local/mine\n", python=None)
    nodes[1].run("ln", "-sf", "/usr/bin/python3", "/root/.local/mine")
    repo.script(WHICH)
    done = mllaunch("run", "--node", "node1", "train.py", check=True)
    assert done.stdout == "/root/.local/mine\n"
    nodes[1].run("rm", "/root/.local/mine")
    shown = mllaunch("doctor", "--node", "node1").stdout
    assert "~/.local/mine" in shown
