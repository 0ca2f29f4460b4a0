from __future__ import annotations

from typing import Any

import pytest

from mllaunch.config.values import NodeAddress
from mllaunch.domain.job import Resources
from mllaunch.domain.placement import Offer, Wish, choose, meant, wish
from mllaunch.errors import MllaunchError, NotFound, Unreachable, UsageError

SILENT = Offer("silent", problem="silent cannot be reached: it does not answer")


def offer(node: str, gpus: int = 8, free: int | None = None, **more: Any) -> Offer:
    made = Offer(node, gpus, gpus if free is None else free, cpus=64, memory_bytes=1 << 39)
    return made._replace(**more)


def refusal(wanted: Resources, *offers: Offer, named: bool = False) -> MllaunchError:
    with pytest.raises(MllaunchError) as caught:
        choose(wanted, offers, named=named)
    return caught.value


def test_named_nodes_are_taken_in_their_order_whatever_there_is_to_do() -> None:
    offers = [offer("busy", free=0, waiting=5), offer("idle"), offer("small", gpus=1)]
    assert choose(Resources(gpus=1, nodes=3), offers, named=True) == ["busy", "idle", "small"]
    assert choose(Resources(gpus=1), offers[:1], named=True) == ["busy"]


@pytest.mark.parametrize("nodes", [1, 3])
def test_a_number_of_nodes_that_is_not_that_of_the_named_ones_is_refused(nodes: int) -> None:
    error = refusal(Resources(nodes=nodes), offer("a"), offer("b"), named=True)
    assert isinstance(error, UsageError)
    assert (error.code, error.message) == ("nodes", f"--nodes {nodes}, but 2 nodes are named by --node")


@pytest.mark.parametrize("named", [True, False])
def test_what_no_choice_could_give_is_refused_with_what_each_node_lacks(named: bool) -> None:
    error = refusal(Resources(gpus=4, nodes=2), offer("a", gpus=1), offer("b", gpus=0), named=named)
    assert isinstance(error, UsageError)
    assert error.code == "placement"
    assert error.message == "2 nodes with 4 GPUs: 0 of 2 can serve"
    assert error.evidence == ("a: it has 1 GPU", "b: it has 0 GPUs")
    assert error.hint == "mllaunch nodes"


def test_only_the_nodes_that_lack_something_are_named() -> None:
    error = refusal(Resources(gpus=4, nodes=2), offer("a", gpus=2), offer("b"))
    assert error.message == "2 nodes with 4 GPUs: 1 of 2 can serve"
    assert error.evidence == ("a: it has 2 GPUs",)


@pytest.mark.parametrize(
    ("wanted", "message", "lack"),
    [
        (Resources(cpus=65), "1 node with 65 CPUs: 0 of 1 can serve", "a: it has 64 CPUs"),
        (
            Resources(gpus=1, memory_bytes=1 << 40),
            "1 node with 1 GPU, 1099511627776 bytes of memory: 0 of 1 can serve",
            "a: it has 549755813888 bytes of memory",
        ),
    ],
)
def test_cpus_and_memory_count_too(wanted: Resources, message: str, lack: str) -> None:
    error = refusal(wanted, offer("a"))
    assert error.message == message
    assert error.evidence == (lack,)
    assert choose(Resources(gpus=8, cpus=64, memory_bytes=1 << 39), [offer("a")], named=False) == ["a"]


def test_a_node_that_cannot_be_asked_is_not_missed_where_others_can_serve() -> None:
    assert choose(Resources(gpus=1), [SILENT, offer("a")], named=False) == ["a"]


@pytest.mark.parametrize(
    ("wanted", "offers", "named"),
    [
        (Resources(nodes=2), [SILENT, offer("a")], False),
        (Resources(nodes=2), [SILENT, offer("a")], True),
        (Resources(gpus=8), [SILENT, offer("a", gpus=1)], False),
    ],
)
def test_where_a_node_that_cannot_be_asked_would_be_needed_it_is_named(
    wanted: Resources, offers: list[Offer], named: bool
) -> None:
    error = refusal(wanted, *offers, named=named)
    assert isinstance(error, Unreachable)
    assert error.message.endswith("and 1 cannot be asked")
    assert "silent: silent cannot be reached: it does not answer" in error.evidence


