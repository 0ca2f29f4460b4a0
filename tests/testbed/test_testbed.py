"""The container testbed itself: each part is real, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.testbed import bridge, gpus, leftovers
from tests.testbed.engine import REPOSITORY, Engine
from tests.testbed.gpus import GpuHook
from tests.testbed.images import load_tiny
from tests.testbed.registry import Registry

NewEngine = Callable[..., Engine]


def output(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def traces(tag: str) -> list[str]:
    """What on this machine names an engine: processes, mounts, rules, devices, namespaces, control groups."""
    found = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    found += Path("/proc/self/mountinfo").read_text().splitlines()
    for command in ("iptables-save", "ip -oneline link", "ip netns"):
        found += output(*command.split()).splitlines()
    found += map(str, Path("/sys/fs/cgroup").glob("**/mllaunch-engine-*"))
    return [line for line in found if tag in line or f"mlb-{tag[-8:]}" in line]


@pytest.mark.real("engine", "busybox")
def test_an_engine_runs_containers_and_leaves_nothing_behind(new_engine: NewEngine) -> None:
    engine = new_engine()
    tiny = load_tiny(engine)
    engine.docker("network", "create", "users")
    engine.docker("run", "--detach", "--network=users", "--restart=always", tiny, "sleep", "1000")
    engine.docker("run", "--detach", "--pid=host", tiny, "sleep", "1000")
    assert engine.docker("run", "--rm", tiny, "sh", "-c", "echo $((6 * 7))").stdout == "42\n"
    assert traces(engine.folder.name)
    users = engine.docker("network", "inspect", "users", "--format={{(index .IPAM.Config 0).Gateway}}").stdout
    assert users.strip() in output("ip", "-oneline", "address")

    engine.stop()
    assert not engine.folder.exists()
    assert not traces(engine.folder.name)
    assert users.strip() not in output("ip", "-oneline", "address")


# A machine, as far as its network goes, on which a developer's Docker runs.
NEIGHBOUR = """
import subprocess
from tests.testbed.engine import Engine
from tests.testbed.images import load_tiny

def call(command):
    return subprocess.run(command.split(), stdout=subprocess.PIPE, check=True, text=True).stdout

def network():
    listing = call("iptables-save") + call("ip -oneline -4 address")
    return [line for line in listing.splitlines() if not line.startswith(("#", ":"))]

for command in (
    "ip link set lo up",
    "ip link add docker0 type bridge",
    "ip address add 172.17.0.1/16 dev docker0",
    "ip link set docker0 up",
    "iptables -N DOCKER",
    "iptables -A FORWARD -o docker0 -j DOCKER",
    "iptables -P FORWARD DROP",
    "iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE",
):
    call(command)
before = network()
with Engine() as engine:
    engine.docker("run", "--rm", load_tiny(engine), "true")
    for kill in (False, True):
        assert set(before) < set(network()), network()
        engine.restart(kill)
