"""Machines reached by SSH: each with its own address, host name, processes, /tmp and sshd, on this one machine.

They are namespaces that share this machine's files, with what they write in memory; only ~/.local (where mllaunch keeps
what it has) is on a disk and outlives a crash. What the testbed keeps is /shared. The switch between them lives in a
network namespace of its own, so the machine's packet filter has no say. A link can be cut, made a bad one (wire.py) and
healed; a host can crash, lose power, and boot again.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

from tests.testbed import leftovers
from tests.testbed.engine import CACHE, CLI, REPOSITORY
from tests.testbed.wire import Settings

_PREFIX = "mllaunch-hosts-"
_INIT = Path(__file__).with_name("host_init.sh")
_TIMEOUT_S = 30.0
_SSHD = """\
Port 22
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
MaxStartups 100
MaxSessions 100
SetEnv MLLAUNCH_FAKE_GPUS={gpus}
Subsystem sftp internal-sftp
"""
# The first process collects orphans, as every init does.
_BEGIN = """\
/usr/sbin/sshd -f /host/sshd_config -E /host/sshd.log
exec python3 -c 'import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    try:
        os.wait()
    except ChildProcessError:
        signal.pause()'
"""


@cache
def missing() -> str | None:
    """What keeps hosts from being made here, or None."""
    if os.geteuid() != 0:
        return "not root"
    wanted = ("ip", "nsenter", "unshare", "sshd", "ssh-keygen")
    without = [
        name for name in wanted if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None
    ]
    return f"{', '.join(without)} not installed" if without else None


class Host:
    """One of them. Its name is also what ``Hosts.config`` knows it by."""

    def __init__(self, hosts: Hosts, number: int, gpus: int) -> None:
        self.name = f"node{number}"
        self.address = f"10.{hosts.network}.0.{10 + number}"
        self.folder = hosts.folder / self.name
        self._hosts = hosts
        self._number = number
        self._namespace = f"{hosts.tag}n{number}"
        self._port = f"{hosts.tag}p{number}"
        self._wire = f"{hosts.tag}w{number}"
        self._outer: subprocess.Popen[bytes] | None = None
        self._bad_wire: subprocess.Popen[bytes] | None = None
        self.folder.mkdir()
        for inner in ("memory", "root", "disk"):
            (self.folder / inner).mkdir()
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / "host_key"))
        shutil.copy(hosts.folder / "key.pub", self.folder / "authorized_keys")
        (self.folder / "sshd_config").write_text(_SSHD.format(folder="/host", gpus=gpus))
        (self.folder / "daemon.json").write_text("{}")
        (self.folder / "begin").write_text(_BEGIN)
        (self.folder / "etc_hosts").write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")

    @property
    def key(self) -> str:
        """Its host key, as known_hosts has it."""
        return " ".join((self.folder / "host_key.pub").read_text().split()[:2])

    @property
    def is_up(self) -> bool:
        return self._outer is not None

    def boot(self) -> None:
        """Begin a new life, with nothing but what is below ~/.local from the one before."""
        self._end_bad_wire()
        subprocess.run(["ip", "-n", self._hosts.switch, "link", "del", self._port], stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "netns", "del", self._namespace], stderr=subprocess.DEVNULL)
        switch = self._hosts.switch
        _run("ip", "netns", "add", self._namespace)
        _run(
            "ip",
            "link",
            "add",
            self._wire,
            "netns",
            self._namespace,
            "type",
            "veth",
            "peer",
            "name",
            self._port,
            "netns",
            switch,
        )
        _run("ip", "-n", switch, "link", "set", self._port, "master", "br0", "up")
        for words in (
            # The same in each life, as that of real hardware: others remember it.
            ("link", "set", self._wire, "name", "eth0", "address", f"02:00:00:00:00:{self._number:02x}"),
            ("addr", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            _run("ip", "-n", self._namespace, *words)
        apart = (
            "unshare",
            "--mount",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        )
        with (self.folder / "log").open("ab") as log:
            self._outer = subprocess.Popen(
                [
                    "nsenter",
                    f"--net=/run/netns/{self._namespace}",
                    *apart,
                    "bash",
                    str(_INIT),
                    self.name,
                    str(self.folder),
                    CACHE,
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
                start_new_session=True,
            )
        deadline = time.monotonic() + _TIMEOUT_S
        while not self._answers():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.02)

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.address, 22), timeout=1) as made:
                return made.recv(4) == b"SSH-"
        except OSError:
            return False

    def crash(self) -> None:
        """Every process is gone at once; the address still says so to whoever asks."""
        if self._outer is not None:
            os.killpg(self._outer.pid, signal.SIGKILL)
            self._outer.wait()
            self._outer = None

    def power_off(self) -> None:
        """Every process is gone, and the address is silent."""
        self._end_bad_wire()
        subprocess.run(["ip", "-n", self._hosts.switch, "link", "del", self._port], stderr=subprocess.DEVNULL)
        self.crash()
        subprocess.run(["ip", "netns", "del", self._namespace], stderr=subprocess.DEVNULL)

    def cut(self) -> None:
        """From now on nothing reaches it, and nothing that it sends arrives."""
        _run("ip", "-n", self._hosts.switch, "link", "set", self._port, "down")

    def spoil(self, settings: Settings) -> None:
        """From now on its link is a bad one; what is on its way there and back meets this wire."""
        self._end_bad_wire()
        switch = self._hosts.switch
        one, other = f"{self._port}i", f"{self._port}o"
        _run("ip", "-n", switch, "link", "add", one, "type", "veth", "peer", "name", other)
        _run("ip", "-n", switch, "link", "set", other, "master", "br0", "up")
        _run("ip", "-n", switch, "link", "set", self._port, "nomaster")
        _run("ip", "-n", switch, "link", "set", one, "up")
        command = [
            sys.executable,
            "-m",
            "tests.testbed.wire",
            self._port,
            one,
            json.dumps(settings._asdict()),
        ]
        self._bad_wire = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{switch}", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
        )
        assert self._bad_wire.stdout is not None
        assert self._bad_wire.stdout.readline(), "no wire could be made"

    def heal(self) -> None:
        """Its link is a good one again."""
        self._end_bad_wire()
        _run("ip", "-n", self._hosts.switch, "link", "set", self._port, "master", "br0", "up")

    def _end_bad_wire(self) -> None:
        if self._bad_wire is not None:
            self._bad_wire.communicate()  # at the end of its input it ends
            self._bad_wire = None
            _run("ip", "-n", self._hosts.switch, "link", "del", f"{self._port}i")

    def start_engine(self) -> None:
        """Start a container engine there, for this life of the host; its images outlive a crash."""
        # Two engines on one bridge device would fight over it, and tasks of several nodes use the host's network.
        self.run(
            *("sh", "-c", 'setsid "$@" >>/host/dockerd.log 2>&1 &', "sh", "dockerd", "--bridge=none"),
            *("--iptables=false", "--ip6tables=false", "--data-root=/host/docker", "--exec-root=/run/docker"),
            *(f"--cgroup-parent=/{self._namespace}", "--exec-opt=native.cgroupdriver=cgroupfs"),
            *("--storage-driver=overlay2", "--config-file=/host/daemon.json"),
        )
        deadline = time.monotonic() + _TIMEOUT_S
        while not self.docker("version", "--format", "{{.Server.Version}}", check=False).strip():
            assert time.monotonic() < deadline, (self.folder / "dockerd.log").read_text()[-3000:]
            time.sleep(0.05)

    def docker(self, *args: str, check: bool = True) -> str:
        """What the command line client of its engine says."""
        return self.run(CLI, *args, check=check)

    def run(self, *argv: str, check: bool = True) -> str:
        """What a command says that runs on it, as root."""
        assert self._outer is not None
        init = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()[0]
        done = subprocess.run(
            ["nsenter", "-t", init, "-m", "-u", "-i", "-n", "-p", "-r", "-w", *argv],
            capture_output=True,
            text=True,
        )
        assert not check or done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout


class Hosts:
    """Some hosts on one switch, to which this machine is connected. As a context manager: at the end nothing is left.

    gpus: how many each pretends to have. key: the user's private key, which opens all of them. known_hosts, config: for
    ssh, with their names.
    """

    def __init__(self, count: int, gpus: int) -> None:
        parent = Path("/var/tmp")  # a disk, where /tmp may be memory
        _remove_abandoned(parent)
        new = Path(tempfile.mkdtemp(prefix="mllaunch-new-", dir=parent))
        self._lock = (new / "lock").open("wb")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.folder = new.rename(parent / new.name.replace("mllaunch-new-", _PREFIX))
        CACHE.mkdir(exist_ok=True)
        self.network = _claimed_network()
        (self.folder / "network").write_text(str(self.network))
        self.tag = f"ml{self.network}"  # names of network devices have 15 letters at most
        self.switch = f"{self.tag}sw"
        self.key = self.folder / "key"
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key))
        self.hosts = [Host(self, number, gpus) for number in range(1, count + 1)]
        self.known_hosts = self.folder / "known_hosts"
        self.config = self.folder / "ssh_config"
        self.write_known_hosts()
        lines = [f"Host *\n  IdentityFile {self.key}\n  User root\n  UserKnownHostsFile {self.known_hosts}\n"]
        lines += [f"Host {host.name}\n  HostName {host.address}\n" for host in self.hosts]
        self.config.write_text("".join(lines))

    def write_known_hosts(self) -> None:
        self.known_hosts.write_text("".join(f"{host.address} {host.key}\n" for host in self.hosts))

    def silent(self, count: int) -> list[str]:
        """Addresses of the network that nobody has, and of which nobody says so: what is sent there is lost."""
        found = [f"10.{self.network}.0.{number}" for number in range(254, 254 - count, -1)]
        for address in found:
            _run("ip", "neigh", "replace", address, "lladdr", "02:00:00:00:ff:ff", "dev", f"{self.tag}h")
        return found

    def __enter__(self) -> Hosts:
        _run("ip", "-n", self.switch, "link", "add", "br0", "type", "bridge")
        _run("ip", "-n", self.switch, "link", "set", "br0", "up")
        here, there = f"{self.tag}h", f"{self.tag}hp"
        _link((here, None), (there, self.switch))
        _run("ip", "-n", self.switch, "link", "set", there, "master", "br0", "up")
        _run("ip", "addr", "add", f"10.{self.network}.0.1/24", "dev", here)
        _run("ip", "link", "set", here, "up")
        for host in self.hosts:
            host.boot()
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            host.power_off()
        subprocess.run(["ip", "link", "del", f"{self.tag}h"], stderr=subprocess.DEVNULL)
        subprocess.run(["ip", "netns", "del", self.switch], stderr=subprocess.DEVNULL)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.close()


def _remove_abandoned(parent: Path) -> None:
    """Remove the hosts of sessions that were killed: nobody holds the lock in their folder."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            with (folder / "lock").open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                number = (folder / "network").read_text()
        except OSError:
            continue  # in use, just being made, or being removed by another session
        for space in Path("/run/netns").glob(f"ml{number}*"):
            inside = subprocess.run(["ip", "netns", "pids", space.name], capture_output=True, text=True)
            for pid in inside.stdout.split():
                os.kill(int(pid), signal.SIGKILL)
            _run("ip", "netns", "del", space.name)
        subprocess.run(["ip", "link", "del", f"ml{number}h"], stderr=subprocess.DEVNULL)
    leftovers.remove_abandoned(parent, _PREFIX)


def _claimed_network() -> int:
    """The second number of a network 10.N.0.0/24 that this machine does not know; its switch is there from now on."""
    with (CACHE / "hosts.lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another session may choose in this moment
        for number in range(77, 250):
            known = subprocess.run(
                ["ip", "-o", "route", "show", f"10.{number}.0.0/24"], capture_output=True, text=True
            )
            if not known.stdout.strip() and not Path(f"/run/netns/ml{number}sw").exists():
                _run("ip", "netns", "add", f"ml{number}sw")
                return number
    raise AssertionError("no network is free")


def _link(one: tuple[str, str | None], other: tuple[str, str | None]) -> None:
    """Two network devices joined by a wire, each (its name, its namespace)."""
    first, second = ([name, *(["netns", space] if space else [])] for name, space in (one, other))
    _run("ip", "link", "add", *first, "type", "veth", "peer", "name", *second)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr}"