def test_what_would_not_do_even_with_the_silent_ones_is_a_mistake_of_the_user() -> None:
    error = refusal(Resources(nodes=3), SILENT, offer("a"))
    assert isinstance(error, UsageError)
    assert error.message == "3 nodes with anything: 1 of 2 can serve"


def test_without_any_node_nothing_can_serve() -> None:
    assert refusal(Resources()).message == "1 node with anything: 0 of 0 can serve"


def test_nodes_that_can_begin_at_once_come_first_the_fullest_before_the_others() -> None:
    offers = [
        offer("none free", free=0),
        offer("empty"),
        offer("fuller", free=3),
        offer("just enough", free=2),
        offer("one free", free=1),
        offer("enough, but others wait", free=4, waiting=1),
        offer("long queue", free=0, waiting=2),
    ]
    assert choose(Resources(gpus=2, nodes=7), offers, named=False) == [
        "just enough",
        "fuller",
        "empty",
        "one free",
        "none free",
        "enough, but others wait",
        "long queue",
    ]


def test_runs_without_gpus_go_where_there_is_least_to_do() -> None:
    offers = [offer("a", load=32.0), offer("b", load=8.0), offer("c", load=4.0, cpus=2), offer("d", load=8.0)]
    assert choose(Resources(nodes=4), offers, named=False) == ["b", "d", "a", "c"]


def test_of_equal_nodes_the_order_of_the_configuration_decides() -> None:
    assert choose(Resources(gpus=1, nodes=2), [offer("z"), offer("a"), offer("m")], named=False) == ["z", "a"]


def test_preferred_nodes_come_first_in_their_order_as_far_as_they_can_begin_at_once() -> None:
    offers = [offer("a", free=1), offer("b"), offer("c", free=0), offer("d")]

    def chosen(wanted: Resources, *preferred: str) -> list[str]:
        return choose(wanted, offers, named=False, preferred=preferred)

    assert chosen(Resources(gpus=1, nodes=2), "d", "b") == ["d", "b"]
    assert chosen(Resources(gpus=1, nodes=2), "c", "d") == ["d", "a"]
    assert chosen(Resources(nodes=2), "c", "d") == ["c", "d"]
    assert chosen(Resources(gpus=1), "unknown") == ["a"]


def test_what_else_a_node_lacks_counts_too() -> None:
    offers = [offer("bare", lack="no container engine: none answers"), offer("b")]
    assert choose(Resources(), offers, named=False) == ["b"]
    error = refusal(Resources(nodes=2), *offers)
    assert isinstance(error, UsageError)
    assert error.evidence == ("bare: no container engine: none answers",)


NODES = (
    NodeAddress("a", groups=("lab", "old"), labels=(("gpu", "a100"),)),
    NodeAddress("b", groups=("lab",), labels=(("gpu", "h100"), ("rack", "3"))),
    NodeAddress("c"),
)


def test_a_word_means_a_node_a_group_or_a_label() -> None:
    assert [meant(word, NODES) for word in ("c", "lab", "gpu=h100")] == [["c"], ["a", "b"], ["b"]]


@pytest.mark.parametrize("word", ["d", "gpu", "gpu=", "gpu=v100", "a100", ""])
def test_a_word_that_means_nothing_is_named_with_what_there_is(word: str) -> None:
    with pytest.raises(NotFound) as caught:
        meant(word, NODES)
    assert caught.value.message == (
        f"there is no node {word}; the configuration has a, b, c, and the groups lab, old"
    )


def test_named_nodes_are_all_meant_and_in_their_order_but_any_of_a_group() -> None:
    assert wish((), NODES) == Wish((), exactly=False)
    assert wish(("c", "a"), NODES) == Wish(("c", "a"), exactly=True)
    assert wish(("lab",), NODES) == Wish(("a", "b"), exactly=False)
    assert wish(("rack=3", "old"), NODES) == Wish(("a", "b"), exactly=False)


def test_nodes_and_groups_are_not_asked_for_together() -> None:
    with pytest.raises(UsageError) as caught:
        wish(("lab", "c"), NODES)
    assert caught.value.message == "--node c is a node, but --node lab means any of several"
