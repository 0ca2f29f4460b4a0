"""Whatever the user's ssh configuration says of a node counts, as it does for ssh itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Mllaunch, Repo, Result
from tests.e2e.ssh.conftest import Nodes

pytestmark = pytest.mark.real("hosts")


@pytest.fixture
def reached(nodes: Nodes, repo: Repo, mllaunch: Mllaunch) -> Callable[[str], Result]:
    """``reached(text)``: what a run on node1 comes to with this ssh configuration; ssh must come to the same.
    {key}, {known}, {one}, {two}: the user's key, the known hosts, the addresses of two nodes."""
    repo.script("print('ran')")

    def run(text: str) -> Result:
        hosts = nodes.hosts
        made = text.format(
            key=hosts.key, known=hosts.known_hosts, one=nodes[1].address, two=nodes[2].address, root=repo.root
        )
        repo.write("ssh_config", made)
        written = (repo.root / "mllaunch.yaml").read_text().replace(str(hosts.config), "ssh_config")
        repo.write("mllaunch.yaml", written)
        repo.commit()
        config = str(repo.root / "ssh_config")
        plain = subprocess.run(
            [
                "ssh",
                "-F",
                config,
                "-o",
                "BatchMode=yes",
                "-o",
                "StrictHostKeyChecking=yes",
                *("-o", "ConnectTimeout=5"),
                "node1",
                "true",
            ],
            capture_output=True,
            timeout=60,
        )
        done = mllaunch("run", "--node", "node1", "train.py")
        assert (done.rc == 0) is (plain.returncode == 0), (done, plain)
        if done.rc == 0:
            mllaunch.wait_sealed(done.run_name)
        return done

    return run


NODE = """\
Host node1
  HostName {one}
  User root
  IdentityFile {key}
  UserKnownHostsFile {known}
"""
BASTION = """\
Host bastion
  HostName {two}
  ProxyJump none
Host node1
  HostName {one}
Host *
  User root
  IdentityFile {key}
  UserKnownHostsFile {known}
  ProxyJump bastion
"""


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(NODE, id="plain"),
        pytest.param(BASTION, id="a jump that is none for the jump itself"),
        pytest.param(NODE + "  ProxyJump none\n", id="no jump"),
        pytest.param(
            NODE.replace("{one}", "node1-by-name")
            + "  HostKeyAlias {one}\n  ProxyCommand env nc=%n python3 {root}/relay.py %% {one} %p\n",
            id="a command",
        ),
        pytest.param(
            BASTION.replace(
                "  ProxyJump none",
                "  ProxyCommand python3 {root}/relay.py x $(echo {two}) %p",
            ),
            id="a jump by a command, which a shell reads",
        ),
        pytest.param(NODE.replace("{key}", "{root}/%n-key"), id="a key by the node's name"),
        pytest.param("Include {root}/included\n", id="included"),
        pytest.param("Match exec true\n  Include {root}/included\n", id="matched and included"),
        pytest.param(
            NODE.replace("  IdentityFile", "  IdentityFile /no/such/key\n  IdentityFile"),
            id="a key that is missing",
        ),
        pytest.param(NODE + '  UserKnownHostsFile "{root}/known with spaces"\n', id="known twice"),
        pytest.param(
            NODE.replace("UserKnownHostsFile {known}", 'UserKnownHostsFile "{root}/known with spaces"'),
            id="a file with spaces",
        ),
        pytest.param(
            NODE.replace("UserKnownHostsFile {known}", "UserKnownHostsFile {root}/odd"),
            id="lines of all kinds",
        ),
        pytest.param(
            NODE.replace(
                "UserKnownHostsFile {known}", "HostKeyAlias other\n  UserKnownHostsFile {root}/aliased"
            ),
            id="known by another name",
        ),
        pytest.param(
            NODE.replace(
                "UserKnownHostsFile {known}", "UserKnownHostsFile none\n  GlobalKnownHostsFile {known}"
            ),
            id="known to all",
        ),
        pytest.param(
            NODE.replace("IdentityFile {key}", "IdentityFile none\n  IdentityAgent {root}/agent"),
            id="an agent",
        ),
    ],
)
def test_what_ssh_reaches_is_reached(
    nodes: Nodes, repo: Repo, reached: Callable[[str], Result], text: str, tmp_path: Path
) -> None:
    hosts = nodes.hosts
    known, key = hosts.known_hosts.read_text(), nodes[1].key
    included = NODE.format(key=hosts.key, known=hosts.known_hosts, one=nodes[1].address)
    repo.write("included", included)
    repo.write("relay.py", RELAY)
    (repo.root / "known with spaces").write_text(known)
    (repo.root / "node1-key").write_bytes(hosts.key.read_bytes())
    (repo.root / "node1-key").chmod(0o600)
    odd = (
        f"@cert-authority * {key}\n@revoked * {nodes[3].key}\n{nodes[1].address} ssh-ed25519 AAAA\nfoo\n# x\n"
    )
    (repo.root / "odd").write_text(f"{odd}10.*,!{nodes[2].address} {key}\n")
    (repo.root / "aliased").write_text(f"other {key}\n")
    agent = None
    if "IdentityAgent" in text:
        agent = subprocess.Popen(
            ["ssh-agent", "-D", "-a", str(repo.root / "agent")], stdout=subprocess.DEVNULL
        )
        environ = {**os.environ, "SSH_AUTH_SOCK": str(repo.root / "agent")}
        while (
            subprocess.run(["ssh-add", "-q", hosts.key], env=environ, stderr=subprocess.DEVNULL).returncode
            == 2
        ):
            assert agent.poll() is None
    repo.write(".gitignore", "agent\n")
    try:
        done = reached(text)
    finally:
        if agent is not None:
            agent.kill()
            agent.wait()
    assert (done.rc, done.stdout) == (0, "ran\n"), done.stderr


