"""Nodes are asked at once, and whoever asks them is not kept by one that is silent."""

from __future__ import annotations

import signal
import threading
from typing import Any

import pytest

from mllaunch.errors import MllaunchError, Unreachable
from mllaunch.schedulers.ssh.fleet import Fleet
from mllaunch.schedulers.ssh.transport import Address

A, B, C = Address("a"), Address("b"), Address("c")


class Nodes(Fleet):
    """Each answers with its address."""

    def __init__(self) -> None:
        super().__init__((A, B, C))

    def calls(self, address: Address) -> Any:
        return address


def test_what_came_of_it_is_said_by_name_in_the_order_in_which_they_were_named() -> None:
    def act(node: Any) -> str:
        if node == B:
            raise Unreachable("unreachable", "b is away")
        return str(node.name)

    found = Nodes().each([C, B, A], act)
    assert list(found) == ["c", "b", "a"]
    assert (found["c"], found["a"]) == ("c", "a")
    assert isinstance(found["b"], MllaunchError)


def test_a_single_node_is_asked_without_a_thread() -> None:
    assert Nodes().each([A], lambda _: threading.current_thread())["a"] is threading.main_thread()


def test_a_defect_in_one_thread_is_raised_where_all_are_waited_for() -> None:
    with pytest.raises(ZeroDivisionError):
        Nodes().each([A, B], lambda node: 1 // 0 if node == B else 1)


@pytest.mark.parametrize("answering", [[], [A], [B, C]])
def test_ctrl_c_waits_for_no_node(answering: list[Address]) -> None:
    waited_for: list[Address] = []
    for_ever = threading.Event()
    all_asked = threading.Barrier(3)

    def act(node: Any) -> None:
        if all_asked.wait(30) == 0:
            # While the main thread waits for all of them.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if node not in answering and not for_ever.wait(3):
            waited_for.append(node)

    try:
        with pytest.raises(KeyboardInterrupt):
            Nodes().each([A, B, C], act)
        assert waited_for == []
    finally:
        for_ever.set()
