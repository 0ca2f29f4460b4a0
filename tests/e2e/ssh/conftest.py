"""`nodes`: three machines reached by SSH, and a repository whose configuration names them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from tests.e2e.harness import Repo, until
from tests.testbed.hosts import Host, Hosts


@pytest.fixture(scope="session")
def _hosts() -> Iterator[Hosts]:
    with Hosts(3, gpus=4) as made:
        yield made


class Nodes:
    """The machines, by number from 1, as the repository's configuration knows them."""

    def __init__(self, hosts: Hosts, repo: Repo) -> None:
        self.hosts = hosts
        self.repo = repo
        self.configure()

    def __getitem__(self, number: int) -> Host:
        return self.hosts.hosts[number - 1]

    def configure(
        self,
        more: str = "",
        names: str = "node1 node2 node3",
        python: str | None = "/usr/bin/python3",
        **keys: str,
    ) -> None:
        """Write and commit the configuration. more: further keys, as YAML. keys: likewise, of a node, after a comma."""
        said = f", python: {python}" if python else ""
        nodes = ", ".join(f"{{name: {name}{said}{keys.get(name, '')}}}" for name in names.split())
        self.repo.write(
            "mllaunch.yaml",
            f"backend: ssh\nnodes: [{nodes}]\nssh: {{config: {self.hosts.config}}}\n{textwrap.dedent(more)}",
        )
        self.repo.commit("name the nodes")

    def agents(self) -> list[str]:
        """Command lines of what looks after runs on the nodes, and of their tasks' shims."""
        found = [host.run("ps", "axww", "-o", "args") for host in self.hosts.hosts if host.is_up]
        return [line for text in found for line in text.splitlines() if "main() supervise" in line]


@pytest.fixture
def nodes(_hosts: Hosts, repo: Repo) -> Iterator[Nodes]:
    for host in _hosts.hosts:
        if not host.is_up:
            host.boot()
    made = Nodes(_hosts, repo)
    yield made
    until(lambda: not made.agents(), "the agents on the nodes to end", 60)