RELAY = """
import os, select, socket, sys
there = socket.create_connection((sys.argv[2], int(sys.argv[3])))
while True:
    for ready in select.select([0, there], [], [])[0]:
        data = os.read(0, 65536) if ready == 0 else there.recv(65536)
        if not data:
            sys.exit()
        (there.sendall if ready == 0 else lambda data: os.write(1, data))(data)
"""


def test_a_jump_whose_key_is_unknown_is_named_with_the_command_that_accepts_it(
    nodes: Nodes, repo: Repo, reached: Callable[[str], Result]
) -> None:
    (repo.root / "one").write_text(f"{nodes[1].address} {nodes[1].key}\n")
    done = reached(BASTION.replace("{known}", "{root}/one"))
    assert done.rc == 4
    assert "error[unknown_host_key]: bastion, on the way to node1: nobody has said yet" in done.stderr
    assert f"hint: ssh -F {repo.root}/ssh_config bastion true\n" in done.stderr


@pytest.mark.parametrize(
    ("text", "rc", "words"),
    [
        (NODE.replace("{key}", "/no/such/key"), 4, "error[ssh_login]: node1 lets nobody in as root: "),
        (NODE.replace("{key}", "{root}/garbage"), 4, "error[ssh_login]: node1 lets nobody in as root: "),
        (NODE.replace("User root", "User nobody-of-that-name"), 4, "in as nobody-of-that-name: "),
        ("Host *\n  Foo bar\n", 2, "ssh_config: line 2: Bad configuration option: foo"),
        (NODE.replace("{known}", "{root}/revoked"), 4, "node1 shows a key that was revoked: ssh-ed25519"),
        (NODE + "  RevokedHostKeys {root}/keys\n", 4, "node1 shows a key that was revoked: ssh-ed25519"),
        (NODE + "  RevokedHostKeys {root}/none\n", 4, "which keys were revoked is not known: "),
        (NODE + "  ProxyCommand sleep 60\n", 1, "error[unreachable]: node1 cannot be reached: "),
        (
            BASTION.replace("  ProxyJump none\n", "  ProxyJump none\n  User nobody-there\n"),
            4,
            "bastion, on the way to node1, lets nobody in as",
        ),
    ],
)
def test_what_ssh_does_not_reach_says_why(
    nodes: Nodes, repo: Repo, reached: Callable[[str], Result], text: str, rc: int, words: str
) -> None:
    (repo.root / "garbage").write_text("no key\n")
    (repo.root / "garbage").chmod(0o600)
    (repo.root / "revoked").write_text(f"@revoked * {nodes[1].key}\n{nodes[1].address} {nodes[1].key}\n")
    (repo.root / "keys").write_text(f"{nodes[1].key}\n")
    done = reached(text)
    assert done.rc == rc and words in done.stderr, done.stderr


