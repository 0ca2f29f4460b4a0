"""`nodes`: three machines reached by SSH, and a repository whose configuration names them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

import pytest

from tests.e2e.harness import Repo, until
from tests.e2e.ssh import leftovers
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
        lease: str = "30m",
        **keys: str,
    ) -> None:
        """Write and commit the configuration. more: further keys, as YAML. python: None names none. keys: further keys
        of a node, after a comma."""
        own = f", python: {python}" if python is not None else ""
        nodes = ", ".join(f"{{name: {name}{own}{keys.get(name, '')}}}" for name in names.split())
        ssh = f"{{config: {self.hosts.config}, lease: {lease}}}"
        self.repo.write(
            "mllaunch.yaml",
            f"backend: ssh\nnodes: [{nodes}]\nssh: {ssh}\n{textwrap.dedent(more)}",
        )
        self.repo.commit("name the nodes")

    def start_engines(self) -> None:
        """See to it that each has a container engine that answers."""
        for host in self.hosts.hosts:
            if not host.docker("info", "--format", "{{.ID}}", check=False).strip():
                host.start_engine()

    def agents(self) -> list[str]:
        """Command lines of what looks after runs on the nodes, and of their tasks' shims."""
        return leftovers.agents(self.hosts.hosts)

    def orphans(self) -> list[str]:
        """What tasks have left running on the nodes."""
        return leftovers.orphans(self.hosts.hosts)


@pytest.fixture
def nodes(_hosts: Hosts, repo: Repo) -> Iterator[Nodes]:
    for host in _hosts.hosts:
        if not host.is_up:
            host.boot()
    made = Nodes(_hosts, repo)
    yield made
    try:
        until(lambda: not made.agents(), "the agents on the nodes to end", 60)
        assert not made.orphans()
    except AssertionError:
        for host in _hosts.hosts:  # so that what this test left behind fails no other
            host.crash()
        raise
