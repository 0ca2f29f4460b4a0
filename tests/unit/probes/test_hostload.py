from __future__ import annotations

from pathlib import Path

from mllaunch_agent.probes import hostload

DATA = Path(__file__).with_name("data")


def test_busy_time_is_all_but_idle_and_waiting_for_disks() -> None:
    assert hostload.parse_cpu(b"cpu  100 10 50 700 40 5 5 0 30 0\ncpu0 1 1 1 1 1\n") == (170, 910)
    busy, total = hostload.parse_cpu((DATA / "proc_stat").read_bytes()) or (0, 0)
    assert 0 < busy < total
    assert hostload.parse_cpu(b"") is None


def test_used_memory_is_what_is_not_available() -> None:
    data = b"MemTotal:       1000 kB\nMemFree:  1 kB\nMemAvailable:    400 kB\n"
    assert hostload.parse_memory_used(data) == 600 * 1024
    assert hostload.parse_memory_used(b"MemTotal: 1 kB\n") is None


def test_only_cards_count_lest_bytes_over_a_bridge_count_twice() -> None:
    data = (DATA / "net_dev").read_bytes()
    received, sent = hostload.parse_network(data, lambda name: name == "eth0")
    assert (received, sent) == (132912893, 467096)


def test_where_no_interface_is_a_card_all_but_loopback_count() -> None:
    head = b"Inter-|\n face |\n"
    lines = b"    lo: 9 0 0 0 0 0 0 0 9 0\n eth0:5 0 0 0 0 0 0 0 7 0\n  eth1: 1 0 0 0 0 0 0 0 1 0\n"
    assert hostload.parse_network(head + lines, lambda _: False) == (6, 8)
    assert hostload.parse_network(head, lambda _: False) == (None, None)
    assert hostload.parse_network(b"", lambda _: False) == (None, None)


def test_the_first_reading_has_no_share_of_busy_time_and_later_ones_do() -> None:
    load = hostload.HostLoad()
    assert load.cpu_busy() is None
    load._cpu = (0, 0)
    busy = load.cpu_busy()
    assert busy is not None
    assert 0 <= busy <= 1
