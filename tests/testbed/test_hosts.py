"""The hosts' bad links are as bad as they are said to be."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.testbed.hosts import Host, Hosts
from tests.testbed.wire import Settings

pytestmark = pytest.mark.real("hosts")

_COUNTING = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
    end.bind(("", 9))
    end.settimeout(1)
    count = 0
    try:
        while end.recv(1):
            count += 1
    except TimeoutError:
        print(count)
"""


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Hosts(1, gpus=0) as made:
        yield made.hosts[0]


@pytest.fixture(autouse=True)
def _heal(host: Host) -> Iterator[None]:
    yield
    host.heal()


def connect(host: Host) -> float:
    """Seconds until sshd has said something."""
    began = time.monotonic()
    with socket.create_connection((host.address, 22), timeout=1) as made:
        assert made.recv(4) == b"SSH-"
    return time.monotonic() - began


def test_a_link_delays_what_its_host_says(host: Host) -> None:
    assert connect(host) < 0.4
    host.spoil(Settings(delay_s=0.2))
    assert connect(host) > 0.4  # its answer to the connection, and its greeting
    host.heal()
    assert connect(host) < 0.4


@pytest.mark.parametrize("settings", [Settings(mute=True), Settings(deaf=True)], ids=["mute", "deaf"])
def test_a_link_carries_one_way_only(host: Host, settings: Settings) -> None:
    host.spoil(settings)
    with pytest.raises(TimeoutError):
        connect(host)


def test_a_link_loses_packets(host: Host) -> None:
    host.spoil(Settings(loss=0.3))
    with ThreadPoolExecutor(1) as pool, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        counted = pool.submit(host.run, "python3", "-c", _COUNTING)
        time.sleep(0.5)
        for _ in range(400):
            end.sendto(b"x", (host.address, 9))
            time.sleep(0.001)
        assert 200 < int(counted.result()) < 350