@pytest.fixture
def authority(nodes: Nodes, repo: Repo) -> Iterator[str]:
    """The public key of one that vouches for node1, and for its key that nobody knows."""
    ca = repo.root.parent / "authority"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", ca], check=True)
    sign = ["ssh-keygen", "-q", "-s", ca, "-I", "node1", "-h", "-n", nodes[1].address]
    subprocess.run([*sign, nodes[1].folder / "host_key.pub"], check=True)
    config = nodes[1].folder / "sshd_config"
    before = config.read_text()
    config.write_text(f"{before}HostCertificate /host/host_key-cert.pub\n")
    nodes[1].run("pkill", "-HUP", "-o", "sshd")
    yield ca.with_suffix(".pub").read_text().strip()
    config.write_text(before)
    nodes[1].run("pkill", "-HUP", "-o", "sshd")


def test_a_node_is_reached_for_whose_key_an_authority_vouches(
    nodes: Nodes,
    repo: Repo,
    reached: Callable[[str], Result],
    authority: str,
    mllaunch: Mllaunch,
    tmp_path: Path,
) -> None:
    (repo.root / "vouched").write_text(f"@cert-authority 10.* {authority}\n")
    repo.script("open('outputs/a', 'w').write('b'); print('ran')")
    done = reached(NODE.replace("{known}", "{root}/vouched"))
    assert (done.rc, done.stdout) == (0, "ran\n"), done.stderr
    mllaunch("pull", done.run_name, str(tmp_path / "pulled"), check=True)
    assert (tmp_path / "pulled/outputs/a").read_text() == "b"
    (repo.root / "vouched").write_text(f"@cert-authority 10.* {nodes[2].key}\n")
    done = mllaunch("run", "--node", "node1", "train.py")
    assert done.rc == 4
    assert "error[ssh_login]: node1: ssh says: Host key verification failed.\n" in done.stderr
    assert "hint: does this work, and asks nothing? ssh -o BatchMode=yes -F " in done.stderr


def test_an_authority_counts_through_a_jump_where_nobody_is_asked_either(
    nodes: Nodes,
    repo: Repo,
    reached: Callable[[str], Result],
    authority: str,
    mllaunch: Mllaunch,
    tmp_path: Path,
) -> None:
    asked = tmp_path / "asked"
    ask = repo.write("ask", f"#!/bin/sh\ntouch {asked}\necho yes\n")
    ask.chmod(0o755)
    environ = {"DISPLAY": ":9", "SSH_ASKPASS": str(ask)}
    known = repo.root / "vouched"
    known.write_text(f"@cert-authority {nodes[1].address} {authority}\n{nodes[2].address} {nodes[2].key}\n")
    done = reached(BASTION.replace("{known}", "{root}/vouched"))
    assert (done.rc, done.stdout) == (0, "ran\n"), done.stderr
    configured = (repo.root / "mllaunch.yaml").read_text()
    # The files of the configuration know nobody: that of the run's alone counts, on the way, too.
    repo.write("ssh_config", (repo.root / "ssh_config").read_text().replace("/vouched", "/empty"))
    repo.write("mllaunch.yaml", configured.replace("ssh: {", "ssh: {known_hosts: vouched, "))
    repo.commit()
    mllaunch.wait_sealed(mllaunch("run", "--node", "node1", "train.py", env=environ, check=True).run_name)
    known.write_text(f"@cert-authority {nodes[1].address} {authority}\n")
    refused = mllaunch("run", "--node", "node1", "train.py", env=environ)
    assert refused.rc == 4
    assert "error[ssh_login]: node1: ssh says: Host key verification failed.\n" in refused.stderr
    assert not asked.exists()
    assert known.read_text().count("\n") == 1


def test_a_list_that_only_openssh_reads_says_whose_keys_were_revoked(
    nodes: Nodes, repo: Repo, reached: Callable[[str], Result]
) -> None:
    (repo.root / "keys").write_text(f"{nodes[2].key}\n")
    revoke = ["ssh-keygen", "-q", "-k", "-f", repo.root / "krl"]
    subprocess.run([*revoke, repo.root / "keys"], check=True)
    done = reached(NODE + "  RevokedHostKeys {root}/krl\n")
    assert (done.rc, done.stdout) == (0, "ran\n"), done.stderr
    (repo.root / "keys").write_text(f"{nodes[1].key}\n")
    subprocess.run([*revoke, "-u", repo.root / "keys"], check=True)
    done = reached(NODE + "  RevokedHostKeys {root}/krl\n")
    assert done.rc == 4 and "node1: ssh says: Host key verification failed.\n" in done.stderr