assert network() == before, (network(), before)
"""


@pytest.mark.real("engine", "busybox")
def test_the_network_of_a_developers_docker_is_left_alone() -> None:
    command = ["unshare", "--net", sys.executable, "-c", NEIGHBOUR]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# A session that is killed while its engine runs a container.
KILLED = """
import os, signal
from tests.testbed.engine import Engine
from tests.testbed.images import load_tiny
engine = Engine()
engine.start()
engine.docker("run", "--detach", load_tiny(engine), "sleep", "1000")
print(engine.folder, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.real("engine", "busybox")
def test_the_engine_of_a_killed_session_is_removed_by_the_next(new_engine: NewEngine) -> None:
    mine = new_engine()
    killed = subprocess.run([sys.executable, "-c", KILLED], stdout=subprocess.PIPE, text=True, cwd=REPOSITORY)
    folder = Path(killed.stdout.strip())
    assert traces(folder.name)

    leftovers.remove_abandoned(folder.parent, "mllaunch-engine-")
    assert not folder.exists()
    assert not traces(folder.name)
    assert mine.answers(), "an engine whose session lives is left alone"


@pytest.mark.real("engine", "busybox")
@pytest.mark.parametrize("kill", [False, True], ids=["SIGTERM", "SIGKILL"])
def test_a_restarted_engine_keeps_its_containers_running(new_engine: NewEngine, kill: bool) -> None:
    engine = new_engine(live_restore=True)
    tiny = load_tiny(engine)
    container = engine.docker("run", "--detach", tiny, "sleep", "1000").stdout.strip()
    state = ["inspect", "--format={{.State.Status}} {{.State.Pid}}", container]
    before, pid = engine.docker(*state).stdout, engine.pid
    assert before.startswith("running")

    engine.restart(kill)
    assert engine.pid != pid
    assert engine.docker(*state).stdout == before
    assert engine.docker("exec", container, "echo", "alive").stdout == "alive\n"


@pytest.mark.real("engine", "busybox")
def test_an_isolated_engine_is_reached_by_its_socket_alone(new_engine: NewEngine, engine: Engine) -> None:
    isolated = new_engine(isolated=True)
    tiny = load_tiny(isolated)
    devices = isolated.docker("run", "--rm", "--network=host", tiny, "ls", "/sys/class/net").stdout
    assert devices.split() == ["lo"]
    assert engine.answers()
    with isolated.client() as client, engine.client() as other:
        assert client.info()["ID"] != other.info()["ID"]


@pytest.mark.real("engine")
def test_an_engine_that_cannot_start_says_why() -> None:
    engine = Engine(arguments=["--no-such-option"])
    with pytest.raises(AssertionError, match="no-such-option"), engine:
        pass
    assert not engine.folder.exists()


@pytest.mark.real("engine")
def test_bridges_take_addresses_that_nobody_has() -> None:
    tags = ["testbed-network1", "testbed-network2"]
    try:
        made = [bridge.make(tag) for tag in tags]
        assert not made[0].network.overlaps(made[1].network)
    finally:
        for tag in tags:
            bridge.remove(tag)
    assert not any(traces(tag) for tag in tags)


@pytest.mark.real("engine", "mmdebstrap")
@pytest.mark.parametrize("buildkit", ["0", "1"], ids=["classic", "buildkit"])
@pytest.mark.parametrize("network", ["bridge", "host"])
def test_builds_install_packages(
    engine: Engine, python_image: str, tmp_path: Path, buildkit: str, network: str
) -> None:
    install = "pip install six" if network == "bridge" else "pip install --target /six six"
    (tmp_path / "Dockerfile").write_text(f"FROM {python_image}\nRUN {install}\n")
    words = ["build", "--no-cache", "--force-rm", *(["--network=host"] if network == "host" else [])]
    done = engine.docker(*words, str(tmp_path), env={"DOCKER_BUILDKIT": buildkit})
    assert "Successfully installed six" in done.stdout + done.stderr


@pytest.mark.real("engine", "mmdebstrap")
def test_builds_install_packages_with_uv(engine: Engine, python_image: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        f"FROM {python_image}\nRUN pip install uv && uv pip install --system six\n"
        "RUN python3 -c 'import six; print(six.__name__, 6 * 7)'\n"
    )
    done = engine.docker("build", str(tmp_path))
    assert "six 42" in done.stdout + done.stderr


@pytest.mark.real("engine", "mmdebstrap", "torch")
@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_builds_take_torch_from_the_wheel_in_the_image(
    engine: Engine, torch_image: str, installer: str
) -> None:
    command = {
        "pip": "pip download --no-deps --dest /got torch",
        "uv": "pip install uv && uv pip install --system --no-deps --dry-run -v torch",
    }[installer]
    done = engine.docker("run", "--rm", torch_image, "sh", "-c", command)
    assert "2.13.0+cpu" in done.stdout + done.stderr


@pytest.mark.real("engine", "gcc")
def test_the_bare_image_has_one_program_and_no_shell(engine: Engine, bare_image: str) -> None:
    done = engine.docker("run", "--rm", bare_image, "/bare", "7", "a b", "c", check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "7\na b\nc\n", "bare: 3 arguments\n")
    assert engine.docker("run", "--rm", bare_image, "sh", check=False).returncode == 127


@pytest.mark.real("engine", "busybox")
def test_the_foreign_image_is_for_another_architecture(
    engine: Engine, foreign_image: str, tiny_image: str
) -> None:
    form = "--format={{.Architecture}}"
    assert engine.docker("image", "inspect", form, foreign_image, tiny_image).stdout == "arm64\namd64\n"


@pytest.mark.real("engine", "busybox", "docker-registry")
def test_images_are_pushed_to_the_registry_and_pulled_back(
    engine: Engine, tiny_image: str, registry: Registry, new_engine: NewEngine
) -> None:
    name = f"{registry.url}/team/tiny:1"
    assert (registry.blobs(), registry.received_bytes, registry.served_bytes) == ({}, 0, 0)
    with engine.client() as client:
        client.images.get(tiny_image).tag(name)
        client.images.push(name)
    blobs = registry.blobs()
    assert len(blobs) == 2  # a layer and the configuration
    assert registry.received_bytes == sum(blobs.values())
    engine.docker("push", name)
    assert registry.received_bytes == sum(blobs.values()), "what is known is not sent again"

    other = new_engine()  # which has no layer yet
    url = registry.url
    registry.stop()
    registry.start()
    assert registry.url == url
    assert other.docker("run", "--rm", name, "echo", "back").stdout == "back\n"
    assert registry.served_bytes == sum(blobs.values())


@pytest.mark.real("engine", "busybox", "docker-registry")
def test_the_private_registry_demands_a_login(
    engine: Engine, tiny_image: str, private_registry: Registry
) -> None:
    name = f"{private_registry.url}/tiny:1"
    engine.docker("tag", tiny_image, name)
    refused = engine.docker("push", name, check=False)
    assert refused.returncode == 1
    assert "no basic auth credentials" in refused.stderr

    login = private_registry.login
    assert login
    words = ["login", "--username", login.user, "--password-stdin", private_registry.url]
    assert engine.docker(*words, stdin=b"wrong", check=False).returncode == 1
    engine.docker(*words, stdin=login.secret.encode())
    engine.docker("push", name)
    assert private_registry.received_bytes > 0


@pytest.mark.real("engine", "busybox", "docker-registry")
@pytest.mark.parametrize("damage", ["corrupt", "remove"])
def test_a_damaged_blob_is_refused_on_pull(
    new_engine: NewEngine, engine: Engine, tiny_image: str, registry: Registry, damage: str
) -> None:
    name = f"{registry.url}/tiny:1"
    engine.docker("tag", tiny_image, name)
    engine.docker("push", name)
    blobs = registry.blobs()
    layer = max(blobs, key=blobs.__getitem__)
    getattr(registry, damage)(layer)
    other = new_engine()  # which has no layer yet
    done = other.docker("pull", name, check=False)
    assert done.returncode == 1
    assert {"corrupt": "verification failed", "remove": "unknown blob"}[damage] in done.stderr


@pytest.mark.real("engine", "busybox")
def test_a_container_gets_the_gpus_that_it_asks_for(
    engine: Engine, tiny_image: str, gpu_hook: GpuHook
) -> None:
    look = ["run", "--rm", tiny_image, "sh", "-c", f"ls /dev/nvidia*; cat {gpus.SEEN}; echo x > /dev/nvidia2"]

    def asking(request: str) -> tuple[int, list[str]]:
        done = engine.docker("run", "--rm", f"--gpus={request}", *look[2:], check=False)
        return done.returncode, (done.stdout + done.stderr).splitlines()

    one, two = gpus.uuid(2), gpus.uuid(5)
    assert asking(f"device={one}") == (0, ["/dev/nvidia2", one])
    assert asking(f'"device={two},{one}"') == (0, ["/dev/nvidia2", "/dev/nvidia5", two, one])
    assert len(asking("all")[1]) == 16
    rc, said = asking("device=GPU-unknown")
    assert rc == 125
    assert "unknown device" in "".join(said)

    gpu_hook.set(one, two)
    assert asking(f"device={two}")[1][:2] == ["/dev/nvidia1", two]
    gpu_hook.set(one, two, silent=True)
    rc, said = asking(f"device={one}")
    assert "No such file" in "".join(said)
    assert one not in "".join(said)


@pytest.mark.real("engine", "busybox")
def test_an_engine_without_the_hook_refuses_gpus(new_engine: NewEngine) -> None:
    engine = new_engine()
    done = engine.docker("run", "--rm", "--gpus=all", load_tiny(engine), "true", check=False)
    assert done.returncode == 125
    assert "could not select device driver" in done.stderr
